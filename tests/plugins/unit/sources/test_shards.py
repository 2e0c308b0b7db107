"""What `shards` demands of a declaration: each fault names the field, what stands there, and what would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.load import load_source
from tests.plugins.unit.sources.factories import source_fields

TYPES = {
    "n": "integer",
    "m": "integer",
    "d": "date",
    "e": "date",
    "t": "datetime",
    "u": "datetime",
    "s": "string",
}
PARAMS: dict[str, dict[str, Any]] = {name: {"type": kind, "required": True} for name, kind in TYPES.items()}
KEY = {"by": "key_range", "low": "n", "high": "m", "bounds": "closed", "step": 10}
DAYS = {"by": "date_window", "start": "d", "end": "e", "bounds": "half_open", "window": "P1M"}
TIMES = {
    "by": "date_window",
    "start": "t",
    "end": "u",
    "bounds": "closed",
    "window": "PT6H",
    "resolution": "PT1S",
}
LIST = {"by": "values", "param": "s", "separator": ",", "per_shard": 5}
CODE = {"by": "entry_point", "entry_point": "package.module:function"}
ASKED = {"path": "/edges", "low": "low", "high": "high"}


def declared(tmp_path: Path, shards: dict[str, Any], **changes: Any) -> Path:
    params = {**PARAMS, **changes.pop("params", {})}
    request = {"path": "/", "query": {name: f"{{{name}}}" for name in params}, "params": params}
    fields = source_fields(request=request, shards=shards, paging={"type": "offset"}, **changes)
    path = tmp_path / "things.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


@pytest.mark.parametrize(
    "shards",
    [
        {"by": "count"},
        {"by": "count", "target_s": 5, "min_size": 1000, "max_size": 50_000},
        KEY,
        {**KEY, "bounds": "half_open", "min_step": 1, "max_step": 100, "target_s": 5},
        DAYS,
        {**DAYS, "window": None, "days": 7, "bounds": "closed"},
        TIMES,
        {**TIMES, "bounds": "half_open", "resolution": None},
        LIST,
        {**LIST, "values": ["a", "b"]},
        {"by": "values", "param": "n", "values": [1, 2]},
        CODE,
        {**CODE, "options": {"anything": [1, {"a": None}]}},
    ],
)
def test_what_fits(tmp_path: Path, shards: dict[str, Any]) -> None:
    assert load_source(declared(tmp_path, shards)).shards.by == shards["by"]


def test_without_a_section_shards_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "things.yaml"
    path.write_text(yaml.safe_dump(source_fields()))
    assert load_source(path).shards.by == "count"


@pytest.mark.parametrize(
    ("shards", "field", "text"),
    [
        ({"by": "cout"}, "shards.by", "is not known (got 'cout'); allowed: count, key_range"),
        ({"low": "n"}, "shards.by", "is required and missing"),
        ({**KEY, "stepp": 1}, "shards.stepp", "did you mean 'step'?"),
        ({"by": "count", "min_size": 10}, "shards.min_size", "must be 1000, the rows of a page, to 1000"),
        ({"by": "count", "max_size": 10}, "shards.max_size", "must not be below batch_size, 1000 (got 10)"),
        ({**KEY, "low": "x"}, "shards.low", "is not a parameter of request.params (got 'x'); allowed: d, e, m"),
        ({**KEY, "low": "d"}, "shards.low", "must be a parameter of type integer, is date (got 'd')"),
        ({**KEY, "high": "n"}, "shards.high", "must not be the parameter that low is"),
        ({**KEY, "bounds": "open"}, "shards.bounds", "allowed: closed, half_open"),
        ({**KEY, "step": 0}, "shards.step", "greater than or equal to 1"),
        ({**KEY, "min_step": 11}, "shards.min_step", "must not be above step, 10"),
        ({**KEY, "max_step": 9}, "shards.max_step", "must not be below step, 10"),
        ({**KEY, "target_s": 9}, "shards.target_s", "means nothing without min_step or max_step"),
        ({**KEY, "range": {**ASKED, "low": "[["}}, "shards.range.low", "is not a JMESPath expression"),
        ({**KEY, "range": {**ASKED, "path": "/{x}"}}, "shards.range.path", "names no parameter"),
        ({**DAYS, "start": "n"}, "shards.start", "must be a parameter of type date or datetime, is integer"),
        ({**DAYS, "end": "t"}, "shards.end", "must be of the same type as start, date"),
        ({**DAYS, "window": "1 month"}, "shards.window", "must be an ISO 8601 duration"),
        ({**DAYS, "window": "PT6H"}, "shards.window", "must be whole days: the parameters are dates"),
        ({**DAYS, "days": 3}, "shards.window", "must not be given beside days"),
        ({**DAYS, "window": None}, "shards.window", "is needed: window or days"),
        ({**DAYS, "resolution": "PT1S"}, "shards.resolution", "is for datetimes"),
        ({**TIMES, "resolution": None}, "shards.resolution", "is needed with closed bounds"),
        ({**TIMES, "resolution": "PT7S"}, "shards.resolution", "must be a part of a day that divides it"),
        ({**TIMES, "resolution": "PT12H"}, "shards.resolution", "must be shorter than window, PT6H"),
        ({**TIMES, "bounds": "half_open"}, "shards.resolution", "means nothing with half_open bounds"),
        ({**LIST, "param": "x"}, "shards.param", "is not a parameter of request.params"),
        ({**LIST, "param": "n"}, "shards.param", "must be a parameter of type string to hold a list"),
        ({**LIST, "separator": None}, "shards.per_shard", "needs shards.separator"),
        ({**LIST, "values": ["a", "b,c"]}, "shards.values.1", "hold the separator ','"),
        ({"by": "values", "param": "n", "values": [1, "x"]}, "shards.values.1", "must be an integer"),
        ({"by": "entry_point", "entry_point": "module"}, "shards.entry_point", "must be package.module:function"),
        ({"by": "entry_point", "entry_point": "os:system()"}, "shards.entry_point", "must be package.module:function"),
    ],
)  # fmt: skip
def test_faults(tmp_path: Path, shards: dict[str, Any], field: str, text: str) -> None:
    with pytest.raises(ValidationFailed) as failed:
        load_source(declared(tmp_path, shards))
    faults = {fault.field: str(fault) for fault in failed.value.faults}
    assert list(faults) == [field]
    assert text in faults[field]


@pytest.mark.parametrize(
    ("shards", "changes", "field", "text"),
    [
        (
            KEY,
            {"params": {"n": {"type": "integer"}}},
            "request.params.n",
            "must be required or have a default",
        ),
        (LIST, {"params": {"s": {}}}, "shards.values", "s is neither required nor has a default"),
        (
            LIST,
            {"params": {"s": {"required": True, "allowed": ["a"]}}},
            "shards.param",
            "must not have allowed values or a pattern",
        ),
        (
            {"by": "count", "target_s": 3},
            {"paging": {"type": "none"}},
            "shards.target_s",
            "means nothing with paging.type none",
        ),
        (
            LIST,
            {"merge": {"type": "list", "param": "s", "separator": ";", "column": "id"}},
            "shards.separator",
            "must be merge.separator, ';' (got ',')",
        ),
        (
            KEY,
            {"merge": {"type": "range", "start": "n", "end": "m", "end_inclusive": False, "column": "id"}},
            "shards.bounds",
            "must be half_open, as merge.end_inclusive says (got 'closed')",
        ),
    ],
)
def test_faults_with_other_parts(
    tmp_path: Path, shards: dict[str, Any], changes: dict[str, Any], field: str, text: str
) -> None:
    target = {"table": "t", "columns": {"id": {"type": "bigint"}}}
    params = {**PARAMS, **changes.pop("params", {})}
    request = {"path": "/", "query": {name: f"{{{name}}}" for name in params}, "params": params}
    fields = source_fields(
        request=request, shards=shards, target=target, **{"paging": {"type": "offset"}, **changes}
    )
    path = tmp_path / "things.yaml"
    path.write_text(yaml.safe_dump(fields))
    with pytest.raises(ValidationFailed) as failed:
        load_source(path)
    faults = {fault.field: str(fault) for fault in failed.value.faults}
    assert list(faults) == [field]
    assert text in faults[field]


def test_an_asked_range_needs_no_values(tmp_path: Path) -> None:
    params = {"n": {"type": "integer"}, "m": {"type": "integer"}}
    path = declared(tmp_path, {**KEY, "range": {**ASKED, "query": {"of": "{s}"}}}, params=params)
    assert load_source(path).shards.by == "key_range"


def test_a_stored_declaration_reads_as_it_was_written(tmp_path: Path) -> None:
    for shards in (KEY, DAYS, TIMES, LIST, CODE, {"by": "count", "target_s": 1}):
        source = load_source(declared(tmp_path, shards))
        assert type(source).model_validate(source.model_dump(mode="json")) == source
