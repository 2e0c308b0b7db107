"""The project's examples are among the sources only when they are asked for."""

from __future__ import annotations

import pytest

from collect_ops.sources.examples import EXAMPLE_PREFIX, examples_are_on
from collect_ops.sources.load import UnknownSource, get_source, load_sources, source_names, sources_dir


def examples(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(EXAMPLE_PREFIX)]


@pytest.mark.parametrize("value", ["", "0", "no", "false", "off"])
def test_they_are_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("COLLECT_EXAMPLES", value)
    assert examples(source_names()) == []
    assert "flights" in source_names()
    assert examples(list(load_sources().sources)) == []
    with pytest.raises(UnknownSource, match="COLLECT_EXAMPLES=1"):
        get_source("example_single")


@pytest.mark.parametrize("value", ["1", "true", "yes", " ON "])
def test_they_are_on_when_asked_for(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("COLLECT_EXAMPLES", value)
    assert examples_are_on()
    assert len(examples(source_names())) == 7
    assert get_source("example_single").name == "example_single"


def test_a_folder_that_is_named_is_read_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLLECT_EXAMPLES")
    assert examples(source_names(sources_dir()))
