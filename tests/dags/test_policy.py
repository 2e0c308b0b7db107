"""The cluster policy: deterministic, in range, and only for runs that a claim has made."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.lanes.rules import lane_rules
from collect_ops.policies import task_instance
from collect_ops.policies.task_instance import task_instance_mutation_hook


@pytest.fixture(autouse=True, scope="module")
def no_control_queue() -> Iterator[None]:
    """Whatever stack these tests run on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_instance, "CONTROL_QUEUE", None)
        yield


def mutated(dag_id: str, conf: object, task_id: str = "collect", *, map_index: int = 0) -> SimpleNamespace:
    pool = "collect_normal" if task_id == "collect" else "collect_control"
    instance = SimpleNamespace(
        dag_id=dag_id, task_id=task_id, priority_weight=1, queue="default", map_index=map_index, pool=pool
    )
    run = SimpleNamespace(conf=conf)
    for known in (None, run, run):
        task_instance_mutation_hook(instance, known)
    return instance


def weigh(dag_id: str, conf: object, task_id: str = "collect") -> int:
    return int(mutated(dag_id, conf, task_id).priority_weight)


def queue_of(conf: object, task_id: str = "collect", *, map_index: int = 0) -> str:
    return str(mutated("collect_normal", conf, task_id, map_index=map_index).queue)


@given(priority=st.integers(0, 10))
def test_a_higher_priority_weighs_more(priority: int) -> None:
    weight = weigh("collect_normal", {"tasks": [], "priority": priority, "lane": "normal"})
    assert weight == (priority + 1) * 1000
    assert 0 < weight < 2**31


@given(priority=st.integers(0, 10), control=st.sampled_from(["plan", "settle"]))
def test_planning_and_settling_go_before_every_shard_group(priority: int, control: str) -> None:
    conf = {"tasks": [], "priority": priority, "lane": "normal"}
    weight = weigh("collect_normal", conf, control)
    assert weigh("collect_urgent", {"tasks": [], "priority": 10, "lane": "urgent"}) < weight < 2**31
    if priority:
        assert weight > weigh("collect_normal", {**conf, "priority": priority - 1}, control)


@given(
    conf=st.one_of(
        st.none(),
        st.text(),
        st.dictionaries(st.text(max_size=8), st.integers() | st.text()),
        st.lists(st.integers()),
    )
)
def test_any_other_run_is_left_alone(conf: object) -> None:
    assert weigh("anything", conf) == 1
    if not (isinstance(conf, dict) and "tasks" in conf):
        assert weigh("collect_normal", conf) == 1


@pytest.mark.parametrize("dag_id", ["collect_taxes", "collect_", "collect_normal_taxes", "collect_submit"])
@pytest.mark.parametrize("lane", [None, "normal", "urgent", 7])
def test_a_dag_of_somebody_elses_is_left_alone(dag_id: str, lane: object) -> None:
    conf = {"tasks": [{"task_id": 1, "attempt": 1}], "priority": 9, "lane": lane, "nodes": ["n1"]}
    for task_id in ("collect", "plan", "settle"):
        instance = mutated(dag_id, conf, task_id)
        assert (instance.priority_weight, instance.queue) == (1, "default")


@given(count=st.integers(1, 5), map_index=st.integers(-1, 60), priority=st.none() | st.integers(0, 10))
def test_a_shard_group_goes_to_its_node(count: int, map_index: int, priority: int | None) -> None:
    nodes = [f"n{number}" for number in range(count)]
    conf = {"tasks": [1], "nodes": nodes, "priority": priority, "lane": "normal"}
    assert queue_of(conf, map_index=map_index) == f"node.n{max(0, map_index) % count}"
    assert queue_of(conf, "plan", map_index=map_index) == "default"


@pytest.mark.parametrize("nodes", [None, [], "n1", {"n1": 1}, ["n1", "No Node"], ["n1", 7], [None]])
def test_nodes_that_are_none_leave_the_queue(nodes: object) -> None:
    assert queue_of({"tasks": [1], "nodes": nodes, "priority": 5, "lane": "normal"}) == "default"


def test_control_tasks_have_a_queue_of_their_own_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    conf = {"tasks": [1], "nodes": ["n1"], "priority": 5, "lane": "normal"}
    monkeypatch.setattr(task_instance, "CONTROL_QUEUE", "control")
    assert queue_of(conf, "plan") == queue_of({}, "claim") == "control"
    assert queue_of(conf) == "node.n1"
    monkeypatch.setattr(task_instance, "CONTROL_QUEUE", None)
    assert queue_of(conf, "plan") == "default"


def test_the_control_pool_is_the_one_that_the_rules_name() -> None:
    assert lane_rules().control.pool == task_instance.CONTROL_POOL
