"""What a run of many small tasks costs the others: its control tasks give way, and the api-server is asked once."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from collect_ops.execution.plan import Plan
from collect_ops.lanes.rules import lane_rules
from collect_ops.operators import lane as operators


def _niceness_after(lane: str | None) -> int:
    before = os.nice(0)
    context: Any = {"dag_run": SimpleNamespace(conf={"lane": lane})}
    operators.give_way(context)
    return os.nice(0) - before


def niceness_of(lane: str | None) -> int:
    """How far a process that plans for a lane steps back; one of its own, since it cannot step forward again."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return pool.submit(_niceness_after, lane).result()


def test_the_more_urgent_a_lane_the_higher_the_priority_of_its_processes() -> None:
    lanes = sorted(lane_rules().lanes, key=lambda name: -lane_rules().lanes[name].priorities[1])
    niceness = [niceness_of(lane) for lane in lanes]
    assert niceness[0] == 0
    assert niceness == sorted(set(niceness)), dict(zip(lanes, niceness, strict=True))
    assert niceness[-1] <= operators.SHARD_GROUP_NICENESS


@pytest.mark.parametrize("lane", [None, "no such lane"])
def test_an_unknown_lane_changes_nothing(lane: str | None) -> None:
    assert niceness_of(lane) == 0


def test_a_plan_asks_for_a_connection_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def plan(
        tasks: object, run_id: str, backends: object, rules: object, endpoint_of: Any, *, actor: str
    ) -> Plan:
        assert endpoint_of("one") is endpoint_of("one")
        assert endpoint_of("two") is not endpoint_of("one")
        return Plan(groups=(), skipped=())

    def endpoint(connection_id: str) -> object:
        asked.append(connection_id)
        return object()

    monkeypatch.setattr(operators, "plan", plan)
    monkeypatch.setattr(operators, "endpoint", endpoint)
    monkeypatch.setattr(operators, "backends", lambda: None)
    run = SimpleNamespace(run_id="claim-1", dag_id="collect_urgent", conf={"tasks": [], "lane": "urgent"})
    context: Any = {
        "dag_run": run,
        "ti": SimpleNamespace(dag_id=run.dag_id, task_id="plan", run_id=run.run_id),
    }
    operators.PlanRunOperator(task_id="plan").execute(context)
    assert asked == ["one", "two"]
