"""The backlog's evaluation as an Airflow task."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator, Context

from collect_ops.hooks.backends import backends, rest_runs
from collect_ops.lanes.backlog_rules import backlog_rules
from collect_ops.lanes.rules import lane_rules
from collect_ops.operators.actor import actor_of


class EvaluateBacklogOperator(BaseOperator):
    """Samples the backlog, and does and undoes what the rules of `include/rules/backlog.yaml` want."""

    ui_color = "#f5ecd7"

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns the backlog by lane and source, and what was done."""
        from collect_ops.lanes.backlog_actions import run_once
        from collect_ops.sources.load import is_sheddable

        return run_once(
            backends(),
            lane_rules(),
            backlog_rules(),
            rest_runs(),
            sheddable=is_sheddable,
            actor=actor_of(context),
        ).as_json()
