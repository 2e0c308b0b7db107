"""Claiming where somebody has just submitted: no run of the lane's DAG has to be started for that."""

from __future__ import annotations

import logging

from collect_ops.hooks.task_runs import TaskRuns
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import CollectOpsError
from collect_ops.lanes.claim import claim
from collect_ops.lanes.rules import lane_rules
from collect_ops.lanes.runs import lane_dag_id
from collect_ops.storage import errors

log = logging.getLogger(__name__)


def claim_here(lane: str, *, services: Backends, runs: TaskRuns, actor: str) -> bool:
    """Claim from a lane within the present task; returns whether that was done.

    Starting a run takes Airflow half a second, and twice that on a busy machine. Where nothing can be claimed from here
    (the lane is paused, another claim is at work, a service is away) the lane's own run claims, as ever.

    Args:
        lane: Lane name.
        services: Where the services are.
        runs: The present task's runs.
        actor: Who claims, for the task log.
    """
    try:
        return (
            runs.accepts(lane_dag_id(lane))
            and not claim(lane, services, lane_rules(), runs, actor=actor).busy
        )
    except (CollectOpsError, errors.Error) as error:
        # The task is admitted, and its message is in the queue: that is no reason to fail the submission.
        log.warning("lane %s is left to its own run", lane, exc_info=error)
        return False
