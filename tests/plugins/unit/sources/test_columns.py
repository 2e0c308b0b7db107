"""What a column may declare, and what a file means by what it leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.load import changed_readings_of, load_source
from collect_ops.sources.loading_rules import warnings_of
from collect_ops.sources.model import Source
from collect_ops.sources.stored import load_definition


def a_file(tmp_path: Path, columns: dict[str, Any], **fields: Any) -> Path:
    path = tmp_path / "things.yaml"
    target = {"table": "things", "columns": columns}
    path.write_text(yaml.safe_dump({"name": "things", "connection": "api", "target": target, **fields}))
    return path


def faults_of(path: Path) -> dict[str, str]:
    with pytest.raises(ValidationFailed) as failed:
        load_source(path)
    return {fault.field: fault.problem for fault in failed.value.faults}


@pytest.mark.parametrize("name", ["xmin", "xmax", "cmin", "cmax", "ctid", "tableoid"])
def test_columns_that_every_table_has_are_refused(tmp_path: Path, name: str) -> None:
    assert "PostgreSQL" in faults_of(a_file(tmp_path, {name: {"type": "text"}}))[f"target.columns.{name}"]


@pytest.mark.parametrize("format_", ["epoch", "ISO", "", "yyyy-mm-dd", "%", "%Q", "%d/%m/%", "%d %d"])
def test_formats_that_say_nothing_are_refused(tmp_path: Path, format_: str) -> None:
    assert "target.columns.at.format" in faults_of(
        a_file(tmp_path, {"at": {"type": "date", "format": format_}})
    )


@pytest.mark.parametrize("zone", ["Berlin", "", "../etc/passwd", "/etc/passwd", "Europe/Nowhere", "UTC+1\0"])
def test_zones_that_nobody_knows_are_refused(tmp_path: Path, zone: str) -> None:
    column = {"type": "timestamptz", "timezone": zone}
    assert "target.columns.at.timezone" in faults_of(a_file(tmp_path, {"at": column}))


def test_formats_and_zones_are_for_times(tmp_path: Path) -> None:
    columns = {
        "a": {"type": "text", "format": "iso"},
        "b": {"type": "bigint", "timezone": "UTC"},
        "c": {"type": "timestamptz", "format": "postgresql", "timezone": "Europe/Berlin"},
    }
    assert set(faults_of(a_file(tmp_path, columns))) == {
        "target.columns.a.format",
        "target.columns.b.timezone",
        "target.columns.c.timezone",
    }


def test_a_file_means_iso_8601_and_says_that_it_changed(tmp_path: Path) -> None:
    columns = {
        "at": {"type": "timestamptz", "timezone": "Europe/Berlin"},
        "day": {"type": "date", "format": "postgresql"},
        "name": {"type": "text"},
    }
    path = a_file(tmp_path, columns)
    found = load_source(path).target.columns
    assert {name: column.format for name, column in found.items()} == {
        "at": "iso",
        "day": "postgresql",
        "name": "postgresql",
    }
    changed = {each.field: each.keep for each in changed_readings_of(path)}
    assert changed == {
        "target.columns.at.format": "postgresql",
        "max_bad_share": 1.0,
        "max_repeated_rows": None,
    }
    source = load_source(a_file(tmp_path, columns, max_bad_share=1.0, max_repeated_rows=None))
    assert (source.max_bad_share, source.max_repeated_rows) == (1.0, None)


def test_what_was_stored_goes_on_as_it_was() -> None:
    declared = {
        "name": "things", "connection": "c", "target": {"table": "t", "columns": {"xmin": {"type": "date"}}},
    }  # fmt: skip
    source: Source = load_definition("ab", 2, declared)
    assert source.target.columns["xmin"].format == "postgresql"
    assert (source.max_bad_share, source.max_repeated_rows) == (1.0, None)


@pytest.mark.parametrize(
    ("type_", "path", "loses"),
    [
        ("numeric", "sum(prices)", True), ("numeric(38,18)", "abs(price)", True), ("text", "to_string(price)", True),
        ("jsonb", "{a: to_number(b)}", True), ("numeric", "prices[?@ > `0.1`] | [0]", False),
        ("numeric", "max(prices)", False),
        ("double precision", "sum(prices)", False), ("numeric", "price", False), ("bigint", "to_number(id)", False),
    ],
)  # fmt: skip
def test_columns_that_lose_digits_are_named(tmp_path: Path, type_: str, path: str, *, loses: bool) -> None:
    source = load_source(a_file(tmp_path, {"a": {"type": type_, "path": path}}))
    assert [fault.field for fault in warnings_of(source)] == (["target.columns.a.path"] if loses else [])
