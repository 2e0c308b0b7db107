"""On which nodes a claim's runs go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import LaneRules
from collect_ops.nodes.inventory import inventory, registered
from collect_ops.nodes.placement import Node, Placement, Placer, Wish
from collect_ops.nodes.rules import PlacementRules, placement_rules
from collect_ops.storage import Connection, query


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeNeeds:
    """What a task asks of a node, out of its declaration and history.

    Args:
        kind: Kind of its source.
        require: Labels that a node must have.
        prefer: Labels that it would rather have.
        refused: Nodes that did not take it.
        begun: It has had an attempt.
        waited_s: How long it has waited.
    """

    kind: str = "http"
    require: tuple[tuple[str, str], ...] = ()
    prefer: tuple[tuple[str, str], ...] = ()
    refused: frozenset[str] = frozenset()
    begun: bool = False
    waited_s: float = 0.0

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> NodeNeeds:
        """Of a task's row: `placement` as it was declared, `refused_nodes`, `attempt`, `waited_s`."""
        declared = row["placement"] or {}
        return cls(
            require=tuple(sorted((declared.get("require") or {}).items())),
            prefer=tuple(sorted((declared.get("prefer") or {}).items())),
            refused=frozenset(row["refused_nodes"]),
            begun=row["attempt"] > 0,
            waited_s=row["waited_s"],
        )

    def wish(self, priority: int, rules: PlacementRules) -> Wish:
        """As placement takes it."""
        rule = rules.placement
        waited_long = self.waited_s >= rule.press_after_s
        return Wish(
            kind=self.kind,
            require=dict(self.require),
            prefer=dict(self.prefer),
            avoid=self.refused,
            presses=self.begun or waited_long or priority >= rule.press_from,
        )


#: What a task asks whose source asks for nothing.
ANYTHING = NodeNeeds()


class Placing:
    """Places the runs of one claim.

    Args:
        nodes: All nodes.
        rules: Policy and limits.
    """

    def __init__(self, nodes: Sequence[Node], rules: PlacementRules) -> None:
        self._placer = Placer(nodes, rules)
        self._rules = rules

    @classmethod
    def of(cls, connection: Connection, backends: Backends, rules: PlacementRules) -> Placing | None:
        """Over the nodes there are; None when groups go to no node's queue, or no node has ever said that it lives."""
        nodes = inventory(connection, backends, rules) if backends.node_queues else []
        return cls(nodes, rules) if nodes else None

    def place(self, needs: NodeNeeds, priority: int, groups: int) -> Placement:
        """Nodes for the groups of a run. A task that every fitting node has refused is tried on all of them again."""
        placement = self._placer.place(needs.wish(priority, self._rules), groups)
        if placement.nodes or not needs.refused:
            return placement
        return self._placer.place(replace(needs, refused=frozenset()).wish(priority, self._rules), groups)

    def elsewhere(self, needs: NodeNeeds, priority: int) -> Placement:
        """Where a task could go, but to the nodes that have refused it."""
        return self._placer.place(needs.wish(priority, self._rules), 1)

    def exhausted(self) -> bool:
        """Whether no node takes anything more, whatever it asks and however it presses."""
        return self._placer.room(Wish(presses=True)) == 0


def room_on_nodes(
    connection: Connection, lane: str, backends: Backends, rules: LaneRules, placement: PlacementRules
) -> int | None:
    """Shard groups of a lane that nodes have room for; None when that does not bound them. Asks PostgreSQL only.

    Args:
        connection: To the collect_ops database.
        lane: Lane name.
        backends: Whether groups go to nodes' queues.
        rules: Lane rules.
        placement: Policy and limits.
    """
    nodes = registered(connection) if backends.node_queues else []
    if not nodes:
        return None
    presses = False
    highest = rules.lanes[lane].priorities[1]
    if highest < placement.placement.press_from:
        values = {"lane": lane, "press_after_s": placement.placement.press_after_s}
        row = connection.execute(query("nodes/select_pressing"), values).fetchone()
        presses = bool(row and row["presses"])
    return Placer(nodes, placement).room(NodeNeeds(begun=presses).wish(highest, placement))


def nodes_for(connection: Connection, row: Mapping[str, Any], backends: Backends) -> tuple[int | None, str]:
    """Groups of a waiting task that nodes have room for, and why none; None when nodes do not bound it.

    Args:
        connection: To the collect_ops database.
        row: The task: `placement` as it was declared, `refused_nodes`, `attempt`, `priority`,
            `waited_s`.
        backends: Whether groups go to nodes' queues.
    """
    rules = placement_rules()
    nodes = inventory(connection, backends, rules) if backends.node_queues else []
    if not nodes:
        return None, ""
    wish = NodeNeeds.of(row).wish(row["priority"], rules)
    placer = Placer(nodes, rules)
    return placer.room(wish), placer.place(wish, 1).reason
