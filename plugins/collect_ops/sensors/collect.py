"""Waiting for a collect task in any DAG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator, Context

from collect_ops.triggers.collect import CollectTaskTrigger, TaskEnd


class CollectTaskSensor(BaseOperator):
    """Waits, deferred, until a collect task has ended.

    Args:
        collect_task_id: The collect task; a template, such as an XCom of `CollectSubmitOperator`.
        accepted: Ends that count as success.
        poll_interval_s: Seconds between two looks.

    Example::

        CollectTaskSensor(task_id="wait", collect_task_id="{{ ti.xcom_pull('submit')['task_id'] }}")
    """

    template_fields = ("collect_task_id",)
    ui_color = "#e8e0f5"

    def __init__(
        self,
        *,
        collect_task_id: int | str,
        accepted: Sequence[str] = ("COMPLETED",),
        poll_interval_s: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.collect_task_id = collect_task_id
        self.accepted = tuple(accepted)
        self.poll_interval_s = poll_interval_s

    def execute(self, context: Context) -> None:
        """Defers until the task has ended."""
        trigger = CollectTaskTrigger(
            collect_task_id=int(self.collect_task_id), poll_interval_s=self.poll_interval_s
        )
        self.defer(trigger=trigger, method_name="finish", timeout=self.execution_timeout)

    def finish(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Called when the task has ended; returns how."""
        TaskEnd(**event).demand(self.accepted)
        return event
