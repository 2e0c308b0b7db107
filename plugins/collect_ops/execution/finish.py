"""The end of a collect run: whatever its shard groups have not settled is settled now."""

from __future__ import annotations

from collections.abc import Sequence

from collect_ops.execution.plan import TaskAttempt
from collect_ops.execution.settle import Settled, settle_on
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import LaneRules
from collect_ops.storage import connect, query


def finish_run(
    tasks: Sequence[TaskAttempt], run_id: str, backends: Backends, rules: LaneRules, *, actor: str
) -> list[Settled]:
    """Settle a run's tasks and close its groups. The run's shard groups have all ended, one way or another.

    Args:
        tasks: The tasks that the run's conf names; those that are another run's are not touched.
        run_id: The Airflow run.
        backends: Where the services are.
        rules: Lane rules.
        actor: Who settles, for the task log.

    Returns:
        The tasks that were settled here; those that a shard group settled before are not among them.
    """
    with connect(backends.postgres_dsn, application_name="collect-ops settle") as connection:
        settled = [
            settle_on(
                connection, t.task_id, t.attempt, backends, rules, actor=actor, run_over=True, run_id=run_id
            )
            for t in tasks
        ]
        connection.execute(query("execution/close_groups"), {"run_id": run_id})
    return [each for each in settled if each is not None]
