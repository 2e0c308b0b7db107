"""What the DAGs are made of: the promises that no type checks."""

from __future__ import annotations

import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
        "landing_tables",
        "retention",
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
    assert dag.get_task("plan").max_active_tis_per_dag == RULES.control.plans
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


def test_a_source_dag_waits_without_a_slot_and_claims_no_asset(dags: Mapping[str, DAG]) -> None:
    """The table's event comes with its rows: a second one from here would start every consumer twice."""
    task = dags["source_flights"].get_task("collect")
    assert task.wait_for_completion
    assert (task.outlets, task.inlets) == ([], [])


def test_every_landing_table_is_an_asset_that_airflow_knows(dags: Mapping[str, DAG]) -> None:
    tables = {source.target.table for source in load_sources().sources.values()}
    known = dags["landing_tables"].get_task("tables").outlets
    assert {(asset.name, asset.uri) for asset in known} == {
        (f"landing.{table}", f"collect://landing/{table}") for table in tables
    }


def test_a_source_dag_links_to_the_runs_of_its_source(dags: Mapping[str, DAG]) -> None:
    dag = dags["source_flights"]
    assert "/dag_runs?conf_contains=%22flights%22" in str(dag.doc_md)
    (link,) = dag.get_task("collect").operator_extra_links
    found = link.get_link(dag.get_task("collect"), ti_key=None)
    assert found.endswith("/dag_runs?conf_contains=%22flights%22")


def test_a_source_dags_form_has_a_field_for_each_parameter(dags: Mapping[str, DAG]) -> None:
    for name, source in load_sources().sources.items():
        assert set(dags[f"source_{name}"].params) == set(source.request.params), name
    params = dags["source_example_cursor"].params
    assert params.get_param("even").schema["type"] == ["null", "boolean"]
    assert params["even"] is True
    assert params.get_param("region").schema["enum"] == [None, "north", "south"]
    assert dags["source_example_offset"].params.get_param("since").schema["format"] == "date-time"


#: What nobody can do without.
REQUIRED = {"collect_submit": {"source"}, "collect_priority": {"action"}, "dead_letters": {"action"}}


def test_forms_star_what_is_required_and_nothing_else(dags: Mapping[str, DAG]) -> None:
    for dag in dags.values():
        fields = {name: dag.params.get_param(name).schema for name in dag.params}
        starred = {name for name, schema in fields.items() if "null" not in schema["type"]}
        assert starred == REQUIRED.get(dag.dag_id, set()), dag.dag_id


def test_no_form_shows_the_word_null(dags: Mapping[str, DAG]) -> None:
    for dag in dags.values():
        for name in dag.params:
            schema = dag.params.get_param(name).schema
            if None in schema.get("enum", ()):
                assert schema["values_display"]["null"], (dag.dag_id, name)
            if "array" in schema["type"]:  # an empty editor shows an object
                assert dag.params[name] == [], (dag.dag_id, name)


def test_forms_propose_the_sources(dags: Mapping[str, DAG]) -> None:
    for dag_id in ("collect_submit", "collect_priority", "dead_letters"):
        schema = dags[dag_id].params.get_param("source").schema
        assert "flights" in (schema.get("enum") or schema["examples"]), dag_id


def test_the_machinery_can_be_told_from_what_people_started(dags: Mapping[str, DAG]) -> None:
    machinery = {dag_id for dag_id, dag in dags.items() if "machinery" in dag.tags}
    assert machinery == {f"lane_{lane}" for lane in LANES} | {
        "collect_backlog",
        "collect_inbox",
        "collect_sweep",
        "heartbeat_ingest",
        "landing_tables",
        "retention",
    }
    runs_by_itself = {
        dag_id
        for dag_id, dag in dags.items()
        if dag.schedule is not None and not dag_id.startswith("source_")
    }
    assert runs_by_itself == machinery - {"landing_tables"}
    for dag_id in machinery:
        dag = dags[dag_id]
        assert dag.owner == "collect-ops"
        assert dag.description
        assert dag.dag_display_name.startswith("Machinery: ")
        assert (dag.max_active_runs, dag.catchup) == (1, False)


def test_only_sources_wait_for_somebody_to_resume_them(dags: Mapping[str, DAG]) -> None:
    paused = {dag_id for dag_id, dag in dags.items() if dag.is_paused_upon_creation is not False}
    assert paused == {f"source_{name}" for name in load_sources().sources}


def test_an_idle_machinery_has_few_runs_by_its_schedules(dags: Mapping[str, DAG]) -> None:
    """The rest is woken when something is due: at most 130 runs an hour of an idle stack."""
    timetables = {
        dag_id: getattr(dag.timetable, "timetable", None)
        for dag_id, dag in dags.items()
        if "machinery" in dag.tags
    }
    per_hour = {name: 3600 / each.delta.total_seconds() for name, each in timetables.items() if each}
    assert set(per_hour) == {"collect_backlog", "collect_sweep", "heartbeat_ingest"}
    assert sum(per_hour.values()) <= 130


def rendered(dag: DAG, task_id: str, params: Mapping[str, object]) -> Any:
    """A task with its templates filled in, as before it is executed."""
    task = dag.get_task(task_id).prepare_for_execution()
    fields = {name: param.value for name, param in dag.params.items()}
    task.render_template_fields({"params": {**fields, **params}})  # type: ignore[typeddict-item]
    return task


@pytest.mark.parametrize(
    "text", ["123", "1e5", "0x10", "1_000", "[1]", "True", "{'a': 1}", '"quoted"', "<a&b>"]
)
def test_what_is_a_text_in_a_form_stays_one(dags: Mapping[str, DAG], text: str) -> None:
    given = {"source": "flights", "path": text, "params": {"day": text}}
    submit = rendered(dags["collect_submit"], "submit", given)
    assert submit.path == text
    assert json.loads(submit.collect_params) == {"day": text}
    assert json.loads(submit.batch) == []
    for dag_id in ("collect_priority", "dead_letters"):
        act = rendered(dags[dag_id], "act", {"reason": text, "source": text})
        assert act.reason == text
        assert json.loads(act.selection)["source"] == text


def test_a_schedule_is_read_in_its_source_s_time_zone() -> None:
    file = Path(__file__).resolve().parents[2] / "dags" / "sources.py"
    source = (
        load_sources()
        .sources["flights"]
        .model_copy(update={"schedule": "30 6 * * *", "timezone": "Europe/Berlin"})
    )
    dag = runpy.run_path(str(file))["source_dag"](source)
    kept = DagSerialization.to_dict(dag)["dag"]["timetable"]["__var"]
    assert (kept["expression"], kept["timezone"]) == ("30 6 * * *", "Europe/Berlin")
