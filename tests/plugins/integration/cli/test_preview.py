"""`collect-ops source preview` of the shipped examples, against a server of their shape."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from collect_ops.cli import main
from collect_ops.execution.rules import sharding_rules
from tests.servers.paged import PagedServer, basic

EXAMPLES: dict[str, dict[str, Any]] = {
    "example_offset": {},
    "example_page": {"required_headers": basic("me", "hush-hush")},
    "example_cursor": {"required_headers": {"Authorization": "Bearer hush-hush"}},
    "example_next_url": {"required_query": {"api_key": "hush-hush"}},
    "example_link_header": {"required_headers": {"X-Api-Key": "hush-hush"}, "total_header": "X-Total-Count"},
    "example_single": {},
}


def preview(monkeypatch: pytest.MonkeyPatch, server: PagedServer, *arguments: str) -> int:
    connection = {
        "conn_type": "http",
        "host": server.base_url,
        "login": "me",
        "password": "hush-hush",
        "extra": {"allow_private_networks": True},
    }
    monkeypatch.setenv("AIRFLOW_CONN_EXAMPLE_API", json.dumps(connection))
    monkeypatch.setattr(sys, "argv", ["collect-ops", "source", "preview", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_shows_its_first_rows(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with PagedServer(rows=30, **EXAMPLES[name]) as server:
        assert preview(monkeypatch, server, name, "--rows", "3", "--json") == 0
    text = capsys.readouterr().out
    shown = json.loads(text)
    assert [record["id"] for record in shown["records"]] == [0, 1, 2]
    assert shown["total"] == (None if name == "example_next_url" else 30)
    assert "hush-hush" not in text


def test_the_table_has_the_declared_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with PagedServer(rows=30) as server:
        since = "since=2024-01-01T01:00:00+01:00"
        assert preview(monkeypatch, server, "example_offset", "--rows", "2", "-p", since) == 0
        asked = server.asked("/offset")[0].query
    printed = capsys.readouterr().out
    assert "numeric(12,1)" in printed
    assert "2 of 2 rows of the first page; the source names 30 in all" in printed
    assert asked["since"] == "2024-01-01T00:00:00Z"


def test_refused_credentials_are_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with PagedServer(required_headers={"Authorization": "Bearer other"}) as server:
        assert preview(monkeypatch, server, "example_cursor") == 1
    printed = capsys.readouterr().err
    assert "example_api" in printed
    assert "hush-hush" not in printed


SHARDED = """\
name: sharded
connection: example_api
request:
  path: /select
  query: {first: "{first}", last: "{last}"}
  params: {first: {type: integer}, last: {type: integer}}
records: rows
total: {type: body, path: matching}
shards:
  by: key_range
  low: first
  high: last
  bounds: closed
  step: 12
  range: {path: /edges, low: low, high: high}
target: {table: sharded}
"""


def test_a_source_whose_shards_ask_for_parts_shows_the_first_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLLECT_OPS_INCLUDE", str(tmp_path))
    monkeypatch.delenv("COLLECT_POSTGRES_DSN")  # the statements that cast are not in this folder
    for name in ("sources", "rules"):
        (tmp_path / name).mkdir()
    (tmp_path / "sources" / "sharded.yaml").write_text(SHARDED)
    (tmp_path / "rules" / "sharding.yaml").write_text("target_s: 20")
    sharding_rules.cache_clear()
    try:
        with PagedServer(rows=30) as server:
            assert preview(monkeypatch, server, "sharded", "--rows", "2") == 0
            printed = capsys.readouterr().out
            assert "2 of 12 rows of the first page of shard 0..11; the source names 12 in all" in printed
            assert "3 key ranges, ranges of 12 keys" in printed
            assert preview(monkeypatch, server, "sharded", "--json", "-p", "first=24", "-p", "last=29") == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["shards"], shown["shard"], shown["total"], shown["received"]) == (1, "24..29", 6, 6)
        with PagedServer(rows=0) as server:
            assert preview(monkeypatch, server, "sharded") == 0
        assert "nothing to collect" in capsys.readouterr().out
    finally:
        sharding_rules.cache_clear()
