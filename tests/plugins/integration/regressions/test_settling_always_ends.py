"""A task that cannot be settled as it should ends DEAD with the reason, and keeps nobody else waiting."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from collect_ops.delivery import repair, sweep
from collect_ops.storage import Connection
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

Serve = Callable[..., PagedServer]


def test_a_declaration_that_is_not_understood_any_more(world: World, serve: Serve, db: Connection) -> None:
    world.add(source(description="Read here for the first time after it was damaged."))
    world.serve_from(serve(rows=20).base_url)
    task_id = world.submit().task_id
    run_id = world.claim().runs[0].run_id
    db.execute(
        """UPDATE collect.source_version SET declared = declared::jsonb || '{"batch_size": "of_an_older_release"}'"""
    )
    world.run(run_id)
    task = world.task(task_id)
    assert task["status"] == "DEAD"
    assert "batch_size" in task["reason"]


def test_a_swap_that_the_table_refuses(world: World, serve: Serve, db: Connection) -> None:
    target = {"table": "things", "disposition": "replace", "columns": {"id": {"type": "bigint"}}}
    world.add(source(target=target))
    world.serve_from(serve(rows=20).base_url)
    task_id = world.submit().task_id
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    db.execute("ALTER TABLE landing.things ADD CONSTRAINT few CHECK (id < 5)")
    import asyncio

    asyncio.run(world.group(run_id, 0))
    world.finish(run_id)
    task = world.task(task_id)
    assert task["status"] == "DEAD"
    assert 'check constraint "few"' in task["reason"]


def test_a_task_that_cannot_be_repaired_does_not_keep_lanes_asleep(
    world: World, serve: Serve, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(source())
    world.submit()
    world.runs.woken.clear()
    redis_is_empty(world)

    def broken(*_args: object, **_options: object) -> None:
        raise ExceptionGroup("1 tasks could not be repaired", [LookupError("broken")])

    monkeypatch.setattr(repair, "run_once", broken)
    with pytest.raises(ExceptionGroup):
        sweep.sweep(world.backends, world.rules, world.runs, actor="test")
    assert world.runs.woken == ["normal"]


def redis_is_empty(world: World) -> None:
    import redis

    client = redis.Redis.from_url(world.backends.redis_url)
    client.flushdb()
    client.close()
