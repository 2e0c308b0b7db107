"""How much a lane can take now."""

from __future__ import annotations

from dataclasses import dataclass

from collect_ops.kernel.backends import Backends
from collect_ops.lanes.placing import room_on_nodes
from collect_ops.lanes.policy import PACK
from collect_ops.lanes.rules import LaneRules
from collect_ops.nodes.rules import placement_rules
from collect_ops.storage import Connection, query


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveLane:
    """A lane's numbers as they are now: those of lanes.yaml, or what backlog rules have set instead.

    Args:
        slots: Shard groups that may run at once.
        groups_per_task: Shard groups that one task may be spread over.
        pack: Small tasks that may share a run.
    """

    slots: int
    groups_per_task: int
    pack: int


def effective(connection: Connection, lane: str, rules: LaneRules) -> EffectiveLane:
    """A lane's numbers as they are now. One read by primary key."""
    row = connection.execute(query("lanes/select_lane_setting"), {"lane": lane}).fetchone() or {}
    rule = rules.lanes[lane]
    return EffectiveLane(
        slots=row.get("slots") or rule.slots,
        groups_per_task=row.get("groups_per_task") or rule.groups_per_task,
        pack=row.get("pack") or PACK,
    )


def used_slots(connection: Connection, lane: str) -> int:
    """Slots of a lane that shard groups hold: open ones, and those reserved for tasks that are not planned yet."""
    row = connection.execute(query("lanes/select_room"), {"lane": lane}).fetchone()
    return int(row["used"]) if row else 0


def room(connection: Connection, lane: str, rules: LaneRules, backends: Backends) -> int:
    """Shard groups that a lane may start now: slots it has free, as far as nodes have room for them."""
    free = max(0, effective(connection, lane, rules).slots - used_slots(connection, lane))
    if free == 0:
        return 0
    on_nodes = room_on_nodes(connection, lane, backends, rules, placement_rules())
    return free if on_nodes is None else min(free, on_nodes)
