"""`collect-ops source check --online` and the types of `source preview`: servers that keep their word, or do not."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from collect_ops.storage import connect
from tests.plugins.integration.world import World
from tests.servers.paged import Failure, PagedServer, basic
from tests.servers.quirks import QuirkyServer

Run = Callable[..., tuple[int, str, str]]
Declare = Callable[..., Path]
COLUMNS = {
    "id": {"type": "bigint"},
    "name": {"type": "text"},
    "value": {"type": "numeric(8,1)"},
    "at": {"type": "timestamptz"},
}


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declare:
    """Writes a source file over `/offset`, pages of 10."""

    def write(server: PagedServer | None, columns: Any = COLUMNS, **fields: Any) -> Path:
        host = "http://127.0.0.1:9" if server is None else server.base_url
        connection = {"host": host, "login": "me", "password": "hush-hush"}
        private = {"extra": {"allow_private_networks": True}}
        monkeypatch.setenv("AIRFLOW_CONN_THINGS_API", json.dumps({**connection, **private}))
        declaration = {
            "name": "things",
            "connection": "things_api",
            "request": {"path": "/offset"},
            "records": "rows",
            "paging": {"type": "offset"},
            "total": {"type": "body", "path": "total"},
            "page_size": 10,
            "batch_size": 100,
            "retries": {"http_attempts": 1},
            "target": {"table": "things", "disposition": "merge", "key": ["id"], "columns": columns},
            **fields,
        }
        path = tmp_path / "things.yaml"
        path.write_text(yaml.safe_dump(declaration, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def check(world: World, collect_ops: Run) -> Callable[..., tuple[int, dict[str, list[dict[str, Any]]]]]:
    """Exit status, and the findings by check."""

    def run(path: Path, *arguments: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
        code, out, _ = collect_ops("source", "check", path, "--online", "--json", *arguments)
        (verdict,) = json.loads(out)
        assert verdict["ok"] is (code == 0)
        assert "hush-hush" not in out
        findings: dict[str, list[dict[str, Any]]] = {}
        for each in verdict["online"]:
            findings.setdefault(each["check"], []).append(each)
        return code, findings

    return run


Check = Callable[..., tuple[int, dict[str, list[dict[str, Any]]]]]


def states(findings: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    return {name: found[0]["state"] for name, found in findings.items()}


def test_a_source_as_declared(world: World, declare: Declare, check: Check, collect_ops: Run) -> None:
    with PagedServer(rows=30) as server:
        path = declare(server)
        code, findings = check(path)
        assert code == 0
        names = ("connection", "total", "page", "page size", "next page", "types", "columns", "key", "table")
        assert states(findings) == dict.fromkeys(names, "ok")
        code, out, err = collect_ops("source", "check", path, "--online")
    assert (code, err) == (0, "")
    assert "30 rows" in out
    assert world.rows("SELECT to_regclass('landing.things') AS name") == [{"name": None}]


def test_values_that_do_not_fit_are_told_by_column(
    declare: Declare, check: Check, collect_ops: Run, world: World
) -> None:
    columns = {**COLUMNS, "name": {"type": "integer"}, "value": {"type": "smallint"}}
    with PagedServer(rows=30) as server:
        server.changed = {3: {"id": 3, "name": "7", "value": 10**6}}
        code, findings = check(declare(server, columns))
    assert code == 2
    name, value = findings["types"]
    assert name["state"] == value["state"] == "fault"
    # Two pages of ten rows: every name but that of row 3.
    assert name["text"].startswith('name: 19 rows not integer: "row 0"')
    assert value["text"].startswith("value: 1 row not smallint: 1000000")


def test_the_page_size_is_capped(declare: Declare, check: Check) -> None:
    with PagedServer(rows=30, cap=4) as server:
        code, findings = check(declare(server))
    (size,) = findings["page size"]
    assert (code, size["state"], size["remedy"]) == (0, "warning", "page_size: 4")


def test_a_source_that_does_not_page(declare: Declare, check: Check) -> None:
    with PagedServer(rows=30) as server:
        path = declare(server, paging={"type": "offset", "offset_param": "start"})
        code, findings = check(path)
    assert (code, states(findings)["next page"]) == (2, "fault")


def test_a_source_that_takes_no_page_size(declare: Declare, check: Check) -> None:
    with PagedServer(rows=30) as server:
        code, findings = check(declare(server, request={"path": "/single"}))
    assert (code, states(findings)["page size"]) == (2, "fault")


@pytest.mark.parametrize(
    ("fields", "name", "words"),
    [
        (
            {
                "request": {"path": "/quirk/first_is_one"},
                "paging": {"type": "offset", "offset_param": "startIndex", "limit_param": "count"},
            },
            "next page",
            "paging.first_offset: 1",
        ),
        ({"request": {"path": "/quirk/thinned"}}, "next page", "paging.advance_by: page_size"),
        ({"request": {"path": "/quirk/total_with_commas"}}, "total", "see `total`"),
        ({"request": {"path": "/quirk/offset_ignored"}}, "next page", "under `paging`"),
        (
            {
                "request": {"path": "/quirk/has_more"},
                "paging": {"type": "none"},
                "total": {"type": "unknown"},
                "page_size": None,
            },
            "next page",
            "see `paging`",
        ),
    ],
)
def test_what_an_api_does_differently_is_told_with_what_declares_it(
    declare: Declare, check: Check, fields: dict[str, Any], name: str, words: str
) -> None:
    with QuirkyServer() as server:
        _, findings = check(declare(server, **fields))
    (finding,) = findings[name]
    assert finding["state"] in ("warning", "fault")
    assert words in finding["remedy"]


def test_a_select_is_told(declare: Declare, check: Check) -> None:
    fields = {"request": {"path": "/quirk/mixed_kinds"}, "select": "[?kind=='b']"}
    with QuirkyServer() as server:
        code, findings = check(declare(server, **fields))
    assert (code, findings["page"][0]["text"]) == (0, "10 rows on the first page, of which select makes 5")
    assert findings["page size"][0]["state"] == "ok"


@pytest.mark.parametrize(
    ("fields", "name", "state"),
    [
        ({"records": "items"}, "page", "fault"),
        ({"total": {"type": "body", "path": "count"}}, "total", "warning"),
        ({"request": {"path": "/nowhere"}}, "page", "fault"),
    ],
)
def test_a_wrong_declaration(
    declare: Declare, check: Check, fields: dict[str, Any], name: str, state: str
) -> None:
    with PagedServer(rows=30) as server:
        code, findings = check(declare(server, **fields))
    assert states(findings)[name] == state
    assert code == (2 if state == "fault" else 0)


def test_a_column_that_no_row_has(declare: Declare, check: Check) -> None:
    with PagedServer(rows=30) as server:
        code, findings = check(declare(server, {**COLUMNS, "valeu": {"type": "text"}}))
    (column,) = findings["columns"]
    assert (code, column["state"]) == (0, "warning")
    assert "did you mean 'value'" in column["text"]


def test_a_key_that_does_not_tell_rows_apart(declare: Declare, check: Check) -> None:
    target = {
        "table": "things",
        "disposition": "merge",
        "key": ["even"],
        "columns": {"even": {"type": "boolean"}},
    }
    with PagedServer(rows=30) as server:
        _, findings = check(declare(server, target=target))
    assert states(findings)["key"] == "warning"


def test_what_the_server_says_is_shown_without_secrets_and_cut(
    declare: Declare, check: Check, collect_ops: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"valeu": {"type": "text"}, "id": {"type": "integer"}, "name": {"type": "text"}}
    target = {"table": "things", "disposition": "merge", "key": ["name"], "columns": columns}
    rows = {
        number: {
            "id": "x" * 150_000 + "hush-hush",
            "name": "y" * 200_000 + "hush-hush",
            "hush-hush-valeu": 1,
            "z" * 9000: 1,
        }
        for number in range(30)
    }
    with PagedServer(rows=30) as server:
        server.changed = rows
        path = declare(server, target=target)
        _, findings = check(path)  # looks for the secret
        assert {name: states(findings)[name] for name in ("types", "columns", "key")} == {
            "types": "fault", "columns": "warning", "key": "warning",
        }  # fmt: skip
        shown = [
            each[part] or "" for found in findings.values() for each in found for part in ("text", "remedy")
        ]
        assert max(map(len, shown)) < 2000
        server.changed = {number: {"name": "hush-hush", "hush-hush": 1} for number in rows}
        check(path)
        server.changed = rows
        monkeypatch.setattr("collect_ops.sources.load.sources_dir", lambda: path.parent)
        code, out, _ = collect_ops("source", "preview", "things", "--json")
        assert code == 0
        assert "hush" not in json.dumps(json.loads(out)["misfits"])
        assert max(len(each["problem"]) for each in json.loads(out)["misfits"]) < 2000


@pytest.fixture
def stranger(world: World) -> Iterator[str]:
    """The database's address for a role that may make no temporary tables."""
    role = f"stranger_{uuid.uuid4().hex[:8]}"
    dsn = world.backends.postgres_dsn
    name = conninfo_to_dict(dsn)["dbname"]
    admin = make_conninfo(os.environ["COLLECT_POSTGRES_ADMIN_DSN"], dbname=name)
    with connect(admin) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")
        connection.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
    yield make_conninfo(dsn, user=role, password=role)
    with connect(admin) as connection:
        connection.execute(f"GRANT TEMPORARY ON DATABASE {name} TO PUBLIC")
        connection.execute(f"DROP ROLE {role}")


def test_findings_stay_when_the_database_refuses(
    declare: Declare, check: Check, collect_ops: Run, monkeypatch: pytest.MonkeyPatch, stranger: str
) -> None:
    for dsn, table in ((stranger, "ok"), ("no-dsn-at-all", "skipped")):
        monkeypatch.setenv("COLLECT_POSTGRES_DSN", dsn)
        with PagedServer(rows=30) as server:
            path = declare(server)
            code, findings = check(path)
            monkeypatch.setattr("collect_ops.sources.load.sources_dir", lambda path=path: path.parent)
            assert collect_ops("source", "preview", "things")[0] == 0
        assert code == 0
        names = ("connection", "total", "page", "page size", "next page", "columns", "key")
        assert states(findings) == {**dict.fromkeys(names, "ok"), "types": "skipped", "table": table}


def test_nobody_answers(declare: Declare, check: Check) -> None:
    code, findings = check(declare(None))
    assert (code, states(findings)) == (2, {"connection": "fault", "table": "ok"})


def test_credentials_are_refused(declare: Declare, check: Check) -> None:
    with PagedServer(rows=30, required_headers=basic("me", "other")) as server:
        code, findings = check(declare(server, auth={"type": "basic"}))
    (connection,) = findings["connection"]
    assert (code, connection["state"]) == (2, "fault")
    assert "collect-ops connection add things_api" in connection["remedy"]


def test_the_second_page_fails(declare: Declare, check: Check) -> None:
    with PagedServer(rows=30) as server:
        server.fail_where(lambda asked: asked.query.get("offset") == "10", Failure(status=500))
        code, findings = check(declare(server))
    assert (code, states(findings)["connection"], states(findings)["next page"]) == (2, "ok", "fault")
    assert states(findings)["types"] == "ok"


COUNT = {"type": "request", "path": "/count", "query": {"of": "things"}, "value": "count"}
IDS = {
    "request": {
        "path": "/select",
        "params": {"ids": {"type": "string", "default": "1,2"}},
        "query": {"ids": "{ids}"},
    },
    "shards": {"by": "values", "param": "ids", "separator": ",", "per_shard": 1},
    "paging": {"type": "none"},
    "page_size": None,
}


def test_a_total_with_a_request_of_its_own(declare: Declare, check: Check) -> None:
    with PagedServer(rows=30, total_in_body=False) as server:
        code, findings = check(declare(server, total=COUNT))
        assert [each.query["of"] for each in server.asked("/count")] == ["things"]
    (asked,), (total,) = findings["total request"], findings["total"]
    assert (code, asked["state"], total["state"], total["text"]) == (0, "ok", "ok", "30 rows")
    assert f"{server.base_url}/count?of=things" in asked["text"]


@pytest.mark.parametrize(
    ("fields", "remedy"),
    [({"path": "/nowhere"}, "total.path"), ({"value": "abs('x')"}, "total.value")],
)
def test_a_total_request_that_fails_is_named(
    declare: Declare, check: Check, fields: dict[str, Any], remedy: str
) -> None:
    with PagedServer(rows=30, total_in_body=False) as server:
        code, findings = check(declare(server, total={**COUNT, **fields}))
    (asked,) = findings["total request"]
    assert f"{server.base_url}{fields.get('path', '/count')}?of=things" in asked["text"]
    assert (code, asked["state"]) == (2, "fault")
    assert remedy in asked["remedy"]
    assert "total" not in findings
    assert states(findings)["page"] == states(findings)["types"] == "ok"


def test_a_total_request_that_tells_no_total_is_a_warning(declare: Declare, check: Check) -> None:
    """A task streams then."""
    with PagedServer(rows=30, total_in_body=False) as server:
        code, findings = check(declare(server, total={**COUNT, "value": "size"}))
    assert (code, states(findings)["total request"], states(findings)["total"]) == (0, "ok", "warning")
    assert "one shard" in findings["total"][0]["text"]


def test_a_total_request_is_asked_though_the_page_fails(declare: Declare, check: Check) -> None:
    with PagedServer(rows=30) as server:
        code, findings = check(declare(server, total=COUNT, request={"path": "/nowhere"}))
    assert (code, states(findings)["page"], states(findings)["total request"]) == (2, "fault", "ok")


def test_a_total_request_is_not_asked_of_a_host_that_does_not_answer(declare: Declare, check: Check) -> None:
    code, findings = check(declare(None, total=COUNT))
    assert (code, states(findings)["connection"], states(findings)["total request"]) == (
        2,
        "fault",
        "skipped",
    )


def test_pages_are_held_to_the_total_that_was_asked_for(declare: Declare, check: Check) -> None:
    with PagedServer(rows=30, total_in_body=False) as server:
        server.fail_where(lambda asked: asked.query.get("offset", "0") != "0" and asked.path == "/offset",
                          Failure(status=200, headers={"Content-Type": "application/json"}, body=EMPTY))  # fmt: skip
        code, findings = check(declare(server, total=COUNT))
    assert (code, states(findings)["total"], states(findings)["next page"]) == (2, "ok", "fault")


@pytest.mark.parametrize(("path", "state"), [("/count", "ok"), ("/nowhere", "fault")])
def test_the_total_of_all_shards(declare: Declare, check: Check, path: str, state: str) -> None:
    """The request counts what all shards have together, as planning asks it."""
    total = {**COUNT, "path": path, "query": {"ids": "{ids}"}}
    with PagedServer(rows=30, total_in_body=False) as server:
        code, findings = check(declare(server, total=total, **IDS))
        assert [each.query["ids"] for each in server.asked(path)] == ["1,2"]
    assert (code == 0, states(findings)["total request"]) == (state == "ok", state)
    assert states(findings)["shards"] == states(findings)["connection"] == states(findings)["page"] == "ok"


def test_a_request_for_the_ends_of_a_range_that_fails(declare: Declare, check: Check) -> None:
    shards = {
        "by": "key_range",
        "low": "first",
        "high": "last",
        "step": 10,
        "bounds": "half_open",
        "range": {"path": "/nowhere", "low": "low", "high": "high"},
    }
    request = {
        "path": "/offset",
        "params": {"first": {"type": "integer"}, "last": {"type": "integer"}},
        "query": {"first": "{first}", "last": "{last}"},
    }
    with PagedServer(rows=30) as server:
        code, findings = check(declare(server, request=request, shards=shards))
    (failed,) = findings["shards"]
    assert (code, failed["state"], "/nowhere" in failed["text"]) == (2, "fault", True)
    assert set(findings) == {"shards", "table"}
    ends = json.dumps({"low": "hush-hush", "high": "of the hush-hush" * 1000}).encode()
    with PagedServer(rows=30) as server:
        server.fail_next(
            "/ends", Failure(status=200, headers={"content-type": "application/json"}, body=ends)
        )
        shards["range"] = {"path": "/ends", "low": "low", "high": "high"}
        code, findings = check(declare(server, request=request, shards=shards))  # looks for the secret
    (failed,) = findings["connection"]
    assert (code, failed["state"], "shards.range.low" in failed["text"]) == (2, "fault", True)
    assert len(failed["text"]) < 1000


EMPTY = b'{"rows": []}'
LAST = b'{"rows": [{"id": 10, "name": "a", "value": 1, "at": "2024-01-01T00:00:00Z"}], "next_cursor": null}'


@pytest.mark.parametrize(
    ("second", "fields", "state"),
    [
        (EMPTY, {}, "fault"),
        (b'{"rows": [], "total": 30}', {}, "fault"),
        (EMPTY, {"total": {"type": "unknown"}}, "warning"),
        (EMPTY, {"total": {"type": "unknown"}, "page_size": 40}, "ok"),
        (
            LAST,
            {
                "request": {"path": "/cursor"},
                "paging": {"type": "cursor", "cursor": "next_cursor", "limit_param": "limit"},
            },
            "fault",
        ),
    ],
)
def test_pages_end_before_the_rows_do(
    declare: Declare, check: Check, second: bytes, fields: dict[str, Any], state: str
) -> None:
    """A cap on the offset, a cursor that gets lost: the source gives no error and no more rows."""
    with PagedServer(rows=30) as server:
        server.fail_where(lambda asked: bool(asked.query.keys() & {"cursor"}) or asked.query.get("offset", "0") != "0",
                          Failure(status=200, headers={"Content-Type": "application/json"}, body=second))  # fmt: skip
        code, findings = check(declare(server, **fields))
    assert (states(findings)["next page"], code) == (state, 2 if state == "fault" else 0)


def test_the_table_is_compared(world: World, declare: Declare, check: Check) -> None:
    with connect(world.backends.postgres_dsn) as connection:
        connection.execute("CREATE TABLE landing.things (id bigint PRIMARY KEY)")
    with PagedServer(rows=30) as server:
        code, findings = check(declare(server))
    (table,) = findings["table"]
    assert (code, table["state"], table["remedy"]) == (2, "fault", "collect-ops source migrate things")


def test_parameters(declare: Declare, check: Check, collect_ops: Run) -> None:
    request = {
        "path": "/offset",
        "params": {"day": {"type": "date", "required": True}},
        "query": {"day": "{day}"},
    }
    with PagedServer(rows=30) as server:
        path = declare(server, request=request)
        code, findings = check(path)
        assert (code, states(findings)["parameters"]) == (2, "fault")
        assert check(path, "-p", "day=2024-01-01")[0] == 0
    code, _, err = collect_ops("source", "check", path, "-p", "day=2024-01-01")
    assert (code, "--online" in err) == (2, True)


def test_preview_tells_what_does_not_fit(
    world: World, declare: Declare, collect_ops: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PagedServer(rows=30) as server:
        path = declare(server, {**COLUMNS, "name": {"type": "integer"}})
        monkeypatch.setattr("collect_ops.sources.load.sources_dir", lambda: path.parent)
        code, out, _ = collect_ops("source", "preview", "things", "--json")
        shown = json.loads(out)
        assert code == 0
        assert [each["ordinal"] for each in shown["misfits"]] == list(range(10))
        assert {(each["column"], each["type"]) for each in shown["misfits"]} == {("name", "integer")}
        code, out, _ = collect_ops("source", "preview", "things")
        assert (code, "10 of 10 rows would be bad rows" in out) == (0, True)
        monkeypatch.delenv("COLLECT_POSTGRES_DSN")
        code, out, err = collect_ops("source", "preview", "things")
        assert (code, "COLLECT_POSTGRES_DSN" in err, "row 0" in out) == (0, True, True)
