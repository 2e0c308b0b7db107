"""In which state a node is, from what is known of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from collect_ops.nodes.rules import PlacementRules


class NodeStatus(StrEnum):
    """Where a node stands."""

    ACTIVE = "ACTIVE"
    SUSPECT = "SUSPECT"
    DRAINING = "DRAINING"
    LOST = "LOST"
    LEFT = "LEFT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a node, in seconds by one clock (Redis' for keys, PostgreSQL's for the rest).

    Args:
        status: Its state so far.
        key_age_s: Since it renewed its liveness key; None when there is no key.
        keys_lost: Redis was started or flushed so recently that a missing key says nothing.
        many_missing: Most nodes that lived have no key now: Redis may not have been reachable for them.
        status_for_s: Since it is in its state.
        draining: It takes no new work and says so.
        left: It said that it goes.
        losses: How often it was lost within the window of the flapping rule.
        back_for_s: Since it was last not alive.
    """

    status: NodeStatus
    key_age_s: float | None
    keys_lost: bool = False
    many_missing: bool = False
    status_for_s: float = 0.0
    draining: bool = False
    left: bool = False
    losses: int = 0
    back_for_s: float = 0.0


def status_of(known: Known, rules: PlacementRules) -> tuple[NodeStatus, str]:
    """The state that a node is in now, and why, for people.

    A node without a key that said goodbye has LEFT; one that did not is LOST, but only SUSPECT while Redis may have
    lost the key by itself, or most nodes are without one: then it has the time of a heartbeat to renew it. One that was
    lost too often is SUSPECT until it has stayed for a while.
    """
    if known.left:
        return NodeStatus.LEFT, "it said that it goes"
    if known.key_age_s is None:
        return _without_key(known, rules)
    return _alive(known, known.key_age_s, rules)


def _without_key(known: Known, rules: PlacementRules) -> tuple[NodeStatus, str]:
    if known.status is NodeStatus.LOST:
        return NodeStatus.LOST, "its liveness key is gone"
    if known.keys_lost:
        return NodeStatus.SUSPECT, "its liveness key is missing, but Redis has just lost keys"
    # Whoever lives has renewed its key by then, Redis being there again.
    renewed_by_s = 1.5 * rules.heartbeat.every_s
    if known.many_missing and not (known.status is NodeStatus.SUSPECT and known.status_for_s > renewed_by_s):
        return (
            NodeStatus.SUSPECT,
            "its liveness key is missing like those of most nodes: Redis may have been away",
        )
    return NodeStatus.LOST, f"it has not renewed its liveness key for {rules.heartbeat.alive_s:g} s"


def _alive(known: Known, key_age_s: float, rules: PlacementRules) -> tuple[NodeStatus, str]:
    flapping = rules.flapping
    if key_age_s > rules.heartbeat.suspect_s:
        return NodeStatus.SUSPECT, f"its last heartbeat is {key_age_s:.0f} s old"
    if known.losses >= flapping.changes and known.back_for_s < flapping.damped_s:
        reason = (
            f"it was lost {known.losses} times in {flapping.window_s:g} s; it counts again when it has stayed for "
            f"{flapping.damped_s:g} s"
        )
        return NodeStatus.SUSPECT, reason
    if known.draining:
        return NodeStatus.DRAINING, "it takes no new work"
    return NodeStatus.ACTIVE, "it is alive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a node last said of its load, in percent."""

    cpu_percent: float
    memory_percent: float
    disk_percent: float


def why_not_available(status: NodeStatus, figures: Figures, rules: PlacementRules) -> str | None:
    """Why a node takes no work; None when it does."""
    if status is not NodeStatus.ACTIVE:
        return f"is {status}"
    limits = rules.available
    return _over(figures, {"cpu_percent": limits.cpu_percent, "memory_percent": limits.memory_percent})


def why_not_placeable(status: NodeStatus, figures: Figures, rules: PlacementRules) -> str | None:
    """Why no new work is placed on a node, whatever the work is; None when some is."""
    return why_not_available(status, figures, rules) or _over(figures, rules.placeable.model_dump())


def _over(figures: Figures, limits: dict[str, float]) -> str | None:
    for name, limit in limits.items():
        found = getattr(figures, name)
        if found >= limit:
            return f"{name} is {found:.0f}, the limit {limit:g}"
    return None
