"""Programs that are started in another way now: who is not restarted by this command goes on as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import bring_up, supervisor
from stack.layout import Layout

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """A stack of which redis alone runs."""
    layout = Layout(home=tmp_path / "stack")
    try:
        bring_up.up(layout, ["redis"], print, {})
        yield layout
    finally:
        bring_up.clean(layout, print)


def pid(layout: Layout, name: str) -> int:
    return supervisor.states(layout)[name].pid


def test_what_runs_keeps_running_until_it_is_asked_for(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pid(layout, "redis")
    monkeypatch.setattr(supervisor, "LOG_BACKUPS", 3)  # in every program's section
    bring_up.up(layout, ["epmd"], print, {})
    assert (pid(layout, "redis"), pid(layout, "epmd") > 0) == (before, True)
    bring_up.up(layout, ["epmd"], print, {})
    assert pid(layout, "redis") == before
    bring_up.up(layout, ["redis"], print, {})
    assert pid(layout, "redis") not in (0, before)
    after = pid(layout, "redis"), pid(layout, "epmd")
    bring_up.up(layout, ["redis", "epmd"], print, {})
    assert (pid(layout, "redis"), pid(layout, "epmd")) == after


def test_other_examples_stop_nobody_outside_what_changes(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pid(layout, "redis")
    monkeypatch.setattr(supervisor, "LOG_BACKUPS", 3)
    bring_up.up(layout, ["epmd"], print, {"COLLECT_EXAMPLES": "1"})
    assert pid(layout, "redis") == before
