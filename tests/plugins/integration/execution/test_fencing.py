"""Whoever has lost a shard cannot land it: at every moment between taking it and committing its last page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import redis

from collect_ops.delivery import repair
from collect_ops.delivery.intervene import cancel
from collect_ops.execution.policy import MAX_LOST
from collect_ops.lanes.runs import RunState
from collect_ops.storage import Connection, connect
from tests.plugins.integration.execution.checks import (
    DISPOSITIONS,
    age,
    asks_for,
    assert_exact,
    claim_next,
    committed,
    finish,
    landed,
    nothing_open,
    plan_groups,
    side_by_side,
    start,
    target,
    waits_for_a_lock,
    while_running,
)
from tests.plugins.integration.execution.killed_group import start as start_process
from tests.plugins.integration.execution.killed_group import work_of
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

Serve = Callable[..., PagedServer]


def one_shard(world: World, serve: Serve, disposition: str) -> PagedServer:
    """A source of one shard in three pages."""
    server = serve(rows=90)
    world.add(source(target=target(disposition), batch_size=90, page_size=30))
    world.serve_from(server.base_url)
    return server


def free_leases(world: World) -> None:
    """As if they had expired."""
    client = redis.Redis.from_url(world.backends.redis_url)
    client.flushdb()
    client.close()


@pytest.mark.parametrize("offset", [0, 30, 60])
@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_a_shard_that_another_group_has_taken(
    world: World, serve: Serve, disposition: str, offset: int
) -> None:
    """Its lease ends while its page is under way, another takes the shard and finishes it, then the page arrives."""
    server = one_shard(world, serve, disposition)
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    held = server.hold_where(asks_for(offset))

    async def race() -> tuple[int, int, int]:
        sleeper = asyncio.create_task(side_by_side(world, run_id, groups))
        try:
            await asyncio.to_thread(held.wait)
            free_leases(world)
            (other,) = await side_by_side(world, run_id, groups)
        finally:
            held.release()
            (slept,) = await sleeper
        return other.done, slept.done, slept.fenced

    assert asyncio.run(race()) == (1, 0, 1)
    assert finish(world, run_id, task_id) == "COMPLETED"
    task = world.task(task_id)
    assert (task["attempt"], task["lost_count"], task["result"]["rows_fetched"]) == (1, 0, 90)
    assert_exact(world, 90)
    nothing_open(world)


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_an_attempt_that_was_settled_as_lost(world: World, serve: Serve, disposition: str) -> None:
    """Its run has ended while a process of it lives on: the next attempt has the shards, the survivor lands nothing."""
    server = one_shard(world, serve, disposition)
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    held = server.hold_where(asks_for(30))

    def lose_and_finish() -> None:
        held.wait()
        free_leases(world)
        try:
            assert finish(world, run_id, task_id) == "COMPLETED"
        finally:
            held.release()

    (result,) = asyncio.run(while_running(side_by_side(world, run_id, groups), lose_and_finish))
    assert (result.done, result.fenced) == (0, 1)
    task = world.task(task_id)
    assert (task["attempt"], task["lost_count"], task["retry_count"]) == (2, 1, 0)
    assert_exact(world, 90)
    nothing_open(world)


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_a_sleeper_that_wakes_while_the_other_is_at_work(
    world: World, serve: Serve, disposition: str
) -> None:
    server = one_shard(world, serve, disposition)
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    asleep = server.hold_where(asks_for(30))
    busy = server.hold_where(asks_for(60))

    async def race() -> tuple[int, int, int]:
        sleeper = asyncio.create_task(side_by_side(world, run_id, groups))
        await asyncio.to_thread(asleep.wait)
        await asyncio.to_thread(committed, world, 30)
        free_leases(world)
        other = asyncio.create_task(side_by_side(world, run_id, groups))
        try:
            await asyncio.to_thread(busy.wait)
            await asyncio.to_thread(committed, world, 60)
        finally:
            asleep.release()
            (slept,) = await sleeper
            busy.release()
            (worked,) = await other
        return worked.done, slept.done, slept.fenced

    assert asyncio.run(race()) == (1, 0, 1)
    assert finish(world, run_id, task_id) == "COMPLETED"
    assert world.task(task_id)["result"]["rows_fetched"] == 90
    assert_exact(world, 90)


def test_a_task_that_was_lost_too_often_is_dead_and_nothing_lands_after(
    world: World, serve: Serve, db: Connection
) -> None:
    server = one_shard(world, serve, "append")
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    db.execute("UPDATE collect.task SET lost_count = %s", (MAX_LOST - 1,))
    held = server.hold_where(asks_for(30))

    def lose() -> None:
        held.wait()
        committed(world, 30)
        try:
            world.finish(run_id)
        finally:
            held.release()

    (result,) = asyncio.run(while_running(side_by_side(world, run_id, groups), lose))
    assert (result.done, result.fenced) == (0, 1)
    task = world.task(task_id)
    assert (task["status"], task["retry_count"]) == ("DEAD", 0)
    assert task["reason"] == "the attempt was lost (1 shards unfinished), 10 times in all"
    assert landed(world) == list(range(30))
    nothing_open(world)


def test_a_repair_while_a_page_is_under_way(world: World, serve: Serve, db: Connection) -> None:
    server = one_shard(world, serve, "append")
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    held = server.hold_where(asks_for(30))

    def repair_it() -> None:
        held.wait()
        committed(world, 30)
        age(db, repair.QUIET_S + 30)
        world.runs.states[run_id] = RunState.ENDED
        done = repair.run_once(world.backends, world.rules, world.runs, actor="repair")
        held.release()
        assert done.settled == 1

    (result,) = asyncio.run(while_running(side_by_side(world, run_id, groups), repair_it))
    assert (result.done, result.fenced) == (0, 1)
    task = world.task(task_id)
    assert (task["status"], task["generation"], task["lost_count"]) == ("QUEUED", 2, 1)
    server.requests.clear()
    world.run(claim_next(world))
    assert world.task(task_id)["status"] == "COMPLETED"
    assert [request.query["offset"] for request in server.requests] == ["30", "60"]
    assert_exact(world, 90)


def test_nothing_lands_after_cancel(world: World, serve: Serve) -> None:
    server = one_shard(world, serve, "append")
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    held = server.hold_where(asks_for(30))

    def cancel_it() -> None:
        held.wait()
        committed(world, 30)
        try:
            done = cancel([task_id], world.backends, world.rules, actor="test", reason="enough")
        finally:
            held.release()
        assert done.moved == (task_id,)

    (result,) = asyncio.run(while_running(side_by_side(world, run_id, groups), cancel_it))
    assert (result.done, result.fenced) == (0, 1)
    world.finish(run_id)
    task = world.task(task_id)
    assert (task["status"], task["reason"]) == ("CANCELLED", "enough")
    assert landed(world) == list(range(30)), "what was committed before stays"
    nothing_open(world)


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_the_same_groups_twice_at_once_land_every_row_once(
    world: World, serve: Serve, disposition: str
) -> None:
    """What a scheduler's crash can do: groups start again beside their surviving processes."""
    server = serve(rows=600)
    world.add(source(target=target(disposition), page_size=20))
    world.serve_from(server.base_url)
    task_id, run_id = start(world)
    works = [work_of(world, run_id, number) for number in plan_groups(world, run_id)]
    processes = [start_process(work) for work in (*works, *works)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(processes)
    assert finish(world, run_id, task_id) == "COMPLETED"
    assert world.task(task_id)["attempt"] == 1
    assert_exact(world, 600)
    nothing_open(world)


def test_a_token_that_is_raised_while_the_landing_waits(world: World, serve: Serve, db: Connection) -> None:
    """Between fetch and landing: the landing waits for the shard's row and then sees the newer token."""
    server = one_shard(world, serve, "append")
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    held = server.hold_where(asks_for(30))

    def raise_token() -> None:
        held.wait()
        committed(world, 30)
        with (
            connect(world.backends.postgres_dsn, application_name="test taker") as taker,
            taker.transaction(),
        ):
            taker.execute("UPDATE collect.shard SET fencing_token = fencing_token + 1")
            held.release()
            until(
                lambda: waits_for_a_lock(world.backends.postgres_dsn, "collect-ops things-"),
                "the landing waits for its shard",
            )

    (result,) = asyncio.run(while_running(side_by_side(world, run_id, groups), raise_token))
    assert (result.done, result.fenced) == (0, 1)
    assert db.execute("SELECT count(*) AS n FROM landing.things").fetchone() == {"n": 30}
    assert finish(world, run_id, task_id) == "COMPLETED"
    assert_exact(world, 90)


def test_a_group_whose_run_is_over_does_not_start(world: World, serve: Serve) -> None:
    server = one_shard(world, serve, "append")
    _, run_id = start(world)
    (group,) = plan_groups(world, run_id)
    world.finish(run_id)
    server.requests.clear()
    result = asyncio.run(world.group(run_id, group))
    assert result.skipped is not None
    assert "closed" in result.skipped
    assert server.requests == []


def test_a_lease_that_is_held_is_no_failure(world: World, serve: Serve) -> None:
    """The group does its other shards first and comes back."""
    server = serve(rows=300)
    world.add(source(target=target("append"), limits={"concurrency": 1}))
    world.serve_from(server.base_url)
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    client = redis.Redis.from_url(world.backends.redis_url)
    client.set(f"collect:lease:{task_id}:0", "somebody", px=1_500)
    client.close()
    results = asyncio.run(side_by_side(world, run_id, groups, wait_s=0.3))
    assert [(each.done, each.failed, each.fenced) for each in results] == [(3, 0, 0)]
    order = world.rows("SELECT shard_no FROM collect.shard ORDER BY finished_at")
    assert order[-1]["shard_no"] == 0
    assert world.task(task_id)["status"] == "COMPLETED"
    assert_exact(world, 300)
