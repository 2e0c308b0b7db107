"""Names of the Celery queues that nodes serve. Pure."""

from __future__ import annotations

import re

from collect_ops.nodes.heartbeat import NODE_ID

#: Topic exchange that shard groups for nodes go through.
EXCHANGE = "collect.nodes"
_QUEUE_PREFIX = "node."
_NODE_ID = re.compile(NODE_ID)


def is_node_id(value: object) -> bool:
    """Whether a value can be the id of a node."""
    return isinstance(value, str) and _NODE_ID.match(value) is not None and not value.endswith("\n")


def node_queue(node_id: str) -> str:
    """The queue that a node's worker serves."""
    return f"{_QUEUE_PREFIX}{node_id}"


def node_of_queue(queue: str) -> str | None:
    """The node that serves a queue; None when it is no node's."""
    node_id = queue.removeprefix(_QUEUE_PREFIX)
    return node_id if node_id != queue and is_node_id(node_id) else None


def routing_key(node_id: str) -> str:
    """What shard groups for a node are published with."""
    return f"task.node.{node_id}"
