"""The operator of the nodes' registry."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator, Context

from collect_ops.hooks.backends import backends
from collect_ops.lanes.rules import lane_rules


class IngestHeartbeatsOperator(BaseOperator):
    """Takes in the heartbeats that wait, and works out which nodes live."""

    ui_color = "#e3f0e0"

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns what was done, counted in heartbeats and nodes, and the nodes that changed their state."""
        from collect_ops.nodes.registry import Names, run_once
        from collect_ops.nodes.rules import placement_rules

        broker = lane_rules().broker
        names = Names(queue=broker.heartbeats, dead_exchange=broker.dead_queue)
        return run_once(backends(), placement_rules(), names).as_counts()
