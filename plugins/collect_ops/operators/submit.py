"""Submitting collect tasks from DAGs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import pydantic
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, Context

from collect_ops.admission.model import Admission, Preview, Submission
from collect_ops.admission.service import AdmissionService
from collect_ops.hooks.backends import backends
from collect_ops.hooks.task_runs import TaskRuns
from collect_ops.kernel.errors import CollectOpsError, Fault, ValidationFailed
from collect_ops.lanes.brakes import AdmissionSlowed
from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.actor import actor_of
from collect_ops.operators.claiming import claim_here
from collect_ops.operators.conf import (
    NOTHING,
    as_bool,
    as_object,
    as_objects,
    faults_of,
    refuse_unknown,
    rendered,
)
from collect_ops.operators.links import SourceRunsLink
from collect_ops.operators.refusal import refuse
from collect_ops.triggers.collect import CollectTaskTrigger, demand

#: Submissions of one batch at most, since their answers go to XCom. Files and the inbox take more.
MAX_BATCH = 1000


class CollectSubmitOperator(BaseOperator):
    """Submits a collect task; waits for its end without a worker slot when asked to.

    An Airflow retry of the same task instance gets the first answer again: its request id is the DAG, run, task and
    map index.

    Args:
        source: Name of the source.
        collect_params: Values for the source's parameters.
        path: Instead of the source's path.
        priority: 0-10; None takes the source's.
        emergency: Whether it is one: raises the priority by what the rules say.
        force: Admit even when an equal task holds the dedup key.
        identity: What makes this submission another one than its equals, such as a data interval.
        deadline: When the rows are needed at the latest: ISO 8601 with an offset.
        as_of: What relative defaults of parameters count from (`today - 1 day`): ISO 8601 with an offset; None for now.
        batch: Several submissions at once, each an object of values for the source's parameters, instead of
            `collect_params`: all of them are valid, or none is admitted.
        preview: Tell what would become of it, and change nothing. Not `dry_run`, which is a method of operators.
        submitted_via: The way in, for the log.
        wait_for_completion: Wait (deferred) until the task has ended.
        accepted: Ends that count as success when waiting.
        conf_keys: The keys that the run's conf may have, when the arguments are templates over it: another one is
            refused, since Airflow would leave a misspelt one unread. None does not look at the conf.

    Example::

        CollectSubmitOperator(task_id="collect", source="flights", priority=7, wait_for_completion=True)
    """

    template_fields = (
        "source",
        "collect_params",
        "path",
        "priority",
        "emergency",
        "force",
        "identity",
        "deadline",
        "as_of",
        "batch",
        "preview",
    )
    ui_color = "#e8e0f5"
    operator_extra_links = (SourceRunsLink(),)

    def __init__(
        self,
        *,
        source: str,
        collect_params: Mapping[str, Any] | str | None = None,
        path: str | None = None,
        priority: int | None = None,
        emergency: bool | str | None = False,
        force: bool | str | None = False,
        identity: Mapping[str, Any] | None = None,
        deadline: str | None = None,
        as_of: str | None = None,
        batch: Sequence[Mapping[str, Any]] | str | None = None,
        preview: bool | str | None = False,
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
        self.emergency = emergency
        self.force = force
        self.identity = identity
        self.deadline = deadline
        self.as_of = as_of
        self.batch = batch
        self.preview = preview
        self.submitted_via = submitted_via
        self.wait_for_completion = wait_for_completion
        self.accepted = tuple(accepted)
        self.conf_keys = None if conf_keys is None else tuple(conf_keys)

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns `{"task_id", "status", "duplicate_of", "declaration_changed", "merged_into", "message"}`.

        Of a batch it returns counts, and the above in `tasks`; of a preview what would be done, in `would`. What is
        refused fails, and pushes `{"error", "faults"}` before it does.

        Raises:
            AirflowFailException: The submission can never be admitted: Airflow does not try again.
            AdmissionSlowed: The source has a backlog; a scheduled submission waits (deferred) instead and tries again.
            CollectOpsError: It could not be admitted now.
        """
        services, runs = backends(), TaskRuns()
        claim = partial(claim_here, services=services, runs=runs, actor=actor_of(context))
        service = AdmissionService(services, lane_rules(), runs, claim_here=claim)
        try:
            submissions = self._submissions(context)
            if as_bool("preview", _given(self.preview)):
                return self._told(service, submissions)
            if self.batch not in NOTHING:
                return self._admit_all(service, submissions)
            admission = service.admit(submissions[0])
        except AdmissionSlowed as error:
            if self.submitted_via != "schedule":
                refuse(context, error)
            self.log.warning("%s", error)
            again = TimeDeltaTrigger(timedelta(seconds=error.retry_after_s))
            self.defer(trigger=again, method_name="submit_again")
        except CollectOpsError as error:
            refuse(context, error)
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

    def _told(self, service: AdmissionService, submissions: list[Submission]) -> dict[str, Any]:
        answers = service.preview(submissions)
        for answer in answers:
            self.log.info("%s", answer if isinstance(answer, CollectOpsError) else answer.sentence())
        return {"would": [outcome_of(answer) for answer in answers]}

    def _admit_all(self, service: AdmissionService, submissions: list[Submission]) -> dict[str, Any]:
        if self.wait_for_completion:
            fault = Fault(
                field="batch", value=len(submissions), problem="does not go with wait_for_completion"
            )
            raise ValidationFailed("submission", (fault,))
        admissions = service.admit_all(submissions)
        told = [answer_of(admission) for admission in admissions]
        counts = {
            "submitted": len(told),
            "duplicates": sum(admission.duplicate_of is not None for admission in admissions),
            "merged": sum(admission.merged_into is not None for admission in admissions),
        }
        self.log.info("%s", ", ".join(f"{name}: {count}" for name, count in counts.items()))
        return {**counts, "tasks": told}

    def _submissions(self, context: Context) -> list[Submission]:
        """What is submitted.

        Raises:
            ValidationFailed: An argument, or a template's result, is not what it should be.
        """
        ti = context["ti"]
        if self.conf_keys is not None:
            refuse_unknown(context["dag_run"].conf, self.conf_keys, "submission")
        request_id = f"airflow:{ti.dag_id}:{ti.run_id}:{ti.task_id}:{ti.map_index}"
        if self.batch in NOTHING:
            return [self._submission(ti, request_id, as_object("params", self.collect_params))]
        if self.collect_params not in NOTHING:
            fault = Fault(field="params", value=self.collect_params, problem="does not go with batch")
            raise ValidationFailed("submission", (fault,))
        many = as_objects("batch", self.batch, most=MAX_BATCH)
        return [self._submission(ti, f"{request_id}:{n}", params) for n, params in enumerate(many)]

    def _submission(self, ti: Any, request_id: str, params: Mapping[str, Any]) -> Submission:
        try:
            return Submission(
                source=self.source,
                params=params,
                path=rendered(self.path),
                priority=rendered(self.priority),
                emergency=_given(self.emergency),
                force=_given(self.force),
                request_id=request_id,
                submitted_by=f"airflow:{ti.dag_id}",
                submitted_via=self.submitted_via,
                identity=as_object("identity", self.identity),
                deadline=rendered(self.deadline),
                as_of=rendered(self.as_of),
            )
        except pydantic.ValidationError as error:
            raise ValidationFailed("submission", faults_of(error)) from error


def _given(value: Any) -> Any:
    """A flag that was left empty is not set."""
    return False if value in NOTHING else value


def answer_of(admission: Admission) -> dict[str, Any]:
    """What a submission's caller reads from XCom."""
    return {
        "task_id": admission.task_id,
        "status": str(admission.status),
        "duplicate_of": admission.duplicate_of,
        "declaration_changed": admission.declaration_changed,
        "merged_into": admission.merged_into,
        "message": admission.sentence(),
    }


def outcome_of(answer: Preview | CollectOpsError) -> dict[str, Any]:
    """What a dry run's caller reads from XCom, for one submission."""
    if isinstance(answer, CollectOpsError):
        return {"decision": "refused", "message": str(answer)}
    return {**answer.model_dump(mode="json"), "message": answer.sentence()}
