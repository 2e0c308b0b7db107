"""Submitting collect tasks from DAGs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import orjson
import pydantic
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException

from collect_ops.admission.model import Admission, Submission
from collect_ops.admission.service import AdmissionService
from collect_ops.hooks.backends import backends
from collect_ops.hooks.task_runs import TaskRuns
from collect_ops.kernel.errors import CollectOpsError, Fault, Permanent, ValidationFailed, did_you_mean
from collect_ops.lanes.brakes import AdmissionSlowed
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
        conf_keys: The keys that the run's conf may have, when the arguments are templates over it: another one is
            refused, since Airflow would leave a misspelt one unread. None does not look at the conf.

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
        conf_keys: Sequence[str] | None = None,
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
        self.conf_keys = None if conf_keys is None else tuple(conf_keys)

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns `{"task_id", "status", "duplicate_of", "message"}`.

        Raises:
            AirflowFailException: The submission can never be admitted: Airflow does not try again.
            AdmissionSlowed: The source has a backlog; a scheduled submission waits (deferred) instead and tries again.
            CollectOpsError: It could not be admitted now.
        """
        try:
            admission = AdmissionService(backends(), lane_rules(), TaskRuns()).admit(
                self._submission(context)
            )
        except AdmissionSlowed as error:
            if self.submitted_via != "schedule":
                raise
            self.log.warning("%s", error)
            again = TimeDeltaTrigger(timedelta(seconds=error.retry_after_s))
            self.defer(trigger=again, method_name="submit_again")
        except CollectOpsError as error:
            if isinstance(error, Permanent):
                raise AirflowFailException(str(error)) from error
            raise
        self.log.info("%s", admission.sentence())
        if self.wait_for_completion:
            trigger = CollectTaskTrigger(collect_task_id=admission.task_id)
            self.defer(trigger=trigger, method_name="finish", timeout=self.execution_timeout)
        return answer_of(admission)

    def submit_again(self, context: Context, event: object = None) -> dict[str, Any]:
        """Called when a scheduled submission, which a backlog rule refused, may try again."""
        return self.execute(context)

    def finish(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Called when the task has ended."""
        demand(event, self.accepted)
        return event

    def _submission(self, context: Context) -> Submission:
        """What is submitted.

        Raises:
            ValidationFailed: An argument, or a template's result, is not what it should be.
        """
        ti = context["ti"]
        if self.conf_keys is not None:
            _refuse_unknown(context["dag_run"].conf or {}, self.conf_keys)
        try:
            return Submission(
                source=self.source,
                params=_object("params", self.collect_params),
                path=_rendered(self.path),
                priority=_rendered(self.priority),
                force=self.force,
                request_id=f"airflow:{ti.dag_id}:{ti.run_id}:{ti.task_id}:{ti.map_index}",
                submitted_by=f"airflow:{ti.dag_id}",
                submitted_via=self.submitted_via,
                identity=_object("identity", self.identity),
            )
        except pydantic.ValidationError as error:
            faults = [
                Fault(field=".".join(map(str, each["loc"])), value=each["input"], problem=each["msg"])
                for each in error.errors(include_url=False)
            ]
            raise ValidationFailed("submission", faults) from error


def _refuse_unknown(conf: Mapping[str, Any], known: Sequence[str]) -> None:
    faults = []
    for name in sorted(set(conf) - set(known)):
        close = did_you_mean(name, known)
        hint = f"; did you mean {close!r}?" if close else ""
        problem = f"is not a parameter of this DAG: it has {', '.join(known)}{hint}"
        faults.append(Fault(field=f"conf.{name}", value=conf[name], problem=problem))
    if faults:
        raise ValidationFailed("submission", faults)


def _rendered(value: Any) -> Any:
    """A template's result: without native rendering, nothing is the text `None`, or no text at all."""
    return None if value in ("", "None") else value


def _object(field: str, value: object) -> Mapping[str, Any]:
    """A JSON object; without native rendering a template gives it as text."""
    try:
        found = orjson.loads(value) if isinstance(value, str) and value.strip() else value
    except orjson.JSONDecodeError as error:
        fault = Fault(field=field, value=value, problem=f"must be a JSON object: {error}")
        raise ValidationFailed("submission", (fault,)) from error
    if found is None or found == "":
        return {}
    if not isinstance(found, Mapping):
        raise ValidationFailed(
            "submission", (Fault(field=field, value=value, problem="must be a JSON object"),)
        )
    return found


def answer_of(admission: Admission) -> dict[str, Any]:
    """What a submission's caller reads from XCom."""
    return {
        "task_id": admission.task_id,
        "status": str(admission.status),
        "duplicate_of": admission.duplicate_of,
        "message": admission.sentence(),
    }
