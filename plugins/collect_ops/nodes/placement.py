"""On which node a shard group shall run. Pure: equal input gives equal output.

Nodes are filtered first (what they are, how they do), then scored; the lowest score gets the group, and counts it, so
that a hundred groups do not all go to the node that was idle a moment ago.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from collect_ops.nodes.rules import PlacementRules, PolicyName
from collect_ops.nodes.status import Figures, NodeStatus, why_not_placeable

#: Nodes whose scores, and reasons against them, a decision names; of a thousand nodes nobody reads more.
SHOWN = 10
#: Nodes that a decision looks at at least, so that it can name those that came next.
RUNNERS_UP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as placement sees it.

    Args:
        node_id: Its id.
        status: Its state.
        figures: Its last load, in percent.
        labels: What sources may ask for.
        kinds: Kinds of sources that it collects from.
        slots: Shard groups that it runs at once.
        groups: Shard groups that are placed on it and have not ended.
        held_back_s: Seconds for which it gets nothing, since it did not take what it got; None when it may.
        silent: Its liveness key is gone, though its state does not say so yet.
    """

    node_id: str
    status: NodeStatus
    figures: Figures
    labels: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("http",)
    slots: int = 8
    groups: int = 0
    held_back_s: float | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a task asks of a node.

    Args:
        kind: Kind of its source.
        require: Labels that a node must have.
        prefer: Labels that it would rather have.
        avoid: Nodes that did not take it.
        presses: It is placed though every node is busy: it is urgent, has begun, or has waited long.
    """

    kind: str = "http"
    require: Mapping[str, str] = field(default_factory=dict)
    prefer: Mapping[str, str] = field(default_factory=dict)
    avoid: frozenset[str] = frozenset()
    presses: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for wishes that the same nodes meet equally well, `avoid` aside."""
        return (self.kind, tuple(sorted(self.require.items())), tuple(sorted(self.prefer.items())))


class Obstacle(StrEnum):
    """What keeps a task from a node; of several nodes the first of these that applies tells what to wait for."""

    BUSY = "busy"
    """It works to capacity: its processors or its slots are taken."""
    AWAY = "away"
    """It is not there, takes nothing now, or is short of memory or disk."""
    REFUSED = "refused"
    """It did not take this very task."""
    UNFIT = "unfit"
    """It is not what the task asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A decision.

    Args:
        nodes: A node for each group; none when no node can take it.
        scores: Of the best nodes before the first group was placed; lower is better.
        refusals: Why not the others, by node; `SHOWN` at most.
        obstacle: What is in the way of the nearest node; None when there are nodes.
    """

    nodes: tuple[str, ...]
    scores: Mapping[str, float]
    refusals: Mapping[str, str]
    obstacle: Obstacle | None = None

    def as_trace(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "nodes": list(self.nodes),
            "scores": {node: round(score, 1) for node, score in self.scores.items()},
            "refusals": dict(self.refusals),
        }

    @property
    def reason(self) -> str:
        """Why no node takes it, for people; empty when one does."""
        if self.nodes:
            return ""
        told = "; ".join(f"{node} {why}" for node, why in self.refusals.items())
        return f"no node can take it: {told or 'there is none'}"


def least_loaded(node: Node, groups: int, rules: PlacementRules) -> float:
    """Half of CPU and memory in percent, and some for every group that is placed on it."""
    figures = node.figures
    return (figures.cpu_percent + figures.memory_percent) / 2 + rules.placement.per_group * groups


def fewest_groups(node: Node, groups: int, rules: PlacementRules) -> float:
    """Percent of its slots that are taken; of two equal ones the less loaded."""
    return 100 * groups / max(1, node.slots) + least_loaded(node, 0, rules) / 1000


POLICIES: dict[PolicyName, Callable[[Node, int, PlacementRules], float]] = {
    PolicyName.LEAST_LOADED: least_loaded,
    PolicyName.FEWEST_GROUPS: fewest_groups,
}


@dataclass(slots=True)
class _Field:
    """The nodes that meet a wish, as heaps by score.

    Args:
        free: Those that may get work.
        busy: Those whose processors are busy.
        refusals: Why not some of the others, as it was at first.
    """

    free: list[tuple[float, str]] = field(default_factory=list)
    busy: list[tuple[float, str]] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)


class Placer:
    """Places the groups of one task after the other, counting what it has placed.

    Cost: a heap of all nodes for each different wish, then logarithmic in their number a group.

    Args:
        nodes: All nodes.
        rules: Policy, weights, limits.
    """

    def __init__(self, nodes: Iterable[Node], rules: PlacementRules) -> None:
        self._nodes = {node.node_id: node for node in nodes}
        self._rules = rules
        self._policy = POLICIES[rules.placement.policy]
        self._groups = {node.node_id: node.groups for node in self._nodes.values()}
        self._fields: dict[tuple[object, ...], _Field] = {}

    def place(self, wish: Wish, groups: int) -> Placement:
        """Nodes for the groups of a task: several nodes where there are, fewer groups where slots run out.

        Args:
            wish: What the task asks.
            groups: How many it may have, 1 or more.
        """
        ordered = self._field(wish)
        chosen, scores = self._take(ordered.free, wish, groups)
        if not chosen and wish.presses:
            chosen, scores = self._take(ordered.busy, wish, groups)
        if chosen:
            refusals = {node_id: why for node_id, why in ordered.refusals.items() if node_id not in scores}
            return Placement(nodes=chosen, scores=scores, refusals=refusals)
        against = self._against(wish)
        return Placement(
            nodes=(),
            scores={},
            refusals={node_id: why for _, node_id, why in against[:SHOWN]},
            obstacle=against[0][0] if against else Obstacle.AWAY,
        )

    def room(self, wish: Wish) -> int:
        """Groups that could still be placed for a wish."""
        ordered = self._field(wish)
        heaps = (ordered.free, ordered.busy) if wish.presses else (ordered.free,)
        return sum(
            max(0, self._nodes[node_id].slots - self._groups[node_id])
            for heap in heaps
            for _, node_id in heap
            if node_id not in wish.avoid
        )

    def judge(self, node_id: str, wish: Wish) -> tuple[Obstacle, str] | None:
        """What is in the way of a node, and why, for people; None when nothing is."""
        node = self._nodes[node_id]
        if problem := _why_unfit(node, wish):
            return Obstacle.UNFIT, problem
        if node_id in wish.avoid:
            return Obstacle.REFUSED, "did not take it"
        if problem := _why_away(node, self._rules):
            return Obstacle.AWAY, problem
        if self._full(node_id):
            return Obstacle.BUSY, f"has all of its {node.slots} slots taken"
        problem = why_not_placeable(node.status, node.figures, self._rules)
        return None if problem is None else (Obstacle.BUSY, problem)

    def _field(self, wish: Wish) -> _Field:
        found = self._fields.get(wish.key)
        if found is None:
            found = self._fields[wish.key] = _Field()
            anybody = replace(wish, avoid=frozenset())
            for node_id in self._nodes:
                obstacle = self.judge(node_id, anybody)
                if obstacle is None:
                    found.free.append((self._score(node_id, wish), node_id))
                    continue
                if obstacle[0] is Obstacle.BUSY and not self._full(node_id):
                    found.busy.append((self._score(node_id, wish), node_id))
                if len(found.refusals) < SHOWN:
                    found.refusals[node_id] = obstacle[1]
            heapq.heapify(found.free)
            heapq.heapify(found.busy)
        return found

    def _score(self, node_id: str, wish: Wish) -> float:
        node = self._nodes[node_id]
        liked = sum(node.labels.get(name) == value for name, value in wish.prefer.items())
        return self._policy(node, self._groups[node_id], self._rules) - self._rules.placement.affinity * liked

    def _full(self, node_id: str) -> bool:
        return self._groups[node_id] >= self._nodes[node_id].slots

    def _take(
        self, heap: list[tuple[float, str]], wish: Wish, groups: int
    ) -> tuple[tuple[str, ...], dict[str, float]]:
        """The best nodes of a heap, each group counted, and scores. They only grow: a stale one goes back as it is."""
        best: dict[str, float] = {}
        passed: list[str] = []
        while heap and len(best) < max(groups, RUNNERS_UP):
            score, node_id = heapq.heappop(heap)
            now = self._score(node_id, wish)
            if self._full(node_id):
                continue  # for good: nothing ends while we place
            if now > score:
                heapq.heappush(heap, (now, node_id))
            elif node_id in wish.avoid:
                passed.append(node_id)
            else:
                best[node_id] = now
        chosen = self._deal(best, wish, groups)
        for node_id in (*best, *passed):
            heapq.heappush(heap, (self._score(node_id, wish), node_id))
        return chosen, dict(list(best.items())[:SHOWN])

    def _deal(self, best: Iterable[str], wish: Wish, groups: int) -> tuple[str, ...]:
        """Deal groups to the best nodes, of which there are as many as groups unless nodes are fewer.

        A node that is left out scores no better than one of these that has got nothing yet, so it is never missed.
        """
        chosen: list[str] = []
        own: Counter[str] = Counter()
        for _ in range(groups):
            able = [
                (self._score(node_id, wish) + self._rules.placement.spread * own[node_id], node_id)
                for node_id in best
                if not self._full(node_id)
            ]
            if not able:
                break
            node_id = min(able)[1]
            own[node_id] += 1
            self._groups[node_id] += 1
            chosen.append(node_id)
        return tuple(chosen)

    def _against(self, wish: Wish) -> list[tuple[Obstacle, str, str]]:
        """Why no node at all, the nearest obstacles first."""
        order = list(Obstacle)
        found = [
            (obstacle[0], node_id, obstacle[1])
            for node_id in self._nodes
            if (obstacle := self.judge(node_id, wish)) is not None
        ]
        return sorted(found, key=lambda each: (order.index(each[0]), each[1]))


def _why_unfit(node: Node, wish: Wish) -> str | None:
    if wish.kind not in node.kinds:
        return f"does not collect from {wish.kind} sources"
    for name, value in sorted(wish.require.items()):
        if (found := node.labels.get(name)) != value:
            has = "no such label" if found is None else f"{name}={found}"
            return f"has {has}, {name}={value} is required"
    return None


def _why_away(node: Node, rules: PlacementRules) -> str | None:
    if node.held_back_s is not None:
        return f"is held back for {node.held_back_s:.0f} s: it did not take what it got"
    if node.silent and node.status is NodeStatus.ACTIVE:
        return "has not renewed its liveness key"
    return why_not_placeable(node.status, replace(node.figures, cpu_percent=0.0), rules)


def counted(placements: Sequence[Placement]) -> Counter[str]:
    """Groups a node over several decisions."""
    return Counter(node_id for placement in placements for node_id in placement.nodes)
