"""Disposition replace: readers see all the old rows or all the new ones, and the newest task's in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from collect_ops.delivery.intervene import cancel
from collect_ops.execution.rules import ShardingRules
from collect_ops.storage import connect
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
    world.add(source(target=target("replace"), limits={"concurrency": 2}))
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
    server.rows = 210
    older, older_run = start(world, force=True)
    older_groups = plan_groups(world, older_run)
    server.rows = 300
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
