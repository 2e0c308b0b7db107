"""Who waits for a task's end hears of a fault of the shared look, instead of waiting for ever."""

from __future__ import annotations

import asyncio

import pytest

from collect_ops.storage import Connection, errors
from collect_ops.tasks.waiting import TaskEnds
from tests.plugins.integration.world import World


async def test_a_look_that_fails_for_good_is_told(world: World, db: Connection) -> None:
    db.execute("ALTER TABLE collect.task RENAME COLUMN reason TO renamed")
    with pytest.raises(errors.UndefinedColumn):
        await asyncio.wait_for(TaskEnds(world.backends.postgres_dsn, interval_s=0.05).wait(1), timeout=10)
