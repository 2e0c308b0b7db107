"""Waiting for the end of a collect task without a worker slot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any

from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from collect_ops.hooks.backends import backends_of_async
from collect_ops.tasks.waiting import TaskEnd, TaskEnds


class CollectTaskFailed(AirflowFailException):
    """A collect task that was waited for ended in another way than was asked for: waiting again changes nothing."""


class CollectTaskTrigger(BaseTrigger):
    """Fires when a collect task has ended; all that wait in a triggerer share one query a second.

    Args:
        collect_task_id: The collect task. Not `task_id`: BaseTrigger sets that to the Airflow task that waits.
    """

    def __init__(self, collect_task_id: int) -> None:
        super().__init__()
        self.collect_task_id = collect_task_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return "collect_ops.triggers.collect.CollectTaskTrigger", {"collect_task_id": self.collect_task_id}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until the task has ended."""
        backends = await backends_of_async()
        yield TriggerEvent(asdict(await TaskEnds.shared(backends.postgres_dsn).wait(self.collect_task_id)))


def demand(event: dict[str, Any], accepted: Sequence[str]) -> None:
    """Check that a task ended as was asked for.

    Args:
        event: Of `CollectTaskTrigger`.
        accepted: Ends that count as success.

    Raises:
        CollectTaskFailed: It ended otherwise.
    """
    end = TaskEnd(**event)
    if end.status not in accepted:
        raise CollectTaskFailed(
            f"task {end.task_id} ended {end.status}: {end.reason or 'no reason given'}; "
            f"accepted: {', '.join(accepted)}"
        )
