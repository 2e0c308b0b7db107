"""Submitting collect tasks from DAGs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import BaseOperator, Context

from collect_ops.admission.model import Admission, Submission
from collect_ops.admission.service import AdmissionService
from collect_ops.hooks.backends import backends
from collect_ops.hooks.task_runs import TaskRuns
from collect_ops.lanes.rules import lane_rules
from collect_ops.triggers.collect import CollectTaskTrigger, demand


class CollectSubmitOperator(BaseOperator):
    """Submits a collect task; waits for its end without a worker slot when asked to.

    An Airflow retry of the same task instance gets the first answer again: its request id is the DAG, run, task and
    map index.

    Args:
        source: Name of the source.
        collect_params: Values for the source's parameters.
        path: Instead of the source's path.
        priority: 0-10; None takes the source's.
        force: Admit even when an equal task holds the dedup key.
        identity: What makes this submission another one than its equals, such as a data interval.
        submitted_via: The way in, for the log.
        wait_for_completion: Wait (deferred) until the task has ended.
        accepted: Ends that count as success when waiting.

    Example::

        CollectSubmitOperator(task_id="collect", source="flights", priority=7, wait_for_completion=True)
    """

    template_fields = ("source", "collect_params", "path", "priority", "force", "identity")
    ui_color = "#e8e0f5"

    def __init__(
        self,
        *,
        source: str,
        collect_params: Mapping[str, Any] | str | None = None,
        path: str | None = None,
        priority: int | None = None,
        force: bool | str = False,
        identity: Mapping[str, Any] | None = None,
        submitted_via: str = "operator",
        wait_for_completion: bool = False,
        accepted: Sequence[str] = ("COMPLETED",),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.collect_params = collect_params
        self.path = path
        self.priority = priority
        self.force = force
        self.identity = identity
        self.submitted_via = submitted_via
        self.wait_for_completion = wait_for_completion
        self.accepted = tuple(accepted)

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns `{"task_id", "status", "duplicate_of", "message"}`."""
        admission = AdmissionService(backends(), lane_rules(), TaskRuns()).admit(self._submission(context))
        self.log.info("%s", admission.sentence())
        if self.wait_for_completion:
            trigger = CollectTaskTrigger(collect_task_id=admission.task_id)
            self.defer(trigger=trigger, method_name="finish", timeout=self.execution_timeout)
        return answer_of(admission)

    def finish(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Called when the task has ended."""
        demand(event, self.accepted)
        return event

    def _submission(self, context: Context) -> Submission:
        ti = context["ti"]
        return Submission(
            source=self.source,
            params=self.collect_params if isinstance(self.collect_params, Mapping) else {},
            path=self.path or None,
            priority=self.priority,
            force=bool(self.force),
            request_id=f"airflow:{ti.dag_id}:{ti.run_id}:{ti.task_id}:{ti.map_index}",
            submitted_by=f"airflow:{ti.dag_id}",
            submitted_via=self.submitted_via,
            identity=self.identity or {},
        )


def answer_of(admission: Admission) -> dict[str, Any]:
    """What a submission's caller reads from XCom."""
    return {
        "task_id": admission.task_id,
        "status": str(admission.status),
        "duplicate_of": admission.duplicate_of,
        "message": admission.sentence(),
    }
