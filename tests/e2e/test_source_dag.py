"""A source's own DAG: submits, waits without a worker slot, ends as its task ended."""

from __future__ import annotations

from typing import Any

import pytest

from demo.run import unpause_needed
from tests.e2e.kills import empty_table, point_connection, readings_are_exact
from tests.e2e.running_stack import RunningStack, wait_for
from tests.e2e.slow_proxy import SlowProxy
from tests.servers.paged import PagedServer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]
DAG = "source_example_offset"


def test_a_run_waits_deferred_and_emits_no_event_of_its_own(stack: RunningStack) -> None:
    unpause_needed(stack.airflow)
    stack.airflow.wait_for_dag(DAG, 60)
    stack.airflow.unpause(DAG)
    empty_table(stack, "landing.example_offset")
    with PagedServer(rows=2000) as server, SlowProxy(server.base_url, delay_s=0.5) as proxy:
        point_connection(stack, "example_api", proxy.base_url)
        answer = stack.trigger(DAG, {})
        assert answer.status_code == 200, answer.text
        run_id = answer.json()["dag_run_id"]

        def waiting() -> list[dict[str, Any]]:
            return [each for each in stack.task_instances(DAG, run_id) if each["state"] == "deferred"]

        (instance,) = wait_for("the run waiting deferred", waiting, 60)
        assert instance["pool"] == "collect_control"
        assert not asset_events(stack, run_id)
        assert stack.run_ended(DAG, run_id, 120)["state"] == "success"
    assert asset_events(stack, run_id) == [], "the table's event comes with its rows (test_truth.py)"
    ended = stack.airflow.xcom(DAG, run_id, "collect")
    assert (ended["status"], ended["rows_landed"]) == ("COMPLETED", 2000)
    assert readings_are_exact(stack, 2000)
    (submission,) = stack.rows(
        "SELECT submitted_via FROM collect.task WHERE id = %s AND submitted_by = %s",
        ended["task_id"], f"airflow:{DAG}",
    )  # fmt: skip
    assert submission["submitted_via"] == "schedule"


def asset_events(stack: RunningStack, run_id: str) -> list[dict[str, Any]]:
    """The asset events that a run has emitted."""
    answer = stack.rest("GET", f"/assets/events?source_dag_id={DAG}&source_run_id={run_id}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["asset_events"]
    return found


def test_a_run_whose_task_fails_says_why_and_emits_nothing(stack: RunningStack) -> None:
    stack.airflow.wait_for_dag("source_example_page", 60)
    stack.airflow.unpause("source_example_page")
    with PagedServer(rows=400, required_headers={"Authorization": "nobody has this"}) as server:
        point_connection(stack, "example_api", server.base_url, login="nobody", password="knows")
        answer = stack.trigger("source_example_page", {})
        run_id = answer.json()["dag_run_id"]
        assert stack.run_ended("source_example_page", run_id, 120)["state"] == "failed"
    (instance,) = stack.task_instances("source_example_page", run_id)
    log = stack.log("source_example_page", run_id, "collect", try_number=instance["try_number"])
    assert "ended DEAD" in log
    assert "401" in log
    assert "accepted: COMPLETED" in log
