"""Conditional requests: what has not changed is not fetched again, and no row is ever missing because of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collect_ops.cli.task import line
from collect_ops.landing import memory
from collect_ops.sources.file_defaults import with_file_defaults
from collect_ops.sources.model import Source
from collect_ops.storage import Connection, connect, query
from collect_ops.tasks.progress import read_progress
from tests.plugins.integration.execution.checks import (
    asks_for,
    assert_exact,
    claim_next,
    plan_groups,
    side_by_side,
    start,
    target,
    waits_for_a_lock,
    while_running,
)
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source
from tests.servers.odd import Asked, OddServer, reply
from tests.servers.odd import rows as rows_from
from tests.servers.paged import Failure, PagedServer, Recorded, row

Serve = Callable[..., PagedServer]
#: Sequences of changes; `make chaos` tries more.
EXAMPLES = int(os.environ.get("CHANGES_EXAMPLES", "4"))
LONG_AGO = "Mon, 01 Jan 2024 00:00:00 GMT"
STYLES: dict[str, dict[str, Any]] = {
    "offset": {},
    "page": {"request": {"path": "/page"}, "paging": {"type": "page"}},
    "cursor": {
        "request": {"path": "/cursor"},
        "paging": {"type": "cursor", "cursor": "next_cursor", "limit_param": "limit"},
    },
    "next_url": {
        "request": {"path": "/next"},
        "paging": {"type": "next_url", "next_url": "next", "limit_param": "limit"},
    },
    "link_header": {
        "request": {"path": "/link"},
        "records": "@",
        "paging": {"type": "link_header", "limit_param": "limit"},
        "total": {"type": "header", "name": "X-Total"},
    },
    "none": {"request": {"path": "/single"}, "paging": {"type": "none"}, "page_size": None},
}
VALIDATORS: dict[str, dict[str, Any]] = {
    "strong": {"etags": "strong"},
    "weak": {"etags": "weak"},
    "date": {"last_modified": LONG_AGO},
    "both": {"etags": "strong", "last_modified": LONG_AGO},
}


def conditional(style: str = "offset", **fields: Any) -> Source:
    declared = {"request": {"path": "/offset"}, **STYLES[style], "limits": {"concurrency": 2}, **fields}
    return with_file_defaults(source(conditional={"full_after_h": 24}, **declared))


def prepared(world: World, serve: Serve, declared: Source, **options: Any) -> PagedServer:
    """A server whose rows have landed once."""
    server = serve(**{"rows": 250, "etags": "strong", "total_header": "X-Total", **options})
    world.add(declared)
    world.serve_from(server.base_url)
    result = collected(world)
    assert (result["unchanged_pages"], result["rows_landed"]) == (0, server.rows)
    server.requests.clear()
    return server


def collected(world: World) -> dict[str, Any]:
    """Collect once more; returns the result."""
    task = world.task(world.collect(force=True))
    assert task["status"] == "COMPLETED", task
    return dict(task["result"])


def pages_of(result: dict[str, Any]) -> tuple[int, int]:
    """Pages that came, and pages that were unchanged."""
    return result["pages"] - result["unchanged_pages"], result["unchanged_pages"]


def remembered(world: World) -> list[dict[str, Any]]:
    return world.rows(
        "SELECT v.* FROM collect.page_validator v JOIN collect.landing_target t USING (table_name, epoch)"
    )


@pytest.mark.parametrize(
    ("style", "validators", "disposition"),
    [
        *((style, "strong", "merge") for style in STYLES),
        *((style, "strong", "append") for style in ("offset", "cursor")),
        *(("offset", validators, "merge") for validators in ("weak", "date", "both")),
    ],
)
def test_what_is_unchanged_is_not_sent_again(
    world: World, serve: Serve, style: str, validators: str, disposition: str
) -> None:
    options = {"etags": None, **VALIDATORS[validators]}
    server = prepared(world, serve, conditional(style, target=target(disposition)), **options)
    sent = server.bytes_sent
    result = collected(world)
    # The last page of link headers is always fetched: its header may name a next one, and its tag stay the same.
    fetched = 1 if style == "link_header" else 0
    assert pages_of(result) == (fetched, (1 if style == "none" else 5) - fetched)
    assert (result["rows_fetched"], result["unchanged_rows"]) == (250, 250 - 50 * fetched)
    assert result["rows_landed"] <= 50 * fetched
    assert (result["total_rows"], result["bytes"] > 0) == (250, fetched > 0)
    assert server.bytes_sent - sent < 20_000 if style != "none" else server.bytes_sent - sent < 40_000
    asked = [request for request in server.requests if "If-None-Match" in request.headers]
    dated = [request for request in server.requests if "If-Modified-Since" in request.headers]
    assert bool(asked) == (validators != "date")
    assert bool(dated) == (validators == "date")
    assert_exact(world, 250)


@pytest.mark.parametrize("style", STYLES)
def test_what_has_changed_is_landed(world: World, serve: Serve, style: str) -> None:
    server = prepared(world, serve, conditional(style))
    server.changed[77] = {"name": "another"}
    result = collected(world)
    fetched = 2 if style == "link_header" else 1
    assert pages_of(result) == (fetched, 0 if style == "none" else 5 - fetched)
    assert result["rows_fetched"] == 250
    found = {each["id"]: each["name"] for each in world.rows("SELECT id, name FROM landing.things")}
    assert found == {number: "another" if number == 77 else row(number)["name"] for number in range(250)}


@pytest.mark.parametrize("style", STYLES)
def test_a_source_that_grows_and_shrinks(world: World, serve: Serve, style: str) -> None:
    """`unchanged` pages go on to where pages go on now. Bodies do not name the total, which would change them all."""
    total = {"type": "unknown"}
    server = prepared(world, serve, conditional(style, total=total), total_in_body=False, total_header=None)
    most = 250
    for rows in (251, 249, 230, 0, 400, 400):
        server.rows = rows
        most = max(most, rows)
        assert collected(world)["rows_fetched"] == rows
        assert_exact(world, most)


DAMAGE = {
    "truncate": "TRUNCATE landing.things",
    "delete": "DELETE FROM landing.things",
    "delete one": "DELETE FROM landing.things WHERE id = 120",
    "drop": "DROP TABLE landing.things",
    "rename": "ALTER TABLE landing.things RENAME TO kept",
    "trigger dropped": "DROP TRIGGER forget_pages ON landing.things; DELETE FROM landing.things WHERE id < 3",
    "trigger off": (
        "ALTER TABLE landing.things DISABLE TRIGGER forget_pages; DELETE FROM landing.things WHERE id < 3"
    ),
}


@pytest.mark.parametrize(
    ("damage", "disposition"), [*((damage, "merge") for damage in DAMAGE), ("truncate", "append")]
)
def test_rows_that_are_gone_come_again(
    world: World, serve: Serve, db: Connection, damage: str, disposition: str
) -> None:
    prepared(world, serve, conditional(target=target(disposition)))
    db.execute(DAMAGE[damage])  # type: ignore[call-overload]
    result = collected(world)
    assert pages_of(result) == (5, 0)
    assert_exact(world, 250)
    assert pages_of(collected(world)) == (0, 5)


def test_whoever_may_delete_rows_need_not_see_the_memory(db: Connection) -> None:
    """The trigger's function runs as its owner, and nothing that the caller can name stands in for what it uses."""
    found = db.execute("SELECT prosecdef, proconfig FROM pg_proc WHERE proname = 'forget_pages'").fetchall()
    assert found == [{"prosecdef": True, "proconfig": ["search_path=pg_catalog"]}]


@pytest.mark.parametrize(
    "statement", ["DELETE FROM landing.things WHERE id = 120", "TRUNCATE landing.things"]
)
@pytest.mark.parametrize("disposition", ["merge", "append"])
def test_rows_that_go_while_their_page_is_asked_for(
    world: World, serve: Serve, db: Connection, statement: str, disposition: str
) -> None:
    """The server says `unchanged`, and by then it is not true any more of what has landed."""
    server = prepared(world, serve, conditional(target=target(disposition)))
    held = server.hold_where(asks_for(100))
    _, run_id = start(world, force=True)
    groups = plan_groups(world, run_id)

    def empty() -> None:
        held.wait()
        db.execute(statement)  # type: ignore[call-overload]
        held.release()

    asyncio.run(while_running(side_by_side(world, run_id, groups), empty))
    world.finish(run_id)
    # Pages that were counted before had their rows when they were; the next task sees to those.
    found = {each["id"] for each in world.rows("SELECT id FROM landing.things")}
    assert set(range(100, 150)) <= found
    collected(world)
    assert {each["id"] for each in world.rows("SELECT id FROM landing.things")} == set(range(250))


def test_a_changed_declaration_fetches_everything(world: World, serve: Serve) -> None:
    prepared(world, serve, conditional())
    columns = {"id": {"type": "bigint"}, "name": {"type": "text", "path": "at"}}
    world.add(conditional(target={**target("merge"), "columns": columns}))
    assert pages_of(collected(world)) == (5, 0)
    assert world.rows("SELECT name FROM landing.things WHERE id = 3") == [{"name": row(3)["at"]}]


@pytest.mark.parametrize("between", ["conditional", "always", "another source"])
def test_a_declaration_that_is_taken_back_fetches_everything(
    world: World, serve: Serve, between: str
) -> None:
    """In between, another one has landed in the same table: rows are not what the first would make of them."""
    first = conditional()
    prepared(world, serve, first)
    columns = {"id": {"type": "bigint"}, "name": {"type": "text", "path": "at"}}
    fields = {"request": {"path": "/offset"}, "target": {**target("merge"), "columns": columns}}
    if between == "another source":
        world.add(source("others", **fields))
        assert world.task(world.collect("others", force=True))["status"] == "COMPLETED"
    else:
        world.add(conditional(**fields) if between == "conditional" else source(**fields))
        collected(world)
    world.add(first)
    assert pages_of(collected(world)) == (5, 0)
    assert_exact(world, 250)


def test_two_declarations_that_land_at_the_same_time(world: World, serve: Serve) -> None:
    """A task of the old declaration lands while the new one's pages do: nothing is remembered of these."""
    columns = {"id": {"type": "bigint"}, "name": {"type": "text", "path": "at"}}
    old, new = conditional(target={**target("merge"), "columns": columns}), conditional()
    server = serve(rows=230, etags="strong")
    world.serve_from(server.base_url)
    world.add(old)
    held = server.hold_where(asks_for(50))
    _, run_id = start(world)
    groups = plan_groups(world, run_id)

    def collect_new() -> None:
        held.wait()
        world.add(new)
        collected(world)
        held.release()

    asyncio.run(while_running(side_by_side(world, run_id, groups), collect_new))
    world.finish(run_id)
    collected(world)
    assert_exact(world, 230)
    assert pages_of(collected(world)) == (0, 5)


def test_landing_and_memory_commit_together(world: World, serve: Serve, db: Connection) -> None:
    """The connection is cut while the memory of a page is written: then its rows have not landed either."""
    server = serve(rows=230, etags="strong")
    world.add(conditional(limits={"concurrency": 1}))
    world.serve_from(server.base_url)
    _, run_id = start(world)
    groups = plan_groups(world, run_id)

    def cut() -> None:
        name = f"collect-ops {run_id}/"
        locker = connect(world.backends.postgres_dsn, application_name="test locker")
        with locker, locker.transaction():
            locker.execute("LOCK TABLE collect.page_validator IN EXCLUSIVE MODE")
            until(lambda: waits_for_a_lock(world.backends.postgres_dsn, name), "the memory is written")
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND starts_with(application_name, %s)",
                (name,),
            )
            found = db.execute("SELECT count(*) AS n FROM landing.things").fetchone()
            assert found == {"n": 0}

    asyncio.run(while_running(side_by_side(world, run_id, groups), cut))
    world.finish(run_id)
    assert_exact(world, 230)
    assert len(remembered(world)) == 5
    assert pages_of(collected(world)) == (0, 5)


def test_an_attempt_that_fails_half_way(world: World, serve: Serve) -> None:
    server = serve(rows=230, etags="strong")
    world.add(conditional("cursor"))
    world.serve_from(server.base_url)
    server.fail_where(lambda request: request.query.get("cursor") == "from-100", Failure(status=500))
    task_id = world.collect()
    assert world.task(task_id)["status"] == "RETRYING"
    assert len(remembered(world)) == 2
    server.mend()
    server.changed[0] = {"name": "another"}
    world.run(claim_next(world))
    assert world.task(task_id)["status"] == "COMPLETED"
    result = collected(world)
    assert pages_of(result) == (1, 4)
    assert world.rows("SELECT name FROM landing.things WHERE id = 0") == [{"name": "another"}]


def test_pages_with_bad_rows_come_again(world: World, serve: Serve) -> None:
    """Each task tells of them, and ends as the first did: the pages that did not change have rows that fit."""
    columns = {
        "id": {"type": "bigint"},
        "name": {"type": "varchar(7)"},
    }  # "row 100" fits, "row 1000" does not
    declared = conditional(target={**target("merge"), "columns": columns})
    server = serve(rows=1030, etags="strong")
    world.add(declared)
    world.serve_from(server.base_url)
    assert collected(world)["bad_rows"] == 30
    result = collected(world)
    assert (result["bad_rows"], pages_of(result)) == (30, (1, 20))


@pytest.mark.parametrize("cap", [7, 30, 49])
def test_pages_that_shards_share(world: World, serve: Serve, cap: int) -> None:
    """A server that caps pages moves where they begin: those that two shards cut up are never remembered."""
    server = prepared(world, serve, conditional("page"), cap=cap)
    result = collected(world)
    assert result["rows_fetched"] == 250
    assert result["unchanged_rows"] > 0
    assert_exact(world, 250)
    server.changed.update({number: {"name": "another"} for number in range(90, 110)})
    collected(world)
    names = {each["id"]: each["name"] for each in world.rows("SELECT id, name FROM landing.things")}
    assert names == {n: "another" if 90 <= n < 110 else row(n)["name"] for n in range(250)}


def test_a_full_fetch_now_and_then(world: World, serve: Serve, db: Connection) -> None:
    prepared(world, serve, conditional())
    db.execute("UPDATE collect.page_validator SET fetched_at = fetched_at - interval '25 hours'")
    assert pages_of(collected(world)) == (5, 0)
    assert pages_of(collected(world)) == (0, 5)


def test_what_nobody_asks_for_is_forgotten(world: World, serve: Serve, db: Connection) -> None:
    prepared(world, serve, conditional())
    assert memory.prune(world.backends) == 0
    db.execute(
        "UPDATE collect.page_validator SET seen_at = seen_at - interval '91 days' "
        "WHERE request = (SELECT request FROM collect.page_validator LIMIT 1)"
    )
    assert memory.prune(world.backends) == 1
    assert pages_of(collected(world)) == (1, 4)


def test_a_server_that_stops_naming_its_pages(world: World, serve: Serve) -> None:
    """A, then B without a tag, then A again under its old one: B's rows are in the table, so A has to come."""
    server = prepared(world, serve, conditional())
    server.etags = None
    server.changed[3] = {"name": "B"}
    assert pages_of(collected(world)) == (5, 0)
    server.etags = "strong"
    server.changed.clear()
    assert pages_of(collected(world)) == (5, 0)
    assert_exact(world, 250)


def test_an_older_fetch_does_not_replace_what_is_remembered_of_a_later_one(
    world: World, serve: Serve
) -> None:
    """Two tasks ask for the same page; the one that was answered first lands last."""
    server = prepared(world, serve, conditional("none"))
    server.changed[3] = {"name": "B"}
    locked = world.rows("SELECT request, etag, fetched_at FROM collect.page_validator")[0]
    collected(world)
    newer = world.rows("SELECT request, etag, fetched_at FROM collect.page_validator")[0]
    assert newer["etag"] != locked["etag"]
    with connect(world.backends.postgres_dsn) as connection:
        values = {**world.rows("SELECT * FROM collect.page_validator")[0], **locked, "following": None}
        connection.execute(query("landing/remember_page"), values)
        connection.execute(query("landing/forget_page"), values)
    assert world.rows("SELECT request, etag, fetched_at FROM collect.page_validator") == [newer]


def test_not_modified_though_nothing_is_known(world: World, serve: Serve) -> None:
    server = serve(rows=230, etags="strong")
    world.add(conditional())
    world.serve_from(server.base_url)
    server.fail_where(asks_for(50), Failure(status=304))
    task = world.task(world.collect())
    assert task["status"] == "DEAD"
    assert "neither If-None-Match nor If-Modified-Since was sent" in task["reason"]


def test_not_modified_that_speaks_of_another_content(world: World, serve: Serve) -> None:
    server = prepared(world, serve, conditional())
    server.changed[60] = {"name": "another"}

    def conditionally(request: Recorded) -> bool:
        return asks_for(50)(request) and "If-None-Match" in request.headers

    server.fail_where(conditionally, Failure(status=304, headers={"ETag": '"other"'}))
    assert pages_of(collected(world)) == (1, 4)
    assert world.rows("SELECT name FROM landing.things WHERE id = 60") == [{"name": "another"}]


def test_redirected_pages_are_not_remembered(world: World, serve: Serve) -> None:
    declared = conditional("none", request={"path": "/redirect", "query": {"to": "/single"}})
    server = prepared(world, serve, declared)
    assert remembered(world) == []
    assert pages_of(collected(world)) == (1, 0)
    assert not any("If-None-Match" in request.headers for request in server.requests)


def test_another_user_is_shown_other_things(world: World, serve: Serve) -> None:
    server = prepared(world, serve, conditional())
    world.serve_from(server.base_url, login="somebody", password="else")
    assert pages_of(collected(world)) == (5, 0)


def test_no_secret_is_remembered(world: World, serve: Serve) -> None:
    auth = {"type": "api_key", "location": "query", "name": "key"}
    server = serve(rows=230, etags="strong", echo_key="key", total_header="X-Total")
    world.add(conditional("next_url", auth=auth))
    world.serve_from(server.base_url, password="s3cret-k3y")
    collected(world)
    assert all(request.query["key"] == "s3cret-k3y" for request in server.requests)
    assert "s3cret-k3y" not in repr(world.rows("SELECT * FROM collect.page_validator"))
    world.serve_from(server.base_url, password="an0ther-k3y")
    # Links repeat the key, so bodies differ where the key does; what asks for them does not.
    result = collected(world)
    assert result["rows_fetched"] == 230


def test_it_is_told(world: World, serve: Serve) -> None:
    prepared(world, serve, conditional())
    task_id = world.collect(force=True)
    with connect(world.backends.postgres_dsn) as connection:
        progress = read_progress(connection, task_id)
    assert progress is not None
    assert (progress.unchanged_pages, progress.unchanged_rows, progress.rows_fetched) == (5, 250, 250)
    assert "250 rows unchanged (5 pages)" in line(progress)
    traces = world.rows(
        "SELECT * FROM collect.trace WHERE task_id = %s AND stage IN ('fetch', 'land')", task_id
    )
    assert {
        (each["stage"], each["response"]["unchanged"], each["response"]["status"]) for each in traces
    } == {("fetch", True, 304)}
    assert all("If-None-Match" in each["request"]["headers"] for each in traces)
    assert sum(each["rows"] for each in traces) == 250


ENDS: dict[str, dict[str, Any]] = {
    "has_more": {},
    "body": {"end": [{"body": "page >= pages"}]},
    "header": {"end": [{"headers": {"X-Last": "yes"}}]},
}


@pytest.mark.parametrize("paging", ["page", "offset"])
@pytest.mark.parametrize("sign", ENDS)
def test_an_end_that_a_page_says_is_an_end_though_the_page_is_unchanged(
    world: World, paging: str, sign: str
) -> None:
    """There are three pages, and behind them the server fails."""

    def answer(asked: Asked) -> bytes:
        page = int(asked.query["page"]) if paging == "page" else int(asked.query["offset"]) // 3 + 1
        if page > 3:
            return reply("", status="500 No")
        tag = f'ETag: "{page}"'
        if asked.headers.get("if-none-match") == f'"{page}"':
            return reply("", tag, status="304 Not Modified", length=False)
        says = {"has_more": {"has_more": page < 3}, "body": {"page": page, "pages": 3}}.get(sign, {})
        last = ["X-Last: yes"] if sign == "header" and page == 3 else []
        return reply(rows_from(3 * page - 3, 3, **says), tag, *last)

    with OddServer({"things": answer}) as server:
        world.serve_from(server.base_url)
        fields = {
            "request": {"path": "/things"},
            "paging": {"type": paging},
            "total": {"type": "unknown"},
            "page_size": 3,
            "batch_size": 99,
            "retries": {"http_attempts": 1, "max_retries": 0},
            "target": target("merge"),
        }
        declared = source(conditional={"full_after_h": 24}, **fields, **ENDS[sign])
        world.add(with_file_defaults(declared))
        # A header may change though the body does not: such a page is fetched.
        for unchanged in (0, 2 if sign == "header" else 3):
            result = collected(world)
            assert (result["rows_fetched"], result["unchanged_pages"]) == (9, unchanged)
    assert [each["id"] for each in world.rows("SELECT id FROM landing.things ORDER BY id")] == list(range(9))


@pytest.mark.parametrize("style", ["offset", "page", "cursor"])
def test_a_page_that_holds_the_rows_of_an_unchanged_one_is_refused(world: World, style: str) -> None:
    """A server that begins to ignore where paging has got to: its first page is unchanged, and so it does not come."""
    ignores = False

    def answer(asked: Asked) -> bytes:
        query = {**asked.query, **({"page": "1", "offset": "0"} if ignores else {})}
        first = int(query.get("offset") or query.get("cursor") or 3 * (int(query.get("page", 1)) - 1))
        body = rows_from(first % 3 if ignores else first, 3)
        if style == "cursor":
            body["next"] = first + 3 if first < 6 else None
        else:
            body["total"] = 9
        tag = f'ETag: "{hashlib.sha256(orjson.dumps(body)).hexdigest()}"'
        if f"ETag: {asked.headers.get('if-none-match')}" == tag:
            return reply(b"", tag, status="304 Not Modified")
        return reply(body, tag)

    paging = {"type": style, **({"cursor": "next", "limit_param": None} if style == "cursor" else {})}
    with OddServer({"things": answer}) as server:
        world.serve_from(server.base_url)
        declared = source(
            conditional={"full_after_h": 24},
            request={"path": "/things"},
            paging=paging,
            total={"type": "unknown"} if style == "cursor" else {"type": "body", "path": "total"},
            page_size=None if style == "cursor" else 3,
            batch_size=99,
            retries={"http_attempts": 1, "max_retries": 0},
            target=target("merge"),
        )
        world.add(with_file_defaults(declared))
        assert collected(world)["rows_landed"] == 9
        ignores = True
        # Again and again: what one task has landed of it is no reason for the next to believe it.
        for _ in range(4):
            task = world.task(world.collect(force=True))
            assert (task["status"], task["error"]["class"]) == ("DEAD", "EqualPage"), task


def test_a_source_that_does_not_ask_conditionally(world: World, serve: Serve) -> None:
    server = serve(rows=230, etags="strong")
    world.add(source(request={"path": "/offset"}))
    world.serve_from(server.base_url)
    for _ in range(2):
        result = collected(world)
        assert pages_of(result) == (5, 0)
    assert world.rows("SELECT * FROM collect.page_validator") == []
    assert world.rows("SELECT * FROM collect.landing_target") == []
    assert not any("If-None-Match" in request.headers for request in server.requests)


CHANGES = st.one_of(
    st.tuples(st.just("change"), st.integers(0, 149), st.sampled_from(["a", "b"])),
    st.tuples(st.just("delete"), st.integers(0, 149), st.integers(1, 60)),
    st.tuples(st.just("grow"), st.integers(0, 40), st.none()),
    st.tuples(st.just("tags"), st.sampled_from(["strong", "weak", None]), st.none()),
    st.tuples(st.just("truncate"), st.none(), st.none()),
    st.tuples(st.just("fail"), st.sampled_from([0, 20, 60]), st.none()),
)


@pytest.mark.timeout(600)
@pytest.mark.timeout(3600)
@given(st.lists(CHANGES, min_size=1, max_size=6), st.sampled_from(["offset", "page", "cursor", "next_url"]))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_table_is_what_fetching_everything_would_make_it(
    world: World, serve: Serve, db: Connection, changes: list[tuple[str, Any, Any]], style: str
) -> None:
    """Whatever happens on either side between two tasks."""
    with PagedServer(rows=100, etags="strong") as server:
        declared = conditional(style, total={"type": "unknown"}, page_size=20, batch_size=40)
        world.add(declared)
        world.serve_from(server.base_url)
        db.execute("DROP TABLE IF EXISTS landing.things")
        server.total_in_body = False
        collected(world)
        for what, one, other in changes:
            match what:
                case "change":
                    server.changed[one] = {"name": other}
                case "delete":
                    db.execute("DELETE FROM landing.things WHERE id BETWEEN %s AND %s", (one, one + other))
                case "grow":
                    server.rows += one
                case "tags":
                    server.etags = one
                case "truncate":
                    db.execute("TRUNCATE landing.things")
                case "fail":
                    server.fail_next(declared.request.path, *[Failure(status=500)] * (one // 20))
            task_id = world.collect(force=True)
            while world.task(task_id)["status"] == "RETRYING":
                world.run(claim_next(world))
            assert world.task(task_id)["status"] == "COMPLETED"
            found = {each["id"]: each["name"] for each in world.rows("SELECT id, name FROM landing.things")}
            wanted = {**{n: row(n)["name"] for n in range(server.rows)}}
            wanted |= {n: fields["name"] for n, fields in server.changed.items() if n < server.rows}
            assert found == wanted
