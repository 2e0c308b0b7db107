"""The node agent of this machine, which runs the scheduler's workers."""

from __future__ import annotations

import os

from collect_ops.coordination import keys
from collect_ops.lanes.rules import lane_rules
from collect_ops.nodes.machine import node_id_of
from stack import environment as environments
from stack.settings import Stack


def slots() -> int:
    """Shard groups that the lanes' pools let run at once."""
    return sum(lane.slots for lane in lane_rules().lanes.values())


def environment(stack: Stack) -> dict[str, str]:
    """What the agent gets: what Airflow's processes get, and where data lies."""
    return {**environments.airflow(stack), "COLLECT_NODE_PATH": str(stack.layout.home)}


def liveness_key() -> str:
    """The key that the agent renews."""
    return keys.node(node_id_of(os.environ.get("COLLECT_NODE_ID")))
