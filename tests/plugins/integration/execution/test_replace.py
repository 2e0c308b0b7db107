"""Disposition replace: readers see all the old rows or all the new ones, and the newest task's in the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from collect_ops.delivery.dead_model import Edit
from collect_ops.delivery.intervene import cancel
from collect_ops.execution.rules import ShardingRules
from collect_ops.landing.asides import drop_asides_of, run_once
from collect_ops.landing.layout import aside_name
from collect_ops.landing.table import ensure_aside
from collect_ops.sources.file_defaults import with_file_defaults
from collect_ops.storage import connect, sql
from tests.plugins.integration.delivery.letters import letters_of, sent_again, service
from tests.plugins.integration.execution.checks import (
    asides,
    assert_exact,
    claim_next,
    landed,
    offset_of,
    open_things,
    plan_groups,
    side_by_side,
    start,
    target,
)
from tests.plugins.integration.world import World, source
from tests.servers.paged import Failure, PagedServer

Serve = Callable[..., PagedServer]
#: A group does what it was dealt, and no more.
ALONE = ShardingRules(steal=False)


@pytest.fixture
def server(world: World, serve: Serve) -> PagedServer:
    """A server whose 200 rows have replaced the target's once."""
    server = serve(rows=200)
    world.add(with_file_defaults(source(target=target("replace"), limits={"concurrency": 2})))
    world.serve_from(server.base_url)
    assert world.task(world.collect())["status"] == "COMPLETED"
    assert_exact(world, 200)
    return server


def test_the_swap_waits_for_the_last_shard(world: World, server: PagedServer) -> None:
    server.rows = 300
    task_id, run_id = start(world, force=True)
    first, second = plan_groups(world, run_id)
    asyncio.run(world.group(run_id, first, sharding=ALONE))
    assert landed(world) == list(range(200))
    assert len(asides(world)) == 1
    asyncio.run(world.group(run_id, second))
    assert world.task(task_id)["status"] == "COMPLETED"
    assert_exact(world, 300)
    assert asides(world) == []
    world.finish(run_id)


def test_a_newer_task_wins(world: World, server: PagedServer) -> None:
    server.rows = 300
    older, older_run = start(world, force=True)
    older_groups = plan_groups(world, older_run)
    newer, newer_run = start(world, force=True)
    world.run(newer_run)
    assert_exact(world, 300)
    asyncio.run(side_by_side(world, older_run, older_groups))
    world.finish(older_run)
    task = world.task(older)
    assert (task["status"], task["reason"]) == (
        "COMPLETED",
        "a newer task has replaced the target; these rows were dropped",
    )
    assert {row["_task_id"] for row in world.rows("SELECT _task_id FROM landing.things")} == {newer}
    assert_exact(world, 300)
    assert asides(world) == []


def test_a_task_that_fails_leaves_the_old_rows(world: World, server: PagedServer) -> None:
    server.rows = 300
    server.fail_where(lambda request: offset_of(request) == 250, Failure(status=404))
    task = world.task(world.collect(force=True))
    assert task["status"] == "DEAD"
    assert_exact(world, 200)
    assert open_things(world) == 0


def test_a_retry_goes_on_with_what_lies_aside(world: World, server: PagedServer) -> None:
    server.rows = 300
    server.fail_where(lambda request: offset_of(request) == 250, Failure(status=500))
    task_id = world.collect(force=True)
    assert world.task(task_id)["status"] == "RETRYING"
    assert_exact(world, 200)
    server.mend()
    server.requests.clear()
    world.run(claim_next(world))
    assert [offset_of(request) for request in server.requests] == [250]
    assert world.task(task_id)["status"] == "COMPLETED"
    assert_exact(world, 300)


def test_cancelling_leaves_the_old_rows_and_nothing_aside(world: World, server: PagedServer) -> None:
    server.rows = 300
    task_id, run_id = start(world, force=True)
    first, _ = plan_groups(world, run_id)
    asyncio.run(world.group(run_id, first, sharding=ALONE))
    cancel([task_id], world.backends, world.rules, actor="test", reason="enough")
    world.finish(run_id)
    assert_exact(world, 200)
    assert asides(world) == []


def test_readers_see_the_old_rows_or_the_new_ones(world: World, server: PagedServer) -> None:
    """Without waiting for either: a reader that began before the swap sees the old rows to its end."""
    server.rows = 150
    new, run_id = start(world, force=True)
    seen: list[tuple[int, int]] = []
    began, over = Event(), Event()

    def read() -> None:
        with connect(world.backends.postgres_dsn, application_name="test reader") as reader:
            reader.execute("SET lock_timeout = '1ms'")
            while not over.is_set():
                row = reader.execute(
                    "SELECT count(*) AS rows, count(DISTINCT _task_id) AS tasks FROM landing.things"
                ).fetchone()
                assert row is not None
                seen.append((row["rows"], row["tasks"]))
                began.set()

    with (
        ThreadPoolExecutor(1) as pool,
        connect(world.backends.postgres_dsn, application_name="test long reader") as long_reader,
        long_reader.transaction(),
    ):
        long_reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        before = long_reader.execute("SELECT * FROM landing.things ORDER BY id").fetchall()
        reading = pool.submit(read)
        try:
            assert began.wait(10)
            world.run(run_id)
        finally:
            over.set()
            reading.result(timeout=30)
        assert long_reader.execute("SELECT * FROM landing.things ORDER BY id").fetchall() == before
    assert len(before) == 200
    assert world.task(new)["status"] == "COMPLETED"
    assert set(seen) <= {(200, 1), (150, 1)}
    assert seen[0] == (200, 1)
    assert_exact(world, 150)


def shrunk(world: World, server: PagedServer, *, named: int = 300, fetched: int = 100) -> int:
    """A task whose source names more rows than it then gives: every shard is done, and rows are missing."""
    server.rows = named
    task_id, run_id = start(world, force=True)
    groups = plan_groups(world, run_id)
    server.rows = fetched
    asyncio.run(side_by_side(world, run_id, groups))
    world.finish(run_id)
    return task_id


def test_an_incomplete_fetch_leaves_the_old_rows(world: World, server: PagedServer) -> None:
    task = world.task(shrunk(world, server))
    assert (task["status"], task["result"]["swap"]) == ("PARTIAL", "KEPT")
    assert "300 rows" in task["reason"]
    assert "100 were fetched" in task["reason"]
    assert_exact(world, 200)
    assert asides(world) == []


def test_shards_that_do_not_add_up_leave_the_old_rows(world: World, server: PagedServer) -> None:
    """Totals of shards with parameters of their own are theirs; here each names all rows and gives twenty."""
    params = {name: {"type": "integer", "required": True} for name in ("first", "last")}
    world.add(
        source(
            target=target("replace"),
            request={"path": "/select", "params": params, "query": {name: f"{{{name}}}" for name in params}},
            paging={"type": "none"},
            page_size=None,
            shards={"by": "key_range", "low": "first", "high": "last", "bounds": "closed", "step": 20},
        )
    )
    task = world.task(world.collect(params={"first": 0, "last": 39}))
    assert (task["status"], task["result"]["done"], task["result"]["swap"]) == ("PARTIAL", 2, "KEPT")
    assert_exact(world, 200)
    assert asides(world) == []


def test_a_declaration_may_want_what_there_is(world: World, server: PagedServer) -> None:
    world.add(
        source(target={**target("replace"), "replace_when": "partial"}, limits={"concurrency": 2}),
    )
    task = world.task(shrunk(world, server))
    assert (task["status"], task["result"]["swap"]) == ("PARTIAL", "SWAPPED")
    assert_exact(world, 100)
    assert asides(world) == []


def test_failed_shards_may_be_missing_where_the_declaration_says_so(
    world: World, server: PagedServer
) -> None:
    partial = {**target("replace"), "replace_when": "partial"}
    world.add(source(target=partial, limits={"concurrency": 2}, max_failed_shards=1))
    server.rows = 300
    server.fail_where(lambda request: offset_of(request) == 200, Failure(status=404))
    task = world.task(world.collect(force=True))
    assert (task["status"], task["result"]["swap"], task["result"]["failed"]) == ("PARTIAL", "SWAPPED", 1)
    assert_exact(world, 200)
    assert {row["_task_id"] for row in world.rows("SELECT _task_id FROM landing.things")} == {task["id"]}


def test_a_partial_task_that_is_superseded_keeps_both_reasons(world: World, server: PagedServer) -> None:
    world.add(source(target={**target("replace"), "replace_when": "partial"}, limits={"concurrency": 2}))
    server.rows = 300
    older, older_run = start(world, force=True)
    groups = plan_groups(world, older_run)
    server.rows = 250
    newer, newer_run = start(world, force=True)
    world.run(newer_run)
    asyncio.run(side_by_side(world, older_run, groups))
    world.finish(older_run)
    task = world.task(older)
    assert (task["status"], task["result"]["swap"]) == ("PARTIAL", "SUPERSEDED")
    assert "250 were fetched" in task["reason"]
    assert "newer" in task["reason"]
    assert {row["_task_id"] for row in world.rows("SELECT _task_id FROM landing.things")} == {newer}


def dead_of_one_shard(world: World, server: PagedServer) -> int:
    """A DEAD task of 300 rows: two of its three shards are done, the last one has landed a page."""
    server.rows = 300
    server.fail_where(lambda request: offset_of(request) == 250, Failure(status=404))
    task_id, run_id = start(world, force=True)
    for group in plan_groups(world, run_id):
        asyncio.run(world.group(run_id, group, sharding=ALONE))
    world.finish(run_id)
    assert world.task(task_id)["status"] == "DEAD"
    server.mend()
    server.requests.clear()
    return task_id


def shards(world: World, task_id: int) -> list[str]:
    rows = world.rows("SELECT status FROM collect.shard WHERE task_id = %s ORDER BY shard_no", task_id)
    return [row["status"] for row in rows]


def redriven(world: World, task_id: int) -> str:
    assert sent_again(world, ids=letters_of(world, [task_id])).done == 1
    world.run(claim_next(world))
    return str(world.task(task_id)["status"])


def test_a_redrive_goes_on_with_what_lies_aside(world: World, server: PagedServer) -> None:
    task_id = dead_of_one_shard(world, server)
    assert shards(world, task_id) == ["DONE", "DONE", "FAILED"]
    world_sweeps(world)
    assert len(asides(world)) == 1
    assert redriven(world, task_id) == "COMPLETED"
    assert [offset_of(request) for request in server.requests] == [250]
    assert_exact(world, 300)
    assert asides(world) == []


@pytest.mark.parametrize("done", [2, 3])
def test_a_redrive_whose_aside_is_gone_starts_over(world: World, server: PagedServer, done: int) -> None:
    task_id = dead_of_one_shard(world, server)
    with connect(world.backends.postgres_dsn) as db:
        if done == 3:
            db.execute(
                "UPDATE collect.shard SET status = 'DONE', position = NULL WHERE task_id = %s", (task_id,)
            )
        (aside,) = asides(world)
        db.execute(sql.SQL("DROP TABLE landing_aside.{}").format(sql.Identifier(aside)))
    assert redriven(world, task_id) == "COMPLETED"
    assert sorted(offset_of(request) for request in server.requests) == [0, 50, 100, 150, 200, 250]
    task = world.task(task_id)
    assert (task["result"]["rows_fetched"], task["result"]["rows_landed"]) == (300, 300)
    assert_exact(world, 300)
    assert asides(world) == []


def test_retention_drops_the_aside_with_the_shards(world: World, server: PagedServer) -> None:
    dead, other = dead_of_one_shard(world, server), dead_of_one_shard(world, server)
    assert len(asides(world)) == 2
    with connect(world.backends.postgres_dsn) as db, db.transaction():
        assert drop_asides_of(db, [dead]) == 1
        db.execute("DELETE FROM collect.shard WHERE task_id = %s", (dead,))
        db.execute("UPDATE collect.task SET shards_total = NULL, total_rows = NULL WHERE id = %s", (dead,))
    assert asides(world) == [aside_name("things", other)]
    assert redriven(world, dead) == "COMPLETED"
    assert_exact(world, 300)


def test_an_aside_of_another_layout_is_made_anew(world: World, server: PagedServer) -> None:
    """A task that was given another declaration before anything of it had landed."""
    server.rows = 300
    server.fail_where(lambda request: offset_of(request) >= 0, Failure(status=404))
    task_id, run_id = start(world, force=True)
    server.mend()
    groups = plan_groups(world, run_id)
    server.fail_where(lambda request: offset_of(request) >= 0, Failure(status=404))
    asyncio.run(side_by_side(world, run_id, groups))
    world.finish(run_id)
    assert world.task(task_id)["status"] == "DEAD"
    server.mend()
    with connect(world.backends.postgres_dsn) as db:
        db.execute("ALTER TABLE landing.things ADD COLUMN value double precision")
    columns = {**target("replace")["columns"], "value": {"type": "double precision"}}
    world.add(source(target={**target("replace"), "columns": columns}, limits={"concurrency": 2}))
    (letter,) = letters_of(world, [task_id])
    service(world).edit(letter, Edit(redeclare=True), actor="test", reason="one more column")
    assert redriven(world, task_id) == "COMPLETED"
    assert world.rows("SELECT count(*) AS rows, sum(value) AS sum FROM landing.things") == [
        {"rows": 300, "sum": sum(n / 2 for n in range(300))}
    ]


def world_sweeps(world: World) -> int:
    """The sweep's pass over tables aside."""
    return run_once(world.backends)


@pytest.mark.parametrize(
    "status", ["CANCELLED", "COMPLETED", "PARTIAL", "MERGED", "DEAD", "RETRYING", "RUNNING"]
)
def test_the_sweep_drops_what_nobody_goes_on_from(world: World, server: PagedServer, status: str) -> None:
    task_id, _ = start(world, force=True)
    with connect(world.backends.postgres_dsn) as db:
        ensure_aside(db, world.find("things").target, task_id)
        db.execute("ALTER TABLE collect.task DISABLE TRIGGER USER")
        db.execute("UPDATE collect.task SET status = %s WHERE id = %s", (status, task_id))
        db.execute("ALTER TABLE collect.task ENABLE TRIGGER USER")
        kept = status in ("DEAD", "RETRYING", "RUNNING")
        assert world_sweeps(world) == int(not kept)
        assert len(asides(world)) == int(kept)
        assert world_sweeps(world) == 0


def test_a_table_aside_that_is_read_stays_until_the_next_sweep(world: World, server: PagedServer) -> None:
    task_id, run_id = start(world, force=True)
    plan_groups(world, run_id)
    (aside,) = asides(world)
    with connect(world.backends.postgres_dsn) as reader:
        with reader.transaction():
            reader.execute(sql.SQL("SELECT FROM landing_aside.{}").format(sql.Identifier(aside)))
            cancelled = cancel([task_id], world.backends, world.rules, actor="test", reason="enough")
            assert cancelled.moved == (task_id,)
            assert world_sweeps(world) == 0
        assert asides(world) == [aside]
        assert world_sweeps(world) == 1
    assert asides(world) == []


@pytest.mark.timeout(300)
def test_a_cancel_beside_planning_leaves_nothing_aside(world: World, server: PagedServer) -> None:
    """Thirty rounds: the cancel comes before, while or after the table is made."""
    for number in range(30):
        task_id, run_id = start(world, force=True)
        with ThreadPoolExecutor(2) as pool:
            planning = pool.submit(world.plan, run_id)
            time.sleep(0.003 * number)
            cancelling = pool.submit(
                cancel, [task_id], world.backends, world.rules, actor="test", reason="enough"
            )
            planning.result(timeout=30)
            cancelling.result(timeout=30)
        assert world.task(task_id)["status"] == "CANCELLED"
        world.finish(run_id)
    left = asides(world)
    world_sweeps(world)
    assert asides(world) == []
    assert left == []
    assert_exact(world, 200)
