"""Progress as people see it, from the shards; and waiting for ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest

from collect_ops.execution.rules import ShardingRules
from collect_ops.storage import Connection, connect_async, query
from collect_ops.tasks.lifecycle import TaskStatus
from collect_ops.tasks.progress import read_progress, read_progress_async
from collect_ops.tasks.waiting import TaskEnd, TaskEnds
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

Serve = Callable[..., PagedServer]


@pytest.fixture(autouse=True)
def declared(world: World, serve: Serve) -> None:
    world.add(source())
    world.serve_from(serve(rows=250).base_url)


def test_progress_follows_the_shards(world: World, db: Connection) -> None:
    assert read_progress(db, 1) is None
    task_id = world.submit().task_id
    waiting = read_progress(db, task_id)
    assert waiting is not None
    assert (waiting.status, waiting.elapsed_s, waiting.rows_per_s, waiting.remaining_s) == (
        TaskStatus.QUEUED, None, None, None,
    )  # fmt: skip
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    asyncio.run(world.group(run_id, 0, sharding=ShardingRules(steal=False)))
    db.execute("UPDATE collect.task SET started_at = now() - interval '10 seconds'")
    half = read_progress(db, task_id)
    assert half is not None
    assert (half.status, half.total_rows, half.shards_total) == (TaskStatus.RUNNING, 250, 3)
    assert 0 < half.shards_done < 3
    assert half.rows_fetched == half.rows_landed == 100 * half.shards_done
    assert half.rows_per_s == pytest.approx(half.rows_fetched / 10, rel=0.5)
    assert half.remaining_s == pytest.approx((250 - half.rows_fetched) / half.rows_per_s, rel=0.5)
    assert half.quiet_s < 60
    asyncio.run(world.group(run_id, 1))
    world.finish(run_id)
    done = read_progress(db, task_id)
    assert done is not None
    assert (done.status, done.rows_landed, done.shards_done, done.remaining_s) == (
        TaskStatus.COMPLETED, 250, 3, 0.0,
    )  # fmt: skip


async def test_the_same_from_asyncio(world: World) -> None:
    task_id = world.submit().task_id
    async with await connect_async(world.backends.postgres_dsn) as connection:
        found = await read_progress_async(connection, task_id)
        assert found is not None
        assert found.task_id == task_id
        assert await read_progress_async(connection, task_id + 1) is None


def test_the_log_and_the_result_say_what_happened(world: World, db: Connection) -> None:
    task_id = world.collect()
    moves = db.execute(query("tasks/select_log"), {"task_id": task_id}).fetchall()
    assert [move["to_status"] for move in moves] == [
        "QUEUED",
        "CLAIMED",
        "DISPATCHED",
        "RUNNING",
        "COMPLETED",
    ]
    assert all(earlier["at"] <= later["at"] for earlier, later in pairwise(moves))
    assert {move["actor"] for move in moves} == {"test"}
    result = db.execute(query("tasks/select_result"), {"task_id": task_id}).fetchone()
    assert result is not None
    assert (result["result"]["rows_landed"], result["result"]["done"], result["error"]) == (250, 3, None)


async def test_many_wait_for_their_ends_by_one_look(world: World, db: Connection) -> None:
    ids = [world.submit(params={"day": str(number)}).task_id for number in range(3)]
    ends = TaskEnds(world.backends.postgres_dsn, interval_s=0.05)
    waiting = [asyncio.create_task(ends.wait(task_id)) for task_id in (*ids, ids[0], 10**9)]
    missing = await asyncio.wait_for(waiting[-1], 20)
    assert (missing.status, missing.reason) == ("MISSING", "there is no such task")
    assert not any(task.done() for task in waiting[:-1])
    looks = db.execute(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'collect-ops wait'"
    ).fetchone()
    assert looks == {"n": 1}
    db.execute("UPDATE collect.task SET status = 'CANCELLED', reason = 'no more'")
    found = await asyncio.wait_for(asyncio.gather(*waiting[:-1]), 20)
    assert [end.task_id for end in found] == [*ids, ids[0]]
    assert found[0] == TaskEnd(
        task_id=ids[0], status="CANCELLED", reason="no more", rows_landed=0, bad_rows=0
    )


async def test_waiting_goes_on_when_the_database_comes_back(world: World, db: Connection) -> None:
    task_id = world.submit().task_id
    waiting = asyncio.create_task(TaskEnds(world.backends.postgres_dsn, interval_s=0.05).wait(task_id))
    ended = (
        "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity "
        "WHERE application_name = 'collect-ops wait' AND datname = current_database()"
    )

    def cut() -> bool:
        row = db.execute(ended).fetchone()  # type: ignore[arg-type]
        return row is not None and row["n"] > 0

    await asyncio.to_thread(until, cut, "the look's connection is there to be cut")
    db.execute("UPDATE collect.task SET status = 'CANCELLED'")
    assert (await asyncio.wait_for(waiting, 20)).status == "CANCELLED"


async def test_who_gives_up_waiting_leaves_the_others(world: World, db: Connection) -> None:
    task_id = world.submit().task_id
    ends = TaskEnds.shared(world.backends.postgres_dsn)
    assert TaskEnds.shared(world.backends.postgres_dsn) is ends
    impatient, patient = (asyncio.create_task(ends.wait(task_id)) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    db.execute("UPDATE collect.task SET status = 'CANCELLED'")
    assert (await asyncio.wait_for(patient, 20)).status == "CANCELLED"
