"""A node that drains is empty in seconds, whatever its shard groups wait for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from collect_ops.execution import group as groups
from collect_ops.execution import shard
from collect_ops.storage import Connection
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

LONG_S = 120.0


def planned(world: World, **fields: Any) -> tuple[int, str]:
    world.add(source(**fields))
    task_id = world.submit().task_id
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    return task_id, run_id


def ask_to_hand_back(db: Connection) -> None:
    db.execute("UPDATE collect.shard_group SET hand_back = true")


@pytest.mark.parametrize("wait", ["for a slow host", "between two tries"])
def test_a_request_that_waits_is_given_up(
    world: World,
    db: Connection,
    serve: Callable[..., PagedServer],
    wait: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(groups, "ALIVE_EVERY_S", 0.5)
    monkeypatch.setattr(shard, "LAST_PAGE_S", 0.5)
    server = serve(rows=100)
    world.serve_from(server.base_url)
    retries = {"http_attempts": 5, "http_backoff_s": LONG_S, "http_max_backoff_s": LONG_S, "max_retries": 3}
    task_id, run_id = planned(world, retries=retries)
    if wait == "for a slow host":
        server.delay_s = LONG_S
    else:
        world.serve_from("http://127.0.0.1:1")

    async def drained() -> float:
        group = asyncio.create_task(world.group(run_id, 0))
        await asyncio.sleep(1)
        began = time.monotonic()
        await asyncio.to_thread(ask_to_hand_back, db)
        result = await group
        assert result.handed_back == 1
        return time.monotonic() - began

    assert asyncio.run(drained()) < groups.ALIVE_EVERY_S + shard.LAST_PAGE_S + 8
    world.finish(run_id)
    task = world.task(task_id)
    assert (task["status"], task["retry_count"], task["lost_count"]) == ("QUEUED", 0, 0)


def test_a_group_that_starts_on_a_node_that_drains_hands_back_at_once(
    world: World, db: Connection, serve: Callable[..., PagedServer]
) -> None:
    server = serve(rows=100)
    world.serve_from(server.base_url)
    _, run_id = planned(world)
    asked = len(server.requests)
    ask_to_hand_back(db)
    result = asyncio.run(world.group(run_id, 0))
    assert (result.handed_back, result.done, len(server.requests)) == (1, 0, asked)
