"""A service of ours that is away is nobody's failure: no retry is used up, and no loss is counted. Each error is a real
one: what the driver raises when nobody listens, or when its session was ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from collect_ops.broker.connection import connect_blocking
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.coordination.client import connect as connect_redis
from collect_ops.execution.group import run_group
from collect_ops.execution.plan import plan
from collect_ops.execution.rules import ShardingRules
from collect_ops.hooks.connections import AirflowAway, ConnectionMissing
from collect_ops.storage import connect
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

EndpointOf = Callable[[str], Endpoint]


def no_postgres(dsn: str) -> None:
    connect("postgresql://nobody@127.0.0.1:1/none")


def ended_session(dsn: str) -> None:
    with connect(dsn) as connection, connect(dsn) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        connection.execute("SELECT 1")


def closed_session(dsn: str) -> None:
    connection = connect(dsn)
    connection.close()
    connection.execute("SELECT 1")


def lock_not_to_be_had(dsn: str) -> None:
    with connect(dsn) as holder, connect(dsn) as waiter, holder.transaction():
        holder.execute("LOCK TABLE collect.host")
        with waiter.transaction():
            waiter.execute("SET LOCAL lock_timeout = '10ms'")
            waiter.execute("LOCK TABLE collect.host")


def no_redis(dsn: str) -> None:
    connect_redis("redis://127.0.0.1:1/0").ping()


def no_broker(dsn: str) -> None:
    connect_blocking("amqp://guest:guest@127.0.0.1:1/none")


def no_airflow(dsn: str) -> None:
    raise AirflowAway("things_api", "nobody listens")


OUTAGES = [no_postgres, ended_session, closed_session, lock_not_to_be_had, no_redis, no_broker, no_airflow]


@pytest.fixture(params=OUTAGES, ids=lambda act: act.__name__)
def away(request: pytest.FixtureRequest, world: World) -> EndpointOf:
    """An endpoint that cannot be looked up, since a service of ours is away."""

    def endpoint_of(connection_id: str) -> Endpoint:
        request.param(world.backends.postgres_dsn)
        raise AssertionError("the outage did not happen")

    return endpoint_of


def run_planning(world: World, run_id: str, endpoint_of: EndpointOf) -> None:
    plan(world.attempts(run_id), run_id, world.backends, world.rules, endpoint_of, actor="test")


def counts(world: World, task_id: int) -> tuple[str, int, int, int]:
    task = world.task(task_id)
    return task["status"], task["attempt"], task["retry_count"], task["lost_count"]


def test_planning(world: World, serve: Callable[..., PagedServer], away: EndpointOf) -> None:
    world.add(source(retries={"max_retries": 0}))
    world.serve_from(serve(rows=50).base_url)
    task_id = world.submit().task_id
    run_id = world.claim().runs[0].run_id
    run_planning(world, run_id, away)
    world.finish(run_id)
    assert counts(world, task_id) == ("QUEUED", 1, 0, 0)
    (waits,) = world.rows("SELECT extract(EPOCH FROM due_at - now())::float8 AS s FROM collect.task")
    assert 20 < waits["s"] <= 60, "not at once: it would be away still"
    assert world.task(task_id)["reason"].startswith("not counted, runs again: planning: ")
    assert world.rows("SELECT 1 FROM collect.dead_letter") == []


@pytest.mark.parametrize("act", [no_redis, no_broker, no_airflow])
def test_a_shard_group_that_cannot_begin(
    world: World, serve: Callable[..., PagedServer], act: Callable[[str], None]
) -> None:
    world.add(source(retries={"max_retries": 0}))
    world.serve_from(serve(rows=320).base_url)
    task_id = world.submit().task_id
    run_id = world.claim().runs[0].run_id
    first, *others = world.plan(run_id).groups
    assert others
    asyncio.run(world.group(run_id, first.group_no, sharding=ShardingRules(steal=False)))
    landed = world.rows("SELECT 1 FROM collect.shard WHERE status = 'DONE'")
    for group in others:
        asyncio.run(run_one(world, run_id, group.group_no, lambda _: act(world.backends.postgres_dsn)))
    world.finish(run_id)
    assert counts(world, task_id) == ("QUEUED", 1, 0, 0)
    assert world.task(task_id)["reason"].startswith("not counted, runs again: ")
    assert len(world.rows("SELECT 1 FROM collect.shard WHERE status = 'DONE'")) == len(landed) > 0


@pytest.mark.parametrize("act", [no_postgres, ended_session, closed_session])
def test_a_shard_group_waits_for_postgres(
    world: World, serve: Callable[..., PagedServer], act: Callable[[str], None]
) -> None:
    world.add(source(retries={"max_retries": 0}))
    world.serve_from(serve(rows=20).base_url)
    task_id = world.submit().task_id
    run_id = world.claim().runs[0].run_id
    (group,) = world.plan(run_id).groups
    asked: list[str] = []

    def endpoint_of(connection_id: str) -> Endpoint:
        asked.append(connection_id)
        if len(asked) == 1:
            act(world.backends.postgres_dsn)
        return world.endpoint

    asyncio.run(run_one(world, run_id, group.group_no, endpoint_of))
    assert counts(world, task_id) == ("COMPLETED", 1, 0, 0)
    assert len(asked) == 2


async def run_one(world: World, run_id: str, group_no: int, endpoint_of: Callable[[str], object]) -> None:
    await run_group(
        run_id,
        group_no,
        world.backends,
        world.rules,
        cast("EndpointOf", endpoint_of),
        node="test",
        actor="test",
        sharding=ShardingRules(steal=False),
    )


def test_a_connection_that_is_not_defined_is_final(world: World) -> None:
    world.add(source(retries={"max_retries": 3}))

    def missing(connection_id: str) -> Endpoint:
        raise ConnectionMissing(connection_id)

    task_id = world.submit().task_id
    run_id = world.claim().runs[0].run_id
    run_planning(world, run_id, missing)
    world.finish(run_id)
    assert counts(world, task_id) == ("DEAD", 1, 0, 0)
    assert "airflow connections add things_api" in world.task(task_id)["reason"]
