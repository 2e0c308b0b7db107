"""The operators of lane and collect DAGs: claim, plan, run a shard group, settle, sweep."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from collect_ops.execution.finish import finish_run
from collect_ops.execution.group import run_group
from collect_ops.execution.plan import TaskAttempt, plan
from collect_ops.hooks.backends import backends, endpoint
from collect_ops.hooks.task_runs import TaskRuns
from collect_ops.lanes.claim import claim
from collect_ops.lanes.rules import lane_rules
from collect_ops.lanes.waking import wake_waiting
from collect_ops.nodes.machine import node_id_of
from collect_ops.operators.actor import actor_of

#: Shard groups run at a lower operating-system priority than the scheduler, so that a loaded machine still starts
#: urgent work (measured under two cores of pure CPU load: publish to claim 0.70 s without, 0.44 s with it).
SHARD_GROUP_NICENESS = 10


def tasks_of(context: Context) -> list[TaskAttempt]:
    """The collect tasks that a run's conf names.

    Raises:
        ValueError: The conf is not one that a claim writes.
    """
    conf = context["dag_run"].conf or {}
    try:
        return [TaskAttempt(task_id=int(t["task_id"]), attempt=int(t["attempt"])) for t in conf["tasks"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'conf must be {{"tasks": [{{"task_id": 1, "attempt": 1}}]}}, as a claim writes it; got {conf!r}. '
            f"To collect something, start collect_submit instead"
        ) from error


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
        run_id = context["dag_run"].run_id
        planned = plan(tasks_of(context), run_id, backends(), lane_rules(), endpoint, actor=actor_of(context))
        if planned.skipped and not planned.groups:
            raise AirflowSkipException("; ".join(planned.skipped))
        return [{"run_id": g.run_id, "group_no": g.group_no, "group_label": g.label} for g in planned.groups]


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
                endpoint,
                node=node_id_of(os.environ.get("COLLECT_NODE_ID")),
                actor=actor_of(context),
            )
        )
        if result.skipped:
            raise AirflowSkipException(result.skipped)
        conf = context["dag_run"].conf or {}
        lanes = {conf["lane"], *(lane for each in result.settled for lane in each.lanes)}
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
    """Last task of a collect run: settles what its shard groups have not, and wakes the lanes that got room or work."""

    ui_color = "#f5ecd7"

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Returns the tasks settled here."""
        own = backends()
        run_id = context["dag_run"].run_id
        settled = finish_run(tasks_of(context), run_id, own, lane_rules(), actor=actor_of(context))
        wake_waiting({lane for each in settled for lane in each.lanes}, own, lane_rules(), TaskRuns())
        return [
            {"task_id": s.task_id, "attempt": s.attempt, "status": str(s.status), "reason": s.reason}
            for s in settled
        ]


class SweepOperator(BaseOperator):
    """The sweep: outbox, repair, and a wake-up for every lane with messages and room."""

    ui_color = "#f5ecd7"

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns what the passes did, counted."""
        from collect_ops.delivery.sweep import sweep

        return sweep(backends(), lane_rules(), TaskRuns(), actor=actor_of(context)).as_counts()
