"""Placement: never on a node that cannot take the work, balanced, the same for equal input, and it says why."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.nodes.placement import Node, Obstacle, Placer, Wish, counted
from collect_ops.nodes.rules import PlacementRule, PlacementRules, PolicyName
from collect_ops.nodes.status import Figures, NodeStatus, why_not_placeable

RULES = PlacementRules()
PERCENT = st.floats(0, 100)
LABELS = st.dictionaries(st.sampled_from(["region", "disk"]), st.sampled_from(["eu", "us"]), max_size=2)


def nodes_strategy() -> st.SearchStrategy[list[Node]]:
    node = st.builds(
        Node,
        node_id=st.integers(0, 40).map(lambda n: f"n{n}"),
        status=st.sampled_from([NodeStatus.ACTIVE] * 4 + list(NodeStatus)),
        figures=st.builds(
            Figures, cpu_percent=PERCENT, memory_percent=st.floats(0, 90), disk_percent=st.floats(0, 97)
        ),
        labels=LABELS,
        kinds=st.sampled_from([("http",), ("http", "sql"), ("sql",)]),
        slots=st.integers(0, 8),
        groups=st.integers(0, 9),
        held_back_s=st.none() | st.none() | st.floats(1, 100),
        silent=st.booleans(),
    )
    return st.lists(node, max_size=12, unique_by=lambda n: n.node_id)


WISHES = st.builds(
    Wish,
    kind=st.sampled_from(["http", "sql"]),
    require=LABELS,
    prefer=LABELS,
    avoid=st.frozensets(st.integers(0, 40).map(lambda n: f"n{n}"), max_size=3),
    presses=st.booleans(),
)
ASKED = st.lists(st.tuples(WISHES, st.integers(1, 6)), min_size=1, max_size=15)
POLICIES = st.sampled_from(PolicyName).map(lambda p: PlacementRules(placement=PlacementRule(policy=p)))


def idle(node_id: str, *, cpu: float = 10, memory: float = 10, **more: object) -> Node:
    figures = Figures(cpu_percent=cpu, memory_percent=memory, disk_percent=10)
    return Node(node_id=node_id, status=NodeStatus.ACTIVE, figures=figures, **more)  # type: ignore[arg-type]


@given(nodes_strategy(), ASKED, POLICIES)
def test_never_on_a_node_that_cannot_take_it(
    nodes: list[Node], asked: list[tuple[Wish, int]], rules: PlacementRules
) -> None:
    by_id = {node.node_id: node for node in nodes}
    placer = Placer(nodes, rules)
    placed = dict.fromkeys(by_id, 0)
    for wish, groups in asked:
        decision = placer.place(wish, groups)
        assert len(decision.nodes) <= groups
        for node_id in decision.nodes:
            node = by_id[node_id]
            placed[node_id] += 1
            assert node.groups + placed[node_id] <= node.slots
            assert wish.kind in node.kinds
            assert wish.require.items() <= node.labels.items()
            assert node_id not in wish.avoid
            assert node.held_back_s is None
            assert not node.silent
            idle_figures = replace(node.figures, cpu_percent=0)
            assert why_not_placeable(node.status, idle_figures, rules) is None
            if why_not_placeable(node.status, node.figures, rules) is not None:
                assert wish.presses
        assert bool(decision.nodes) == (decision.obstacle is None)
        assert (decision.reason == "") == bool(decision.nodes)


@given(nodes_strategy(), ASKED, POLICIES, st.randoms())
def test_equal_input_gives_equal_output_in_whatever_order_nodes_come(
    nodes: list[Node], asked: list[tuple[Wish, int]], rules: PlacementRules, random: object
) -> None:
    shuffled = list(nodes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = Placer(nodes, rules), Placer(shuffled, rules)
    for wish, groups in asked:
        one, other = first.place(wish, groups), second.place(wish, groups)
        assert one.nodes == other.nodes
        assert one.obstacle == other.obstacle


@given(nodes_strategy(), ASKED, POLICIES)
def test_who_could_take_it_gets_it(
    nodes: list[Node], asked: list[tuple[Wish, int]], rules: PlacementRules
) -> None:
    """A task is told that no node takes it only when, asked one by one, none does."""
    placer = Placer(nodes, rules)
    for wish, groups in asked:
        able = [node.node_id for node in nodes if placer.judge(node.node_id, wish) is None]
        decision = placer.place(wish, groups)
        if able:
            assert decision.nodes
        elif not wish.presses:
            assert not decision.nodes
            assert set(decision.refusals) == {node.node_id for node in nodes} or len(decision.refusals) == 10


@given(st.integers(1, 30), st.integers(1, 400), POLICIES, st.integers(1, 4))
def test_equal_nodes_differ_by_one_group_at_most(
    many: int, tasks: int, rules: PlacementRules, groups: int
) -> None:
    placer = Placer([idle(f"n{i}", slots=10_000) for i in range(many)], rules)
    loads = counted([placer.place(Wish(), groups) for _ in range(tasks)])
    assert loads.total() == tasks * groups
    spread = [loads[f"n{i}"] for i in range(many)]
    # The groups of one task may go to fewer nodes than there are groups: then they differ by as many at most.
    assert max(spread) - min(spread) <= (1 if groups == 1 else 2)


def test_a_hundred_groups_do_not_all_go_to_the_node_that_was_idle() -> None:
    nodes = [idle("idle", cpu=0, slots=500), *(idle(f"n{i}", cpu=40, slots=500) for i in range(3))]
    loads = counted([Placer(nodes, RULES).place(Wish(), 1)])
    assert loads == {"idle": 1}
    placer = Placer(nodes, RULES)
    loads = counted([placer.place(Wish(), 1) for _ in range(100)])
    # (0 - 40) / 2 points are two groups of ten points each.
    assert loads["idle"] == pytest.approx(100 / 4 + 2 * 3 / 4, abs=1)


def test_the_groups_of_a_task_are_spread() -> None:
    placer = Placer([idle("a", cpu=0), idle("b", cpu=30), idle("c", cpu=70)], RULES)
    assert placer.place(Wish(), 3).nodes == ("a", "b", "a")
    assert Placer([idle("a"), idle("b"), idle("c")], RULES).place(Wish(), 3).nodes == ("a", "b", "c")


def test_a_preferred_label_outweighs_some_load() -> None:
    near, far = idle("near", cpu=40, labels={"region": "eu"}), idle("far", cpu=10, labels={"region": "us"})
    assert Placer([near, far], RULES).place(Wish(prefer={"region": "eu"}), 1).nodes == ("near",)
    assert Placer([near, far], RULES).place(Wish(), 1).nodes == ("far",)
    busier = replace(near, figures=replace(near.figures, cpu_percent=75))
    assert Placer([busier, far], RULES).place(Wish(prefer={"region": "eu"}), 1).nodes == ("far",)


def test_what_presses_is_placed_though_every_processor_is_busy_and_never_where_memory_is_short() -> None:
    busy, short = idle("busy", cpu=95), idle("short", memory=85)
    assert Placer([busy, short], RULES).place(Wish(), 1).obstacle is Obstacle.BUSY
    assert Placer([busy, short], RULES).place(Wish(presses=True), 1).nodes == ("busy",)
    assert Placer([short], RULES).place(Wish(presses=True), 1).obstacle is Obstacle.AWAY


def test_a_decision_says_why_and_why_not_the_others() -> None:
    nodes = [
        idle("a", cpu=20),
        idle("b", cpu=85),
        idle("c", labels={"region": "us"}),
        replace(idle("d"), status=NodeStatus.LOST),
        idle("e", held_back_s=12.0),
        idle("f", slots=2, groups=2),
        idle("g"),
    ]
    decision = Placer(nodes, RULES).place(Wish(avoid=frozenset({"g"})), 1)
    assert decision.nodes == ("c",)
    assert decision.scores == {"c": 10.0, "a": 15.0}
    assert decision.refusals == {
        "b": "cpu_percent is 85, the limit 80",
        "d": "is LOST",
        "e": "is held back for 12 s: it did not take what it got",
        "f": "has all of its 2 slots taken",
    }
    nowhere = Placer(nodes, RULES).place(Wish(require={"region": "eu"}), 1)
    assert nowhere.obstacle is Obstacle.UNFIT
    assert "c has region=us, region=eu is required" in nowhere.reason
    assert "a has no such label, region=eu is required" in nowhere.reason
    assert Placer([], RULES).place(Wish(), 1).reason == "no node can take it: there is none"


def test_what_the_nearest_obstacle_is() -> None:
    eu = {"region": "eu"}
    away = replace(idle("away", labels=eu), status=NodeStatus.LOST)
    wish = Wish(require=eu)
    assert Placer([idle("unfit"), away], RULES).place(wish, 1).obstacle is Obstacle.AWAY
    assert (
        Placer([idle("unfit"), idle("tried", labels=eu)], RULES)
        .place(replace(wish, avoid=frozenset({"tried"})), 1)
        .obstacle
        is Obstacle.REFUSED
    )
    full = idle("full", labels=eu, slots=1, groups=1)
    assert Placer([away, full], RULES).place(wish, 1).obstacle is Obstacle.BUSY
