"""What files are refused for in paging, totals and ends; stored declarations are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.declaration import READING_STORED
from collect_ops.sources.expressions import keeps_count, projected_list
from collect_ops.sources.load import load_source
from collect_ops.sources.model import Source
from tests.plugins.unit.sources.factories import source_fields

OFFSET = {"paging": {"type": "offset"}}
POST = {"request": {"method": "POST", "body": {"variables": {"first": 10}, "page": 3}}}


def nested(**paging: Any) -> dict[str, Any]:
    return {"paging": {"type": "cursor", "cursor": "next", "location": "body", **paging}}


def loaded(tmp_path: Path, fields: dict[str, Any]) -> Source:
    path = tmp_path / "things.yaml"
    path.write_text(json.dumps(source_fields(**fields)))
    return load_source(path)


def faults_of(tmp_path: Path, fields: dict[str, Any]) -> set[str]:
    try:
        loaded(tmp_path, fields)
    except ValidationFailed as failed:
        return {fault.field for fault in failed.faults}
    return set()


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        # Counted paging goes on by the number of records.
        (OFFSET | {"records": "rows[?kind=='b']"}, {"records"}),
        (OFFSET | {"records": "rows[].lines[]"}, {"records"}),
        ({"paging": {"type": "page"}, "records": "rows[:5]"}, {"records"}),
        (OFFSET | {"records": "hits.hits[*]._source"}, set()),
        (OFFSET | {"records": "rows", "select": "[?kind=='b']"}, set()),
        ({"paging": {"type": "cursor", "cursor": "next"}, "records": "rows[?kind=='b']"}, set()),
        ({"paging": {"type": "none"}, "records": "rows[?kind=='b']"}, set()),
        ({"select": "[?kind=='"}, {"select"}),
        # Names with dots.
        (POST | nested(cursor_param="variables.after"), set()),
        (POST | nested(cursor_param="variables.first"), {"request.body.variables.first"}),
        (POST | nested(cursor_param="page.after"), {"request.body.page"}),
        (POST | nested(cursor_param="variables..after"), {"paging.cursor_param"}),
        (POST | nested(cursor_param="page.after", body_names="flat"), set()),
        ({"paging": {"type": "cursor", "cursor": "next", "cursor_param": "page.after"}}, set()),
        (
            {"paging": {"type": "cursor", "cursor": "next", "body_names": "nested"}},
            {"paging.body_names"},
        ),
        # Page sizes that nobody says.
        ({"paging": {"type": "page", "size_param": None}}, set()),
        ({"paging": {"type": "page", "size_param": None, "advance_by": "page_size"}}, {"paging.advance_by"}),
        (
            {"paging": {"type": "offset", "limit_param": None, "advance_by": "page_size"}, "page_size": 10},
            set(),
        ),
        ({"paging": {"type": "offset", "first_offset": -1}}, {"paging.first_offset"}),
        # Ends.
        (OFFSET | {"end": [{"status": [404]}, {"body": "page >= pages"}]}, set()),
        (OFFSET | {"end": [{"status": [401]}]}, {"end.0.status"}),
        (OFFSET | {"end": [{"status": [404]}, {"status": [500]}]}, {"end.1.status"}),
        (OFFSET | {"end": [{"status": [200]}]}, {"end.0"}),
        (OFFSET | {"end": [{}]}, {"end.0"}),
        (OFFSET | {"records_may_be": ["absent", "object"]}, set()),
    ],
)
def test_what_a_file_is_refused_for(tmp_path: Path, fields: dict[str, Any], faults: set[str]) -> None:
    assert faults_of(tmp_path, fields) == faults


def test_what_was_admitted_with_a_filter_is_read() -> None:
    fields = source_fields(**OFFSET, records="rows[?kind=='b']")
    assert Source.model_validate(fields, context=READING_STORED).records == "rows[?kind=='b']"


def test_a_dotted_name_means_a_path_in_files_and_a_key_in_what_was_stored(tmp_path: Path) -> None:
    fields = POST | nested(cursor_param="variables.after")
    assert loaded(tmp_path, fields).paging.body_names == "nested"  # type: ignore[union-attr]
    stored = Source.model_validate(source_fields(**fields), context=READING_STORED)
    assert stored.paging.body_names == "flat"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("expression", "keeps"),
    [
        ("@", True),
        ("data[0].rows", True),
        ("rows || items", True),
        ("not_null(rows, items)", True),
        ("sort_by(rows, &id)", True),
        ("values(@)", True),
        ("parts[?name=='rows'] | [0].values", True),
        ("rows[*]", True),
        ("rows[*].item", True),
        ("rows[?kind]", False),
        ("rows[]", False),
        ("rows[1:]", False),
        ("rows[?kind].item", False),
        ("rows[].item", False),
        ("rows[*].lines[]", False),
        ("rows[*].a.b | [?c]", False),
    ],
)
def test_what_keeps_the_number_of_records(expression: str, keeps: bool) -> None:
    assert keeps_count(expression) is keeps


def test_the_list_that_a_field_is_taken_of() -> None:
    document = {"hits": {"hits": [{"_source": {"id": 1}}, {}]}}
    whole = projected_list("hits.hits[*]._source")
    assert whole is not None
    assert whole.search(document) == document["hits"]["hits"]
    assert projected_list("hits.hits") is None
