"""What the DAGs are made of: the promises that no type checks."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

from collect_ops.lanes.rules import lane_rules
from collect_ops.sources.load import load_sources

RULES = lane_rules()
LANES = sorted(RULES.lanes)


def test_there_is_a_dag_for_everything(dags: Mapping[str, DAG]) -> None:
    wanted = {
        "collect_backlog",
        "collect_inbox",
        "heartbeat_ingest",
        "collect_priority",
        "collect_submit",
        "collect_sweep",
        "dead_letters",
    }
    wanted |= {f"{kind}_{lane}" for kind in ("lane", "collect") for lane in LANES}
    wanted |= {f"source_{name}" for name in load_sources().sources}
    assert set(dags) == wanted


def test_every_dag_survives_serialization(dags: Mapping[str, DAG]) -> None:
    for dag in dags.values():
        stored = json.loads(json.dumps(DagSerialization.to_dict(dag)))
        assert DagSerialization.from_dict(stored).dag_id == dag.dag_id


def test_every_pool_exists(dags: Mapping[str, DAG]) -> None:
    pools = {RULES.control.pool, *(RULES.pool(lane) for lane in LANES)}
    for dag in dags.values():
        for task in dag.tasks:
            assert task.pool in pools, (dag.dag_id, task.task_id, task.pool)


@pytest.mark.parametrize("lane", LANES)
def test_a_lane_claims_one_at_a_time_and_stays_short(dags: Mapping[str, DAG], lane: str) -> None:
    dag = dags[f"lane_{lane}"]
    assert dag.max_active_runs == 1
    assert dag.dagrun_timeout is not None
    assert dag.dagrun_timeout.total_seconds() == 60
    assert [task.task_id for task in dag.tasks] == ["claim"]
    assert dag.get_task("claim").pool == RULES.control.pool


@pytest.mark.parametrize("lane", LANES)
def test_a_collect_run_plans_runs_groups_and_settles(dags: Mapping[str, DAG], lane: str) -> None:
    dag = dags[f"collect_{lane}"]
    assert [task.task_id for task in dag.topological_sort()] == ["plan", "collect", "settle"]
    assert dag.max_active_runs > RULES.lanes[lane].slots
    groups = dag.get_task("collect")
    assert groups.is_mapped
    assert groups.pool == RULES.pool(lane)
    assert groups.retries == 0
    assert groups.partial_kwargs["map_index_template"] == "{{ task.group_label }}"
    settle = dag.get_task("settle")
    assert settle.trigger_rule == "all_done"
    assert settle.pool == dag.get_task("plan").pool == RULES.control.pool


def test_no_more_runs_at_once_than_there_are_processes() -> None:
    """Control tasks must never wait behind shard groups: LocalExecutor has processes for all lanes and more."""
    from pathlib import Path

    settings = (Path(__file__).resolve().parents[2] / "config" / "airflow.env").read_text().splitlines()
    (parallelism,) = (
        line.split("=")[1] for line in settings if line.startswith("AIRFLOW__CORE__PARALLELISM=")
    )
    assert int(parallelism) >= sum(lane.slots for lane in RULES.lanes.values()) + 2


def test_the_form_of_collect_submit_is_typed(dags: Mapping[str, DAG]) -> None:
    params = dags["collect_submit"].params
    assert set(params) >= {"source", "params", "path", "priority", "force", "deadline", "batch", "dry_run"}
    assert "flights" in params.get_param("source").schema["enum"]
    priority = params.get_param("priority").schema
    assert (priority["minimum"], priority["maximum"]) == (0, 10)


def test_a_source_dag_waits_without_a_slot_and_emits_its_asset(dags: Mapping[str, DAG]) -> None:
    task = dags["source_flights"].get_task("collect")
    assert task.wait_for_completion
    assert [asset.name for asset in task.outlets] == ["landing.flights"]
