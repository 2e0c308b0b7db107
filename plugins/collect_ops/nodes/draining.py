"""Draining a node: it gets nothing new, and its shard groups hand back what they have not done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from collect_ops.coordination.liveness import Liveness, LivenessUnknown
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import CollectOpsError, Permanent
from collect_ops.nodes.rules import placement_rules
from collect_ops.storage import DatabaseUnavailable, connect, errors, query

log = logging.getLogger(__name__)

#: Seconds between two looks at what still runs.
_LOOK_EVERY_S = 1.0


class UnknownNode(CollectOpsError, Permanent):
    """No node of this id has ever said that it lives."""

    def __init__(self, node_id: str) -> None:
        super().__init__(f"there is no node {node_id!r}: collect-ops nodes")


def drain(backends: Backends, node_id: str, *, within_s: float) -> None:
    """Ask a node's shard groups to hand back what they have not done; each does so after the page it is at.

    Args:
        backends: Where the services are.
        node_id: The node.
        within_s: Seconds that they should take.

    Raises:
        UnknownNode: There is no such node.
    """
    _set(backends, node_id, within_s, _boot_id(backends, node_id))


def hand_back(backends: Backends, node_id: str, *, within_s: float) -> None:
    """`drain`, for a node that ends in any case: what could not be asked is taken from it when it is silent."""
    try:
        drain(backends, node_id, within_s=within_s)
    except (UnknownNode, DatabaseUnavailable, errors.Error) as error:
        log.warning("shard groups of node %s were not asked to hand back: %s", node_id, error)


def hand_back_groups(backends: Backends, node_id: str) -> int:
    """Have the shard groups that run on a node hand back what they have not done; the node itself stays as it is.

    For a worker that ends: another one may be started on the node in its place.

    Args:
        backends: Where the services are.
        node_id: The node.

    Returns:
        How many were asked; 0 as well when PostgreSQL is away: what was not asked is taken when it is silent.
    """
    try:
        with connect(backends.postgres_dsn, application_name="collect-ops drain") as connection:
            row = connection.execute(query("nodes/hand_back_groups"), {"node_id": node_id}).fetchone()
    except (DatabaseUnavailable, errors.Error) as error:
        log.warning("shard groups of node %s were not asked to hand back: %s", node_id, error)
        return 0
    asked = int(row["groups"]) if row else 0
    log.info("%d shard groups of node %s were asked to hand back", asked, node_id)
    return asked


def resume(backends: Backends, node_id: str) -> None:
    """Let a node take work again.

    Raises:
        UnknownNode: There is no such node.
    """
    _set(backends, node_id, None)


def wait_until_empty(
    backends: Backends, node_id: str, *, timeout_s: float, on_look: Callable[[int], object] = lambda _: None
) -> int:
    """Wait until no shard group runs on a node, or the time is up; returns how many still do.

    Args:
        backends: Where the services are.
        node_id: The node.
        timeout_s: Seconds to wait at most.
        on_look: Told how many still run, at each look.
    """
    deadline = time.monotonic() + timeout_s
    with connect(backends.postgres_dsn, application_name="collect-ops drain") as connection:
        while True:
            row = connection.execute(query("nodes/count_groups_left"), {"node_id": node_id}).fetchone()
            left = int(row["groups"]) if row else 0
            on_look(left)
            if left == 0 or time.monotonic() >= deadline:
                return left
            time.sleep(_LOOK_EVERY_S)


def _boot_id(backends: Backends, node_id: str) -> str | None:
    """The start of the agent that is drained: its first heartbeat may not have been taken in."""
    try:
        return Liveness(backends.redis_url, placement_rules().heartbeat.alive_s).boot_id(node_id)
    except LivenessUnknown as error:
        log.warning("node %s is drained as the registry knows it: %s", node_id, error)
        return None


def _set(backends: Backends, node_id: str, within_s: float | None, boot_id: str | None = None) -> None:
    with connect(backends.postgres_dsn, application_name="collect-ops drain") as connection:
        values = {"node_id": node_id, "within_s": within_s, "boot_id": boot_id}
        found = connection.execute(query("nodes/drain_node"), values)
        if found.fetchone() is None:
            raise UnknownNode(node_id)
