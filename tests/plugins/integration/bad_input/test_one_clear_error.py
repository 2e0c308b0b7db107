"""Bad input: each gives one clear error that names what is wrong and what is allowed, ends its task as it should, and
leaves the task beside it alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from collect_ops.collectors.endpoint import Endpoint
from collect_ops.execution.group import GroupResult, run_group
from collect_ops.execution.plan import plan
from collect_ops.hooks import backends as hooks
from collect_ops.storage import connect
from tests.plugins.integration.execution.checks import assert_exact, open_things, target
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer, basic

Serve = Callable[..., PagedServer]
HERE = "http://127.0.0.1"
UNKNOWN = {"type": "unknown"}
NO_RETRIES = {"http_attempts": 1, "max_retries": 0}
PASSWORD = "s3cret-word"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Bad input.

    Args:
        says: What the task's reason says.
        error: The class in the task's error.
        path: Asked of the test's server.
        fields: Of the source.
        connection: Fields of its Airflow connection; the test's server unless they say otherwise. None: not defined.
        table: What stands where the target is due.
        within_s: How long it may take.
    """

    says: tuple[str, ...]
    error: str
    path: str = "/offset"
    fields: Mapping[str, Any] = field(default_factory=dict)
    connection: Mapping[str, Any] | None = field(default_factory=dict)
    table: str | None = None
    within_s: float = 10.0


TEN_GB = str(10 * 1024**3)
NEXT = {"paging": {"type": "next_url", "next_url": "next"}, "total": UNKNOWN, "page_size": None}
STREAM = {"paging": {"type": "none"}, "total": UNKNOWN, "page_size": None}
LIMITED = {**STREAM, "limits": {"max_page_bytes": 1024 * 1024}}
OVER = ("over limits.max_page_bytes 1048576", "ask for smaller pages or raise it")

CASES: dict[str, Case] = {
    "nobody listens": Case(
        connection={"port": 1},
        error="HostUnreachable",
        says=(f"{HERE}:1/offset", "cannot connect", "check the host and port of the connection"),
    ),
    "TLS where there is none": Case(
        connection={"schema": "https"}, error="HostUnreachable", says=("https://127.0.0.1", "cannot connect")
    ),
    "a private address": Case(
        connection={"extra": {}},
        error="AddressRefused",
        says=("loopback address 127.0.0.1", '"allow_private_networks": true'),
    ),
    "another scheme": Case(
        connection={"schema": "ftp"}, error="ValidationFailed", says=("things_api", "ftp", "http, https")
    ),
    "no connection of that name": Case(
        connection=None,
        error="ConnectionMissing",
        says=("things_api", "is not defined", "airflow connections add"),
    ),
    "wrong credentials": Case(
        fields={"auth": {"type": "basic"}},
        connection={"login": "me", "password": PASSWORD},
        error="AuthenticationRefused",
        says=("answered 401", "'things_api'", "check login and password", "type basic"),
    ),
    "credentials that are missing": Case(
        fields={"auth": {"type": "bearer"}},
        error="CredentialsMissing",
        says=("auth.type bearer", "password of connection 'things_api'"),
    ),
    "credentials nobody sends": Case(
        error="AuthenticationRefused",
        path="/needs_login",
        says=("answered 401", "none, basic, bearer, api_key"),
    ),
    "HTML where JSON is due": Case(
        path="/html", error="NotJson", says=("JSON is due, but text/html", "<!DOCTYPE html>")
    ),
    "HTML at a page": Case(
        path="/html", fields=STREAM, error="NotJson", says=("JSON is due, but text/html", "<!DOCTYPE html>")
    ),
    "half a document": Case(
        path="/truncated", fields=STREAM, error="TruncatedBody", says=("the JSON ends in the middle",)
    ),
    "a broken connection": Case(
        path="/reset", fields=STREAM, error="ConnectionBroken", says=("the answer broke off",)
    ),
    "10 GB announced": Case(path="/huge", fields=LIMITED, error="PageTooLarge", says=(TEN_GB, *OVER)),
    "10 GB not announced": Case(
        path="/endless", fields=LIMITED, error="PageTooLarge", says=("goes on", *OVER)
    ),
    "10 GB in a few kilobytes": Case(
        path="/bomb", fields=LIMITED, error="PageTooLarge", says=("goes on", *OVER)
    ),
    "a next that is the same page": Case(
        path="/loop", fields=NEXT, error="PagingLoop", says=("paging goes round in circles",)
    ),
    "a next with empty pages": Case(
        path="/loop_empty",
        fields={**NEXT, "limits": {"max_empty_pages": 150}},
        error="PagingLoop",
        says=("paging goes round in circles", "limits.max_empty_pages"),
    ),
    "a next without an end": Case(
        path="/grow",
        fields={**NEXT, "limits": {"max_pages": 12}},
        error="TooManyPages",
        says=("more than limits.max_pages 12 pages",),
    ),
    "a server that hangs": Case(
        path="/slow",
        fields={**STREAM, "timeouts": {"read_s": 0.5}},
        error="RequestTimedOut",
        says=("no answer in time", "timeouts.read_s is 0.5 s"),
    ),
    "nothing there": Case(path="/nowhere", error="UrlNotFound", says=("answered 404", "check request.path")),
    "a server's own fault": Case(path="/status/500", error="ServerFailed", says=("answered 500", "as asked")),
    "records that are no list": Case(
        fields={"records": "total"}, error="RecordsNotAList", says=("records 'total' must give a list",)
    ),
    "more rows than asked for": Case(
        path="/ignores_limit", error="PageTooLong", says=("rows came where", "ignores the page's size")
    ),
    "deep nesting": Case(
        path="/deep",
        fields={**STREAM, "records": "@"},
        error="NestedTooDeep",
        says=("nests deeper than limits.max_depth 64",),
    ),
    "a redirect to an address that is not asked": Case(
        path="/redirect",
        fields={**STREAM, "request": {"path": "/redirect", "query": {"to": "http://169.254.169.254/latest"}}},
        error="AddressRefused",
        says=("169.254.169.254", "link-local"),
    ),
    "a table that does not fit": Case(
        table="CREATE TABLE landing.things (id text, name text)",
        error="TargetMismatch",
        says=("table landing.things does not fit", "id: has text, the source declares bigint", "ALTER TABLE"),
    ),
    "a view in the table's place": Case(
        table="CREATE VIEW landing.things AS SELECT 1 AS id",
        error="TargetMismatch",
        says=("table landing.things does not fit", "view"),
    ),
    "rows that are too many of them bad": Case(
        fields={
            "max_bad_rows": 10,
            "target": {"table": "things", "columns": {"id": {"type": "bigint"}, "name": {"type": "date"}}},
        },
        error="TooManyBadRows",
        says=("rows do not fit their columns", "max_bad_rows is 10 a shard", "collect.bad_row"),
    ),
}


@pytest.fixture
def server(serve: Serve) -> PagedServer:
    return serve(rows=120)


def connections(case: Case, server: PagedServer) -> dict[str, dict[str, Any]]:
    """Airflow's own form of the case's connection and of its neighbour's."""
    fine = {
        "conn_type": "http",
        "host": "127.0.0.1",
        "schema": "http",
        "port": server.port,
        "extra": {"allow_private_networks": True},
    }
    defined = {"neighbour_api": fine}
    if case.connection is not None:
        defined["things_api"] = {**fine, **case.connection}
    return defined


def declare(world: World, case: Case) -> None:
    fields: dict[str, Any] = {"request": {"path": case.path}, "retries": NO_RETRIES, **case.fields}
    world.add(
        source(**fields),
        source("neighbour", connection="neighbour_api", target=target("append", "neighbour")),
    )
    if case.table is not None:
        with connect(world.backends.postgres_dsn, application_name="test") as connection:
            connection.execute(case.table)


async def run_all(
    world: World, planned: list[tuple[str, int]], endpoint_of: Callable[[str], Endpoint]
) -> None:
    """Shard groups of several runs, side by side."""

    async def one(run_id: str, group_no: int) -> GroupResult:
        return await run_group(
            run_id, group_no, world.backends, world.rules, endpoint_of, node="test", actor="test"
        )

    await asyncio.gather(*(one(*each) for each in planned))


@pytest.mark.parametrize("name", CASES)
def test_bad_input(
    world: World, server: PagedServer, serve: Serve, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    asked = server
    if case.path == "/needs_login" or case.error == "AuthenticationRefused":
        asked = serve(rows=120, required_headers=basic("me", "another word"))
    defined = connections(case, server)
    if asked is not server:
        defined["things_api"]["port"] = asked.port
    for connection_id, fields in defined.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{connection_id.upper()}", json.dumps(fields))
    declare(world, case)
    bad, neighbour = world.submit().task_id, world.submit("neighbour").task_id
    runs = [run.run_id for run in world.claim().runs]
    began = time.monotonic()
    planned = [
        (ref.run_id, ref.group_no)
        for run_id in runs
        for ref in plan(
            world.attempts(run_id), run_id, world.backends, world.rules, hooks.endpoint, actor="test"
        ).groups
    ]
    asyncio.run(run_all(world, planned, hooks.endpoint))
    for run_id in runs:
        world.finish(run_id)
    took_s = time.monotonic() - began

    task = world.task(bad)
    assert (task["status"], task["attempt"], task["lost_count"]) == ("DEAD", 1, 0), task["reason"]
    assert task["error"]["class"] == case.error, task["reason"]
    for words in case.says:
        assert words in task["reason"]
        assert words in task["error"]["message"]
    assert PASSWORD not in str(dict(task))
    # A statement that mends the whole table is never cut.
    assert len(task["reason"].partition("ALTER TABLE")[0]) < 600
    assert [letter["error_message"] for letter in world.rows("SELECT * FROM collect.dead_letter")] == [
        task["reason"]
    ]
    assert took_s < case.within_s
    assert asked.bytes_sent < 32 * 1024 * 1024, "it read on after the limit"

    assert world.task(neighbour)["status"] == "COMPLETED"
    assert_exact(world, 120, "neighbour")
    assert open_things(world) == 0


def test_bad_tasks_of_a_shared_group_do_not_take_the_others_along(world: World, server: PagedServer) -> None:
    world.add(source(total=UNKNOWN, retries=NO_RETRIES, limits={"concurrency": 2, "max_page_bytes": 100_000}))
    world.serve_from(server.base_url)
    world.collect(params={"day": "first"})
    wanted = {
        None: "COMPLETED",
        "/html": "DEAD",
        "/status/500": "DEAD",
        "/huge": "DEAD",
        "/ignores_limit": "DEAD",
        "/reset": "DEAD",
        "/offset": "COMPLETED",
    }
    tasks = {
        path: world.submit(params={"day": f"day {number}"}, path=path).task_id
        for number, path in enumerate(wanted)
    }
    runs = world.claim().runs
    assert len(runs) == 1
    world.run(runs[0].run_id)
    assert {path: world.task(task_id)["status"] for path, task_id in tasks.items()} == wanted
    groups = world.rows("SELECT group_no FROM collect.shard_group WHERE run_id = %s", runs[0].run_id)
    assert len(groups) == 1
    reasons = [world.task(tasks[path])["reason"] for path in ("/html", "/huge", "/reset")]
    assert all(
        words in reason
        for words, reason in zip(("JSON is due", "max_page_bytes", "broke off"), reasons, strict=True)
    )
    assert open_things(world) == 0
