"""The nodes as placement sees them, out of the registry, with what Redis knows more freshly."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from collect_ops.coordination.liveness import Liveness, LivenessUnknown
from collect_ops.kernel.backends import Backends
from collect_ops.nodes.placement import Node
from collect_ops.nodes.rules import PlacementRules
from collect_ops.nodes.status import Figures, NodeStatus
from collect_ops.storage import Connection, query

log = logging.getLogger(__name__)


def inventory(connection: Connection, backends: Backends, rules: PlacementRules) -> list[Node]:
    """All nodes that ever said that they live; one read of the registry, one or two round trips to Redis.

    A node whose liveness key is gone is `silent` before the registry calls it LOST, unless Redis may have lost keys.

    Args:
        connection: To the collect_ops database.
        backends: Where Redis is.
        rules: How long a key lives.
    """
    return fresh(registered(connection), Liveness(backends.redis_url, rules.heartbeat.alive_s))


def registered(connection: Connection) -> list[Node]:
    """All nodes as the registry knows them."""
    return [_node(row) for row in connection.execute(query("nodes/select_placeable")).fetchall()]


def fresh(nodes: Sequence[Node], liveness: Liveness) -> list[Node]:
    """Nodes with those marked silent whose liveness keys are gone; as they were when Redis cannot say."""
    active = [node.node_id for node in nodes if node.status is NodeStatus.ACTIVE]
    if not active:
        return list(nodes)
    try:
        ages = liveness.ages(active)
        missing = len(active) - len(ages)
        # Most keys gone at once: it is Redis that was away, and their holders will be back.
        if missing == 0 or 2 * missing > len(active) or liveness.keys_lost():
            return list(nodes)
    except LivenessUnknown as error:
        log.warning("placing by the registry alone: %s", error)
        return list(nodes)
    return [replace(node, silent=node.node_id not in ages) for node in nodes]


def _node(row: Mapping[str, Any]) -> Node:
    held_back_s = row["held_back_s"]
    return Node(
        node_id=row["id"],
        status=NodeStatus(row["status"]),
        figures=Figures(
            cpu_percent=row["cpu_percent"],
            memory_percent=row["memory_percent"],
            disk_percent=row["disk_percent"],
        ),
        labels=row["labels"],
        kinds=tuple(row["kinds"]),
        slots=row["slots"],
        groups=row["groups"],
        held_back_s=held_back_s if held_back_s is not None and held_back_s > 0 else None,
    )
