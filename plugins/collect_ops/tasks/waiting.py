"""Waiting for the ends of many tasks at the price of one query per interval.

A triggerer may hold a thousand waiting DAG runs: a connection and a query each would be a thousand a second.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from dataclasses import dataclass
from typing import Any

from collect_ops.storage import DatabaseUnavailable, connect_async, errors, query

log = logging.getLogger(__name__)

_MAX_PAUSE_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnd:
    """How a collect task ended.

    Args:
        status: A final status; `MISSING` when there is no such task.
    """

    task_id: int
    status: str
    reason: str | None
    rows_landed: int
    bad_rows: int


class TaskEnds:
    """The ends of tasks, looked up together.

    Args:
        dsn: Of the collect_ops database.
        interval_s: Seconds between two looks.
    """

    def __init__(self, dsn: str, *, interval_s: float = 1.0) -> None:
        self._dsn = dsn
        self._interval_s = interval_s
        self._waiting: dict[int, list[asyncio.Future[TaskEnd]]] = {}
        self._looking: asyncio.Task[None] | None = None

    @classmethod
    def shared(cls, dsn: str) -> TaskEnds:
        """The one of the running event loop and database."""
        of_loop = _SHARED.setdefault(asyncio.get_running_loop(), {})
        if dsn not in of_loop:
            of_loop[dsn] = cls(dsn)
        return of_loop[dsn]

    async def wait(self, task_id: int) -> TaskEnd:
        """Wait until a task has ended; a database that is away is waited for.

        Raises:
            psycopg.Error: The database answers, and refuses the question.
        """
        future: asyncio.Future[TaskEnd] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(task_id, []).append(future)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_until_done())
            self._looking.add_done_callback(self._tell_failure)
        try:
            return await future
        finally:
            futures = self._waiting.get(task_id, [])
            if future in futures:
                futures.remove(future)
            if not futures:
                self._waiting.pop(task_id, None)

    async def _look_until_done(self) -> None:
        pause_s = self._interval_s
        while self._waiting:
            try:
                async with await connect_async(self._dsn, application_name="collect-ops wait") as connection:
                    while self._waiting:
                        cursor = await connection.execute(
                            query("tasks/select_ends"), {"ids": list(self._waiting)}
                        )
                        self._tell(await cursor.fetchall())
                        pause_s = self._interval_s
                        await asyncio.sleep(pause_s)
            except (DatabaseUnavailable, errors.OperationalError, errors.InterfaceError) as error:
                log.warning("the database is away, looking again in %.0f s: %s", pause_s, error)
                await asyncio.sleep(pause_s)
                pause_s = min(_MAX_PAUSE_S, pause_s * 2)

    def _tell_failure(self, looking: asyncio.Task[None]) -> None:
        """A look that has failed for good is everybody's failure: they would wait for ever."""
        error = None if looking.cancelled() else looking.exception()
        if error is None:
            return
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)

    def _tell(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            end = TaskEnd(
                task_id=row["id"],
                status=row["status"],
                reason=row["reason"],
                rows_landed=row["rows_landed"],
                bad_rows=row["bad_rows"],
            )
            for future in self._waiting.get(end.task_id, []):
                if not future.done():
                    future.set_result(end)


_SHARED: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, TaskEnds]] = (
    weakref.WeakKeyDictionary()
)
