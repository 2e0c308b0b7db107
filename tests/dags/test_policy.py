"""The cluster policy: deterministic, in range, and only for runs that a claim has made."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from collect_ops.policies.task_instance import task_instance_mutation_hook


def weigh(dag_id: str, conf: object, task_id: str = "collect") -> int:
    instance = SimpleNamespace(dag_id=dag_id, task_id=task_id, priority_weight=1)
    run = SimpleNamespace(conf=conf)
    for known in (None, run, run):
        task_instance_mutation_hook(instance, known)
    return int(instance.priority_weight)


@given(priority=st.integers(0, 10))
def test_a_higher_priority_weighs_more(priority: int) -> None:
    weight = weigh("collect_normal", {"tasks": [], "priority": priority})
    assert weight == (priority + 1) * 1000
    assert 0 < weight < 2**31


@given(priority=st.integers(0, 10), control=st.sampled_from(["plan", "settle"]))
def test_planning_and_settling_go_before_every_shard_group(priority: int, control: str) -> None:
    weight = weigh("collect_normal", {"tasks": [], "priority": priority}, control)
    assert weigh("collect_urgent", {"tasks": [], "priority": 10}) < weight < 2**31
    if priority:
        assert weight > weigh("collect_normal", {"tasks": [], "priority": priority - 1}, control)


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
