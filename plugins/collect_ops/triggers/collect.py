"""Waiting for the end of a collect task without a worker slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from collect_ops.hooks.backends import backends_of_async
from collect_ops.storage import DatabaseUnavailable, connect_async, errors
from collect_ops.tasks.lifecycle import TaskStatus
from collect_ops.tasks.progress import read_progress_async


class CollectTaskFailed(AirflowException):
    """A collect task that was waited for ended in another way than was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnd:
    """How a collect task ended; what the trigger's event carries."""

    task_id: int
    status: str
    reason: str | None
    rows_landed: int
    bad_rows: int

    def demand(self, accepted: Sequence[str]) -> None:
        """Check that the task ended as was asked for.

        Raises:
            CollectTaskFailed: It did not.
        """
        if self.status not in accepted:
            raise CollectTaskFailed(
                f"task {self.task_id} ended {self.status}: {self.reason or 'no reason given'}; "
                f"accepted: {', '.join(accepted)}"
            )


class CollectTaskTrigger(BaseTrigger):
    """Fires when a collect task has ended.

    Args:
        collect_task_id: The collect task.
        poll_interval_s: Seconds between two looks.
    """

    def __init__(self, collect_task_id: int, poll_interval_s: float = 2.0) -> None:
        super().__init__()
        # Not `task_id`: BaseTrigger sets that to the Airflow task waiting.
        self.collect_task_id = collect_task_id
        self.poll_interval_s = poll_interval_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return (
            "collect_ops.triggers.collect.CollectTaskTrigger",
            {"collect_task_id": self.collect_task_id, "poll_interval_s": self.poll_interval_s},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the task has ended; a database that is away is waited for."""
        dsn = (await backends_of_async()).postgres_dsn
        while True:
            try:
                end = await self._look(dsn)
            except (DatabaseUnavailable, errors.OperationalError) as error:
                self.log.warning("the database is away, looking again: %s", error)
                end = None
            if end is not None:
                yield TriggerEvent(asdict(end))
                return
            await asyncio.sleep(self.poll_interval_s)

    async def _look(self, dsn: str) -> TaskEnd | None:
        async with await connect_async(
            dsn, application_name=f"collect-ops wait {self.collect_task_id}"
        ) as connection:
            progress = await read_progress_async(connection, self.collect_task_id)
        if progress is None:
            return TaskEnd(
                task_id=self.collect_task_id,
                status="MISSING",
                reason="there is no such task",
                rows_landed=0,
                bad_rows=0,
            )
        if not TaskStatus(progress.status).final:
            return None
        return TaskEnd(
            task_id=self.collect_task_id,
            status=str(progress.status),
            reason=progress.reason,
            rows_landed=progress.rows_landed,
            bad_rows=progress.bad_rows,
        )
