"""Numbers of declarations: bounded where files are loaded, and as they were where stored definitions are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.lanes.priority import HIGHEST, ageing_boost
from collect_ops.sources.bounds import LENGTHS, NUMBERS
from collect_ops.sources.load import load_source
from collect_ops.sources.model import Source
from collect_ops.sources.priority_formula import Ageing
from collect_ops.sources.schema import json_schema
from tests.plugins.unit.kernel.test_rules_end import unbounded_numbers
from tests.plugins.unit.sources.factories import source_fields

#: What a part needs so that it may have a field.
AROUND: dict[str, dict[str, Any]] = {
    "shards": {"by": "count"},
    "paging": {"type": "page"},
    "paging.first_offset": {"type": "offset"},
    "total.capped_at": {"type": "body", "path": "total"},
    "shards.min_step": {"by": "key_range", "low": "a", "high": "b", "bounds": "closed", "step": 1},
    "shards.max_step": {"by": "key_range", "low": "a", "high": "b", "bounds": "closed", "step": 1},
    "merge": {"type": "range", "start": "a", "end": "b", "column": "c"},
    "page_size": {"paging": {"type": "link_header", "limit_param": "n"}},
}


def fields_with(field: str, value: object) -> dict[str, Any]:
    first, *rest = field.split(".")
    around = {"paging": {"type": "offset"}} if first == "shards" else {}
    fields = source_fields(**around, **(AROUND.get(field, {}) if not rest else {}))
    if not rest:
        return {**fields, first: value}
    part: Any = {**AROUND.get(first, {}), **(AROUND.get(field, {}))}
    fields[first] = part
    for name in rest[:-1]:
        part = part.setdefault(name, {})
    part[rest[-1]] = value
    return fields


def faults_of(tmp_path: Path, fields: dict[str, Any]) -> dict[str, str]:
    path = tmp_path / "things.yaml"
    path.write_text(json.dumps(fields))
    try:
        load_source(path)
    except ValidationFailed as failed:
        return {fault.field: fault.problem for fault in failed.faults}
    return {}


@pytest.mark.parametrize("field", NUMBERS)
def test_a_number_is_bounded_when_a_file_is_loaded(tmp_path: Path, field: str) -> None:
    bound = NUMBERS[field]
    # Some are refused by a tighter rule as well: a retry's first wait above its longest, a least step above the step.
    assert field in faults_of(tmp_path, fields_with(field, 2 * int(bound.most)))
    assert "must be at" not in faults_of(tmp_path, fields_with(field, int(bound.most))).get(field, "")
    if bound.least is not None:
        assert "must be at least" in faults_of(tmp_path, fields_with(field, bound.least / 2))[field]
        assert "must be at" not in faults_of(tmp_path, fields_with(field, bound.least)).get(field, "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dedup.ttl_h", 1e308),
        ("limits.max_pages", 10**30),
        ("timeouts.request_s", 1e300),
        ("priority_formula.ageing.every_s", 1e-300),
        ("max_active_tasks", 2**31),
    ],
)
def test_what_was_stored_is_read_as_it_is(field: str, value: float) -> None:
    assert Source.model_validate(fields_with(field, value))


@pytest.mark.parametrize("field", LENGTHS)
def test_a_length_is_bounded_when_a_file_is_loaded(tmp_path: Path, field: str) -> None:
    many = int(LENGTHS[field].most) + 1
    entries: Any = {f"e{number}": "x" for number in range(many)}
    if field == "target.key":
        entries = [f"e{number}" for number in range(many)]
    elif field == "target.columns":
        entries = {name: {"type": "text"} for name in entries}
    elif field in ("retry_when", "end"):
        entries = [{"body": name} for name in entries]
    elif field == "request.params":
        entries = {name: {} for name in entries}
    fields = fields_with(field, entries)
    if field.startswith("target"):
        fields["target"]["table"] = "things"
    if field.startswith("total"):
        fields["total"] |= {"type": "request", "path": "/n", "value": "n"}
    if field.startswith("shards"):
        fields["shards"] |= {"by": "key_range", "low": "a", "high": "b", "bounds": "closed", "step": 1}
        fields["shards"]["range"] |= {"path": "/r", "low": "a", "high": "b"}
    assert "must have at most" in faults_of(tmp_path, fields)[field]


def test_every_number_of_a_declaration_has_an_upper_bound_that_editors_know() -> None:
    # Numbers that are compared or sent, and never counted with: of parameters, and wherever any scalar may stand.
    free = ("Param.", ".query.", ".identity.", ".values.", ".null_if.")
    found = {place for place in unbounded_numbers(json_schema(), "") if not any(one in place for one in free)}
    assert found == set()


def test_steps_of_ageing_that_no_clock_has_do_not_stop_the_evaluation() -> None:
    assert ageing_boost(Ageing(first_after_s=1, every_s=5e-324), 1e9) == HIGHEST
    assert ageing_boost(Ageing(first_after_s=3600, every_s=3600), 7201) == 2


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"method": "POST", "body": {"a": [1, 18446744073709551616]}}', "request.body.a.1"),
        ('{"query": {"a": -9223372036854775809}}', "request.query.a"),
    ],
)
def test_numbers_that_json_writers_refuse_are_faults(tmp_path: Path, text: str, field: str) -> None:
    assert "64 bits" in faults_of(tmp_path, source_fields(request=json.loads(text)))[field]
