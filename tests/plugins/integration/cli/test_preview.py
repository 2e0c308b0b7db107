"""`collect-ops source preview` of the shipped examples, against a server of their shape."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from collect_ops.cli import main
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
