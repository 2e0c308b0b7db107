"""The operator of the AMQP inbox."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator, Context

from collect_ops.hooks.backends import backends
from collect_ops.hooks.task_runs import TaskRuns
from collect_ops.lanes.rules import lane_rules


class AdmitInboxOperator(BaseOperator):
    """Admits what producers have published to the inbox, for some seconds; starts another run when there is more."""

    ui_color = "#e8e0f5"

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns what was done, counted in messages."""
        from collect_ops.admission.inbox import run_once, wake_inbox

        own, runs = backends(), TaskRuns()
        done = run_once(own, lane_rules(), runs)
        if done.more and not done.left:
            wake_inbox(own, lane_rules(), runs)
        return done.as_counts()
