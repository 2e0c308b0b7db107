"""A service that goes away in the middle costs time, never a row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from collect_ops.storage import Connection, connect
from tests.plugins.integration.execution.checks import (
    DISPOSITIONS,
    asks_for,
    assert_exact,
    claim_next,
    committed,
    finish,
    offset_of,
    open_things,
    plan_groups,
    publish_overdue,
    side_by_side,
    start,
    target,
    waits_for_a_lock,
    while_running,
)
from tests.plugins.integration.execution.own_redis import OwnRedis
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source
from tests.servers.paged import Failure, PagedServer

Serve = Callable[..., PagedServer]


def sharded(world: World, serve: Serve, disposition: str = "append") -> PagedServer:
    """A source of four shards in two pages each, one after the other."""
    server = serve(rows=400)
    world.add(source(target=target(disposition), limits={"concurrency": 1}))
    world.serve_from(server.base_url)
    return server


def flush(owned: OwnRedis) -> None:
    client = redis.Redis.from_url(owned.url)
    client.flushall()
    client.close()


def restart(owned: OwnRedis) -> None:
    owned.kill()
    owned.start()


@pytest.mark.parametrize(
    "happens",
    [flush, OwnRedis.kill, OwnRedis.freeze, restart],
    ids=["flushed", "killed", "frozen", "restarted"],
)
def test_redis_in_the_middle(
    world: World, serve: Serve, tmp_path: Path, happens: Callable[[OwnRedis], None]
) -> None:
    server = sharded(world, serve)
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    held = server.hold_where(asks_for(150))
    shared = world.backends
    with OwnRedis(tmp_path) as owned:
        world.backends = replace(shared, redis_url=owned.url)

        def break_it() -> None:
            held.wait()
            happens(owned)
            held.release()

        # A short lease: its renewal falls into the outage.
        (result,) = asyncio.run(while_running(side_by_side(world, run_id, groups, lease_s=1.0), break_it))
        world.backends = shared
    assert (result.done, result.failed, result.fenced) == (4, 0, 0)
    assert finish(world, run_id, task_id) == "COMPLETED"
    assert world.task(task_id)["attempt"] == 1
    assert_exact(world, 400)
    assert open_things(world) == 0


def test_redis_that_is_not_there(world: World, serve: Serve) -> None:
    sharded(world, serve)
    there = world.backends
    world.backends = replace(there, redis_url="redis://127.0.0.1:1/0")
    task_id = world.collect()
    world.backends = there
    assert world.task(task_id)["status"] == "COMPLETED"
    assert_exact(world, 400)
    assert open_things(world) == 0


def terminate(dsn: str, application_name: str) -> int:
    """End the connections whose application name begins so; returns how many there were."""
    with connect(dsn, application_name="test killer") as connection:
        return connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND starts_with(application_name, %s)",
            (application_name,),
        ).rowcount


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_the_database_while_a_page_is_under_way(world: World, serve: Serve, disposition: str) -> None:
    server = sharded(world, serve, disposition)
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    held = server.hold_where(asks_for(150))

    def cut() -> None:
        held.wait()
        committed(world, 150)
        try:
            assert terminate(world.backends.postgres_dsn, f"collect-ops {run_id}/") == 1
        finally:
            held.release()

    (result,) = asyncio.run(while_running(side_by_side(world, run_id, groups), cut))
    assert (result.done, result.failed) == (4, 0)
    assert world.task(task_id)["status"] == "COMPLETED"
    assert world.task(task_id)["attempt"] == 1
    again = [offset for offset in map(offset_of, server.requests) if offset == 150]
    assert len(again) == 2, "the page under way is fetched again, and no page before it"
    assert len(server.requests) == 1 + 8 + 1
    assert_exact(world, 400)


def test_the_database_in_the_middle_of_a_landing(world: World, serve: Serve, db: Connection) -> None:
    server = sharded(world, serve)
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    held = server.hold_where(asks_for(150))

    def cut() -> None:
        held.wait()
        committed(world, 150)
        with db.transaction():
            # The landing has fenced its shard and waits for the table.
            db.execute("LOCK TABLE landing.things IN ACCESS EXCLUSIVE MODE")
            held.release()
            name = f"collect-ops {run_id}/"
            until(lambda: waits_for_a_lock(world.backends.postgres_dsn, name), "the landing waits")
            assert terminate(world.backends.postgres_dsn, name) == 1

    (result,) = asyncio.run(while_running(side_by_side(world, run_id, groups), cut))
    assert (result.done, result.failed) == (4, 0)
    assert world.task(task_id)["status"] == "COMPLETED"
    assert_exact(world, 400)


def test_the_database_again_and_again(world: World, serve: Serve) -> None:
    """At every page."""
    server = serve(rows=400)
    world.add(source(target=target("append")))
    world.serve_from(server.base_url)
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    gates = [server.hold_where(asks_for(offset)) for offset in range(50, 400, 100)]

    def cut() -> None:
        for gate in gates:
            gate.wait()
            terminate(world.backends.postgres_dsn, f"collect-ops {run_id}/")
            gate.release()

    results = asyncio.run(while_running(side_by_side(world, run_id, groups), cut))
    assert sum(each.done for each in results) == 4
    assert finish(world, run_id, task_id) == "COMPLETED"
    assert_exact(world, 400)
    assert open_things(world) == 0


def test_a_broker_that_is_away_when_a_task_settles(world: World, serve: Serve) -> None:
    """Completed is completed; a retry waits in the outbox; tasks of the same group go on."""
    server = sharded(world, serve)
    world.collect(params={"day": "known to be small"})
    server.requests.clear()
    server.rows = 50
    world.collect(params={"day": "and again"})
    server.fail_where(lambda request: request.query["day"] == "bad", Failure(status=500))
    tasks = {day: world.submit(params={"day": day}).task_id for day in ("first", "bad", "last")}
    claimed = world.claim()
    server.mend()
    plans = {run.run_id: plan_groups(world, run.run_id) for run in claimed.runs}
    server.fail_where(lambda request: request.query["day"] == "bad", Failure(status=500))
    there = world.backends
    world.backends = replace(there, amqp_url="amqp://127.0.0.1:1/")
    for run_id, groups in plans.items():
        asyncio.run(side_by_side(world, run_id, groups))
        world.finish(run_id)
    ends = {day: world.task(task_id)["status"] for day, task_id in tasks.items()}
    assert ends == {"first": "COMPLETED", "bad": "RETRYING", "last": "COMPLETED"}
    bad = world.task(tasks["bad"])
    assert (bad["generation"], bad["confirmed_generation"]) == (2, 1)

    world.backends = there
    server.mend()
    until(lambda: publish_overdue(world) == 1, "the outbox publishes the retry")
    world.run(claim_next(world))
    assert world.task(tasks["bad"])["status"] == "COMPLETED"
    assert open_things(world) == 0
