"""Waiting for a collect task in any DAG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator, Context

from collect_ops.triggers.collect import CollectTaskTrigger, demand


class CollectTaskSensor(BaseOperator):
    """Waits, deferred, until a collect task has ended.

    Args:
        collect_task_id: The collect task; a template, such as an XCom of `CollectSubmitOperator`.
        accepted: Ends that count as success.

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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.collect_task_id = collect_task_id
        self.accepted = tuple(accepted)

    def execute(self, context: Context) -> None:
        """Defers until the task has ended."""
        trigger = CollectTaskTrigger(collect_task_id=int(self.collect_task_id))
        self.defer(trigger=trigger, method_name="finish", timeout=self.execution_timeout)

    def finish(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Called when the task has ended; returns how."""
        demand(event, self.accepted)
        return event
