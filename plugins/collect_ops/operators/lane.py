"""The operators of lane and collect DAGs: claim, plan, run a shard group, settle, sweep."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, BaseXCom, Context
from airflow.sdk.configuration import conf as airflow_settings
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from collect_ops.delivery import table_events
from collect_ops.execution.finish import finish_run
from collect_ops.execution.group import run_group
from collect_ops.execution.plan import TaskAttempt, plan
from collect_ops.execution.run_verdict import HEADING, NOTE_CHARS, RunVerdict, deliver_verdict
from collect_ops.hooks.backends import backends, endpoint, reports
from collect_ops.hooks.task_runs import TaskRuns
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.lanes.claim import claim
from collect_ops.lanes.rules import lane_rules
from collect_ops.lanes.waking import wake_waiting
from collect_ops.nodes.machine import node_id_of
from collect_ops.operators.actor import actor_of
from collect_ops.operators.refusal import refuse
from collect_ops.orchestrator.errors import AirflowUnavailable
from collect_ops.orchestrator.port import Reports
from collect_ops.storage import DatabaseUnavailable, errors

#: Shard groups run at a lower operating-system priority than the scheduler, so that a loaded machine still starts
#: urgent work (measured under two cores of pure CPU load: publish to claim 0.70 s without, 0.44 s with it).
SHARD_GROUP_NICENESS = 10
#: Seconds that a run's last task spends on telling Airflow how the run ended; the sweep does what was not done.
REPORT_LIMIT_S = 2.0


def give_way(context: Context) -> None:
    """Plan or settle a run at a lower operating-system priority, the lower the less urgent its lane is.

    Of a backlog's runs these are processes that compete with the few that start urgent work.
    """
    lane = (context["dag_run"].conf or {}).get("lane")
    lanes = lane_rules().lanes
    if lane in lanes:
        os.nice(max(each.priorities[1] for each in lanes.values()) - lanes[lane].priorities[1])


def tasks_of(context: Context) -> list[TaskAttempt]:
    """The collect tasks that a run's conf names.

    Raises:
        ValidationFailed: The conf is not one that a claim writes.
    """
    conf = context["dag_run"].conf or {}
    try:
        return [TaskAttempt(task_id=int(t["task_id"]), attempt=int(t["attempt"])) for t in conf["tasks"]]
    except (KeyError, TypeError, ValueError) as error:
        problem = (
            'must be a list such as [{"task_id": 1, "attempt": 1}], which the claim of a lane writes: '
            "this DAG collects what a claim has taken; to collect something, trigger collect_submit"
        )
        fault = Fault(field="conf.tasks", value=conf.get("tasks"), problem=problem)
        raise ValidationFailed("collect run", (fault,)) from error


class ClaimLaneOperator(BaseOperator):
    """Claims what a lane has room for and starts its collect runs.

    Args:
        lane: Lane name.
    """

    template_fields = ("lane",)
    ui_color = "#dbe7f5"

    def __init__(self, *, lane: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lane = lane

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns what the claim did, counted."""
        done = claim(self.lane, backends(), lane_rules(), TaskRuns(), actor=actor_of(context))
        return {
            "runs": [run.run_id for run in done.runs],
            "claimed": done.claimed,
            "held": done.held,
            "deferred": done.deferred,
            "stale": done.stale,
            "orphans": done.orphans,
            "malformed": done.malformed,
            "room": done.room,
        }


class PlanRunOperator(BaseOperator):
    """First task of a collect run: counts, shards, deals the shards to groups.

    Skipped when the run has no claim to its tasks any more.
    """

    ui_color = "#dbe7f5"

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Returns the shard groups, as keyword arguments of `ShardGroupOperator`."""
        give_way(context)
        run_id = context["dag_run"].run_id
        try:
            tasks = tasks_of(context)
        except ValidationFailed as error:
            self._note_refusal(context, error)
            refuse(context, error)
        planned = plan(tasks, run_id, backends(), lane_rules(), cache(endpoint), actor=actor_of(context))
        if planned.skipped and not planned.groups:
            raise AirflowSkipException("; ".join(planned.skipped))
        return [{"run_id": g.run_id, "group_no": g.group_no, "group_label": g.label} for g in planned.groups]

    def _note_refusal(self, context: Context, error: ValidationFailed) -> None:
        """Where whoever triggered this DAG by hand looks first."""
        run = context["dag_run"]
        note = f"{HEADING} {'; '.join(map(str, error.faults))}"
        try:
            reports(limit_s=REPORT_LIMIT_S).write_note(run.dag_id, run.run_id, note[:NOTE_CHARS])
        except AirflowUnavailable as away:
            self.log.warning("the run's note is not written: %s", away)


class ShardGroupOperator(BaseOperator):
    """Runs one shard group; expanded over what `PlanRunOperator` returns.

    Args:
        run_id: The run that the group belongs to.
        group_no: Its number in the run.
        group_label: What the mapped instance is called (`flights 0-49,999`). Not `label`: a serialized operator has a
            property of that name, and Airflow cannot read the DAG back.
    """

    template_fields = ("run_id", "group_no", "group_label")
    ui_color = "#d9efe0"

    def __init__(self, *, run_id: str, group_no: int, group_label: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.group_no = group_no
        self.group_label = group_label

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns rows, shards by outcome and seconds; skipped when the group is closed."""
        os.nice(SHARD_GROUP_NICENESS)
        runs, own = TaskRuns(), backends()
        result = asyncio.run(
            run_group(
                self.run_id,
                self.group_no,
                own,
                lane_rules(),
                # The api-server is asked once, not for each of the tasks that share the group.
                cache(endpoint),
                node=node_id_of(os.environ.get("COLLECT_NODE_ID")),
                actor=actor_of(context),
            )
        )
        if result.skipped:
            raise AirflowSkipException(result.skipped)
        given = context["dag_run"].conf or {}
        lanes = {given["lane"], *(lane for each in result.settled for lane in each.lanes)}
        wake_waiting(lanes, own, lane_rules(), runs)
        return {
            "rows": result.rows,
            "unchanged_rows": result.unchanged_rows,
            "done": result.done,
            "failed": result.failed,
            "fenced": result.fenced,
            "taken_over": result.stolen,
            "handed_over": result.handed_over,
            "deferred": result.deferred,
            "bytes": result.bytes,
            "seconds": result.seconds,
        }


class SettleRunOperator(BaseOperator):
    """Last task of a collect run: settles what its shard groups have not, and wakes the lanes that got room or work.

    Its own end is the run's: it fails when a task of the run ended DEAD, after everything else is done.
    """

    ui_color = "#f5ecd7"

    def execute(self, context: Context) -> None:
        """Pushes the tasks settled here.

        Raises:
            AirflowFailException: A collect task of the run is DEAD; the run's note says which, and what to do.
        """
        give_way(context)
        own = backends()
        run_id = context["dag_run"].run_id
        try:
            tasks = tasks_of(context)
        except ValidationFailed as error:
            refuse(context, error)
        settled = finish_run(tasks, run_id, own, lane_rules(), actor=actor_of(context))
        wake_waiting({lane for each in settled for lane in each.lanes}, own, lane_rules(), TaskRuns())
        result = [
            {"task_id": s.task_id, "attempt": s.attempt, "status": str(s.status), "reason": s.reason}
            for s in settled
        ]
        # Pushed, not returned: what a failed task returns is lost.
        context["ti"].xcom_push(BaseXCom.XCOM_RETURN_KEY, result)
        open_reports = cache(lambda: reports(limit_s=REPORT_LIMIT_S))
        verdict = self._deliver_verdict(run_id, own, open_reports)
        self._send_table_events(own, open_reports)
        if verdict is not None and verdict.dead:
            raise AirflowFailException(verdict.sentence())

    def _deliver_verdict(
        self, run_id: str, own: Backends, open_reports: Callable[[], Reports]
    ) -> RunVerdict | None:
        """None when it could not be read: the sweep delivers it."""
        try:
            return deliver_verdict(run_id, own, open_reports)
        except (DatabaseUnavailable, errors.OperationalError) as error:
            self.log.error("the verdict on this run is left to the sweep: %s", error)
            return None

    def _send_table_events(self, own: Backends, open_reports: Callable[[], Reports]) -> None:
        """The rows of this run are in their tables: who is scheduled on them need not wait for the sweep."""
        try:
            table_events.run_once(own, open_reports, limited=True)
        except (AirflowUnavailable, ExceptionGroup, DatabaseUnavailable, errors.OperationalError) as error:
            self.log.warning("the tables' asset events are left to the sweep: %s", error)


class SweepOperator(BaseOperator):
    """The sweep: outbox, repair, and a wake-up for every lane with messages and room."""

    ui_color = "#f5ecd7"

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns what the passes did, counted."""
        from collect_ops.delivery.sweep import sweep

        actor = actor_of(context)
        logs = Path(airflow_settings.get("logging", "base_log_folder"))
        swept = sweep(backends(), lane_rules(), TaskRuns(), actor=actor, open_reports=reports, logs=logs)
        return swept.as_counts()
