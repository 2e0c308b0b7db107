"""Cancelling beside a landing: no deadlock, and what was planned meanwhile is fenced off as well."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from collect_ops.delivery import intervene
from collect_ops.delivery.intervene import Intervened
from collect_ops.storage import Connection, connect, query
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

Serve = Callable[..., PagedServer]


def take(db: Connection, task_id: int, attempt: int) -> int:
    """A shard's holder takes its token."""
    values = {"task_id": task_id, "shard_no": 0, "attempt": attempt}
    owner = db.execute(query("execution/select_owner"), values).fetchone()
    assert owner is not None
    values |= owner
    row = db.execute(query("execution/take_shard"), values).fetchone()
    assert row is not None
    return int(row["fencing_token"])


def waits_for_a_lock(db: Connection, application_name: str) -> bool:
    row = db.execute(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'",
        (application_name,),
    ).fetchone()
    return row is not None and row["n"] > 0


def cancel(world: World, *task_ids: int) -> Intervened:
    return intervene.cancel(task_ids, world.backends, world.rules, actor="test", reason="test")


def test_cancel_waits_for_a_landing_that_then_writes_its_trace(
    world: World, serve: Serve, db: Connection
) -> None:
    # The trace row's foreign key locks the task row, which the cancel holds while it waits for the shard.
    world.add(source())
    world.serve_from(serve(rows=120).base_url)
    task_id = world.submit().task_id
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    token = take(db, task_id, 1)
    with ThreadPoolExecutor(1) as pool, connect(world.backends.postgres_dsn) as landing:
        with landing.transaction():
            fence = {"task_id": task_id, "shard_no": 0, "token": token}
            assert landing.execute(query("execution/fence_shard"), fence).fetchone()
            cancelling = pool.submit(cancel, world, task_id)
            until(lambda: waits_for_a_lock(db, "collect-ops cancel"), "the cancel waits for the shard")
            landing.execute(
                "INSERT INTO collect.trace (task_id, shard_no, attempt, stage, duration_s) "
                "VALUES (%s, 0, 1, 'land', 0)",
                (task_id,),
            )
        assert cancelling.result(timeout=30).moved == (task_id,)
        assert landing.execute(query("execution/fence_shard"), fence).fetchone() is None


def test_cancel_fences_shards_that_were_planned_while_it_waited(
    world: World, serve: Serve, db: Connection
) -> None:
    world.add(source())
    world.serve_from(serve(rows=120).base_url)
    first = world.submit(params={"day": "first"}).task_id
    second = world.submit(params={"day": "second"}).task_id
    runs = world.claim().runs
    assert [run.conf["tasks"][0]["task_id"] for run in runs] == [first, second]
    with ThreadPoolExecutor(1) as pool, connect(world.backends.postgres_dsn) as other:
        with other.transaction():
            other.execute("SELECT FROM collect.task WHERE id = %s FOR UPDATE", (first,))
            cancelling = pool.submit(cancel, world, first, second)
            until(lambda: waits_for_a_lock(db, "collect-ops cancel"), "the cancel waits for the first task")
            world.plan(runs[1].run_id)
            token = take(db, second, 1)
        assert cancelling.result(timeout=30).moved == (first, second)
    fence = {"task_id": second, "shard_no": 0, "token": token}
    assert db.execute(query("execution/fence_shard"), fence).fetchone() is None
