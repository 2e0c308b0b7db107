"""Benchmark `placement`: 10,000 shard groups over 1,000 nodes, how long it takes and how even the load becomes."""

from __future__ import annotations

import random
from functools import partial
from typing import Final

from rich.console import Console

from benchmarks.measure import Contender, Sample, Stopwatch, circumstances, median, rounds
from benchmarks.report import Result, Row, Target
from benchmarks.settings import BenchSettings
from collect_ops.nodes.placement import Node, Placer, Wish, counted, least_loaded
from collect_ops.nodes.rules import PlacementRules
from collect_ops.nodes.status import Figures, NodeStatus, why_not_placeable

DEFAULT_ROUNDS: Final = 3
NODES: Final = 1_000
GROUPS: Final = 10_000
#: Groups of a task.
TOGETHER: Final = 2
SEED: Final = 20_130_101
RULES: Final = PlacementRules()
EU: Final = {"region": "eu"}

OURS: Final = "collect-ops, a heap a wish"
SCAN: Final = "every node looked at for every group"


def run(_: BenchSettings, count: int | None, console: Console) -> Result:
    """Compare the placer with a plain scan, and measure how even the load becomes.

    Args:
        count: rounds; `DEFAULT_ROUNDS` when None.
        console: where progress is shown.
    """
    count = count or DEFAULT_ROUNDS
    before = circumstances()
    equal, mixed = equal_nodes(NODES), mixed_nodes(NODES)
    contenders = [
        Contender(name=OURS, run=partial(place_all, mixed, GROUPS)),
        Contender(name=SCAN, run=partial(scan_all, mixed, GROUPS // 10)),
    ]
    samples = rounds(contenders, count, console, "groups")
    per_s = {name: taken[0]["groups"] / median(taken) for name, taken in samples.items()}
    return Result(
        name="placement",
        rows=rows(per_s, balance(equal, GROUPS), count),
        samples=samples,
        circumstances=before,
    )


def rows(per_s: dict[str, float], evenness: float, count: int) -> list[Row]:
    """The claims."""
    measured = "1,000 nodes of random load, a third of them not placeable, tasks of two groups, every fourth of which "
    measured += "requires a label and every third prefers one"
    return [
        Row(
            claim="shard groups placed, against a scan of all nodes",
            ours=per_s[OURS],
            peer=per_s[SCAN],
            ratio=per_s[OURS] / per_s[SCAN],
            unit="/s",
            measured=measured,
            rounds=count,
        ),
        Row(
            claim="balance over equal nodes: groups of the fullest node / mean",
            ours=evenness,
            target=Target(of="ours", sign="<=", value=1.1),
            unit="",
            measured="10,000 groups in tasks of two, over 1,000 equal nodes",
            rounds=1,
        ),
    ]


def equal_nodes(many: int) -> list[Node]:
    """Nodes of equal load."""
    figures = Figures(cpu_percent=20, memory_percent=20, disk_percent=20)
    return [
        Node(node_id=f"n{number:04}", status=NodeStatus.ACTIVE, figures=figures, slots=GROUPS)
        for number in range(many)
    ]


def mixed_nodes(many: int) -> list[Node]:
    """Nodes of random load and labels, the same at each call."""
    chance = random.Random(SEED)
    return [
        Node(
            node_id=f"n{number:04}",
            status=chance.choice([NodeStatus.ACTIVE] * 9 + [NodeStatus.LOST]),
            figures=Figures(
                cpu_percent=chance.uniform(0, 100), memory_percent=chance.uniform(0, 85), disk_percent=50
            ),
            labels=EU if chance.random() < 0.5 else {"region": "us"},
            slots=GROUPS,
        )
        for number in range(many)
    ]


def wishes(groups: int) -> list[Wish]:
    """What the tasks ask for."""
    return [
        Wish(require=EU if number % 4 == 0 else {}, prefer=EU if number % 3 == 0 else {})
        for number in range(groups // TOGETHER)
    ]


def place_all(nodes: list[Node], groups: int) -> Sample:
    """Place all groups."""
    asked = wishes(groups)
    with Stopwatch() as watch:
        placer = Placer(nodes, RULES)
        placed = sum(len(placer.place(wish, TOGETHER).nodes) for wish in asked)
    return {"seconds": watch.seconds, "groups": placed}


def scan_all(nodes: list[Node], groups: int) -> Sample:
    """The plain way: for each group the node of the lowest score, all of them looked at."""
    taken = dict.fromkeys((node.node_id for node in nodes), 0)
    with Stopwatch() as watch:
        placed = 0
        for wish in wishes(groups):
            for _ in range(TOGETHER):
                able = [node for node in nodes if _fits(node, wish)]
                best = min(able, key=lambda node: (_score(node, wish, taken), node.node_id))
                taken[best.node_id] += 1
                placed += 1
    return {"seconds": watch.seconds, "groups": placed}


def balance(nodes: list[Node], groups: int) -> float:
    """Groups of the fullest node over the mean."""
    placer = Placer(nodes, RULES)
    loads = counted([placer.place(Wish(), TOGETHER) for _ in range(groups // TOGETHER)])
    return max(loads.values()) / (groups / len(nodes))


def _fits(node: Node, wish: Wish) -> bool:
    return wish.require.items() <= node.labels.items() and not why_not_placeable(
        node.status, node.figures, RULES
    )


def _score(node: Node, wish: Wish, taken: dict[str, int]) -> float:
    liked = sum(node.labels.get(name) == value for name, value in wish.prefer.items())
    return least_loaded(node, taken[node.node_id], RULES) - RULES.placement.affinity * liked
