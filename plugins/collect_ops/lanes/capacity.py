"""How much a lane can take now."""

from __future__ import annotations

from collect_ops.lanes.rules import LaneRules
from collect_ops.storage import Connection, query


def used_slots(connection: Connection, lane: str) -> int:
    """Slots of a lane that shard groups hold: open ones, and those reserved for tasks that are not planned yet."""
    row = connection.execute(query("lanes/select_room"), {"lane": lane}).fetchone()
    return int(row["used"]) if row else 0


def room(connection: Connection, lane: str, rules: LaneRules) -> int:
    """Shard groups that a lane may start now."""
    return max(0, rules.lanes[lane].slots - used_slots(connection, lane))
