"""The node agent of this machine, which runs the scheduler's workers."""

from __future__ import annotations

import os

from collect_ops.coordination import keys
from collect_ops.nodes.machine import node_id_of
from stack import environment as environments
from stack.settings import Stack


def environment(stack: Stack) -> dict[str, str]:
    """What the agent gets: what Airflow's processes get, and where data lies."""
    return {**environments.airflow(stack), "COLLECT_NODE_PATH": str(stack.layout.home)}


def liveness_key(node_id: str | None = None) -> str:
    """The key that the agent of a node renews; of this machine, when none is named."""
    return keys.node(node_id_of(node_id or os.environ.get("COLLECT_NODE_ID")))
