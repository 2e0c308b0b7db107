from __future__ import annotations

import json
from pathlib import Path

import pytest

from collect_ops.sources.file_defaults import changed_readings, with_file_defaults
from collect_ops.sources.load import changed_readings_of, load_source
from collect_ops.sources.model import OffsetPaging, Source
from collect_ops.sources.stored import dump_definition, load_definition
from tests.plugins.unit.sources.factories import make_source

FILE = "name: things\nconnection: things_api\ntarget: {table: things}\npaging: {type: offset%s}\n"


@pytest.mark.parametrize(
    ("declared", "meant"),
    [("", "refuse"), (", equal_pages: allow", "allow"), (", equal_pages: refuse", "refuse")],
)
def test_a_file_means_what_it_leaves_out(tmp_path: Path, declared: str, meant: str) -> None:
    path = tmp_path / "things.yaml"
    path.write_text(FILE % declared)
    paging = load_source(path).paging
    assert isinstance(paging, OffsetPaging)
    assert paging.equal_pages == meant
    changed = [each.field for each in changed_readings_of(path) if each.field.startswith("paging")]
    assert changed == ([] if declared else ["paging.equal_pages"])


@pytest.mark.parametrize(
    ("request_declared", "meant"),
    [
        ("", "get"),
        ("request: {path: /x}\n", "get"),
        ("request: {method: POST}\n", "refuse"),
        ("request: {method: POST, redirected_post: get}\n", "get"),
        ("request: {method: POST, redirected_post: repeat}\n", "repeat"),
    ],
)
def test_a_post_that_is_redirected_is_refused_where_a_file_says_nothing(
    tmp_path: Path, request_declared: str, meant: str
) -> None:
    path = tmp_path / "things.yaml"
    path.write_text(FILE % ", equal_pages: allow" + request_declared)
    assert load_source(path).request.redirected_post == meant
    changed = [each.field for each in changed_readings_of(path)]
    assert ("request.redirected_post" in changed) is (meant == "refuse")


def test_what_was_stored_before_goes_on_as_it_was() -> None:
    declared = {"name": "things", "connection": "c", "target": {"table": "t"}, "paging": {"type": "offset"}}
    for format_ in (0, 1, 2):
        paging = load_definition(f"{format_:02x}", format_, declared).paging
        assert isinstance(paging, OffsetPaging)
        assert paging.equal_pages == "allow"


def test_what_a_file_means_is_stored_and_spared_to_older_processes() -> None:
    source = with_file_defaults(make_source(paging={"type": "offset"}))
    stored = dump_definition(source)
    assert stored.format == 3
    assert json.loads(stored.declared)["paging"]["equal_pages"] == "refuse"
    assert "equal_pages" not in json.loads(stored.resolved)["paging"]
    assert load_definition(stored.version.hex(), stored.format, json.loads(stored.declared)) == source
    # What somebody has declared on purpose is not dropped in silence.
    allowing = dump_definition(
        with_file_defaults(make_source(paging={"type": "offset", "equal_pages": "allow"}))
    )
    assert json.loads(allowing.resolved)["paging"]["equal_pages"] == "allow"


def test_nothing_changes_where_there_is_nothing_to_leave_out() -> None:
    source = with_file_defaults(make_source())
    assert with_file_defaults(source) == source
    assert changed_readings(source) == []
    filled = with_file_defaults(make_source(paging={"type": "offset"}))
    assert with_file_defaults(filled) is filled
    assert isinstance(filled, Source)
