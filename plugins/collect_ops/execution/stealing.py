"""Work stealing: a shard group that has nothing left takes over what other groups of its run have not started.

One conditional UPDATE takes half of what the group with the most unstarted shards has left, from its end. The row lock
decides whose a shard is: who takes it to run it demands that it is still its own group's. So a group that is slow, or
never started, holds up nothing but what it has in hand, and a thief that dies leaves shards that are simply its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection
from typing import Any

from collect_ops.storage import AsyncConnection, query

log = logging.getLogger(__name__)


class Stealing:
    """One group's side of it.

    Args:
        run_id: The Airflow run.
        group_no: The group that takes over.
        enabled: Whether it does; without other groups there is nothing to take over.
    """

    def __init__(self, run_id: str, group_no: int, *, enabled: bool) -> None:
        self._key = {"run_id": run_id, "group_no": group_no}
        self.enabled = enabled
        #: Held while shards come in or are dropped, so that none that has just come in is taken for one that has gone.
        self.lock = asyncio.Lock()
        self._in_vain = 0
        self._unsure = False

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """A worker's turn to look for more; False when another has looked in vain while it waited."""
        seen = self._in_vain
        async with self.lock:
            yield seen == self._in_vain

    async def steal(self, connection: AsyncConnection, unfit: Collection[int]) -> list[dict[str, Any]]:
        """Take over a block of shards; returns their rows, none when nobody has any that are unstarted.

        Until `settled` is called, the next steal looks first for what this one has taken: it may have been committed
        though its answer was lost.

        Args:
            connection: Any.
            unfit: Tasks that this group cannot run.
        """
        if self._unsure and (rows := await self._own_unstarted(connection)):
            return rows
        self._unsure = True
        values = {**self._key, "unfit": list(unfit)}
        rows = await (await connection.execute(query("execution/steal_shards"), values)).fetchall()
        if not rows:
            self._in_vain += 1
            return []
        log.info("took over %d shards of group %s", len(rows), rows[0]["stolen_from"])
        return rows

    def settled(self) -> None:
        """What the last steal has taken is in the group's hands."""
        self._unsure = False

    async def _own_unstarted(self, connection: AsyncConnection) -> list[dict[str, Any]]:
        rows = await (await connection.execute(query("execution/select_group_shards"), self._key)).fetchall()
        return [row for row in rows if row["status"] == "PENDING"]

    async def owned(self, connection: AsyncConnection) -> set[tuple[int, int]]:
        """Task and number of every shard that is this group's."""
        rows = await (await connection.execute(query("execution/select_owned"), self._key)).fetchall()
        return {(row["task_id"], row["shard_no"]) for row in rows}


async def handed_over(
    connection: AsyncConnection, task_id: int, shard_no: int, *, run_id: str, group_no: int
) -> bool:
    """Whether another group of the same run has taken a shard over; if one of another run has, the attempt is over.

    Args:
        connection: Any.
        task_id: The collect task.
        shard_no: Its shard.
        run_id: The run of the group that had it.
        group_no: That group.
    """
    values = {"task_id": task_id, "shard_no": shard_no}
    row = await (await connection.execute(query("execution/select_owner"), values)).fetchone()
    return row is not None and row["run_id"] == run_id and row["group_no"] != group_no
