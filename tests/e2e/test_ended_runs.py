"""Ended runs of the machinery go with their logs; what people and sources started stays, and so do failed runs."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from collect_ops.delivery.ended_runs import KEPT, machinery_dag_ids, run_once
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import lane_rules
from collect_ops.orchestrator.rest_reports import RestReports
from stack.layout import Layout
from stack.settings import load
from tests.e2e.running_stack import RunningStack, wait_for
from tests.servers.paged import PagedServer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
SWEEP = "collect_sweep"
#: A pass has ten seconds; on a busy machine Airflow needs more for all.
PASSES = 20

Runs = dict[str, dict[str, Any]]


def runs_of(stack: RunningStack, dag_id: str) -> Runs:
    found: Runs = {}
    while True:
        answer = stack.rest("GET", f"/dags/{dag_id}/dagRuns?limit=100&offset={len(found)}&order_by=run_after")
        assert answer.status_code == 200, answer.text
        page = answer.json()["dag_runs"]
        found.update((each["dag_run_id"], each) for each in page)
        if len(page) < 100:
            return found


def ended_well(run: Mapping[str, Any], before: datetime) -> bool:
    return run["state"] == "success" and datetime.fromisoformat(run["end_date"]) <= before


def newest_scheduled(runs: Runs) -> str | None:
    """Airflow computes the next from it."""
    scheduled = [each for each in runs.values() if each["run_type"] == "scheduled"]
    newest = max(scheduled, key=lambda each: str(each["logical_date"]), default=None)
    return None if newest is None else str(newest["dag_run_id"])


def next_run(stack: RunningStack) -> str:
    answer = stack.rest("GET", f"/dags/{SWEEP}")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["next_dagrun_run_after"])


def archive(stack: RunningStack) -> RestReports:
    """Airflow as the tasks' own account sees it, whose pass this is."""
    places = load(Layout(home=stack.settings.home)).places
    return RestReports(
        stack.settings.airflow_url, places["AIRFLOW_SERVICE_USER"], places["AIRFLOW_SERVICE_PASSWORD"]
    )


@pytest.fixture
def logs(stack: RunningStack) -> Path:
    return stack.settings.home / "airflow" / "logs"


def test_they_go_with_their_logs_and_nothing_else_does(
    stack: RunningStack, server: PagedServer, logs: Path
) -> None:
    stack.submit({"source": "example_offset", "force": True})
    machinery = machinery_dag_ids(lane_rules())
    others = [f"collect_{lane}" for lane in lane_rules().lanes] + ["collect_submit", "source_example_offset"]

    def has_passed() -> bool:
        scheduled = [each for each in runs_of(stack, SWEEP).values() if each["run_type"] == "scheduled"]
        return sum(each["state"] == "success" for each in scheduled) > 1

    wait_for("two scheduled sweeps", has_passed, 300, poll_s=2)
    failed, ended = f"old.{uuid.uuid4().hex}", f"old.{uuid.uuid4().hex}"
    for run_id in (failed, ended):
        assert stack.trigger("lane_bulk", {}, run_id=run_id).status_code == 200
        stack.run_ended("lane_bulk", run_id, 300)
    # As if one of them had failed: people have to see it.
    answer = stack.rest("PATCH", f"/dags/lane_bulk/dagRuns/{failed}", body={"state": "failed"})
    assert answer.status_code == 200, answer.text
    assert (logs / "dag_id=lane_bulk" / f"run_id={ended}").is_dir()

    until = datetime.now(UTC)
    before = {dag_id: runs_of(stack, dag_id) for dag_id in [*machinery, *others]}
    kept_logs = {dag_id: sorted((logs / f"dag_id={dag_id}").glob("*")) for dag_id in others}
    backends, removed = Backends.from_environment(os.environ), 0
    for _ in range(PASSES):
        done = run_once(backends, lane_rules(), lambda: archive(stack), logs, every_s=0.0, now=until + KEPT)
        assert done.failed == 0
        removed += done.runs
        if not done.more:
            break
    assert not done.more
    assert removed > 1
    for dag_id in machinery:
        after = runs_of(stack, dag_id)
        known = before[dag_id] | after
        stays = newest_scheduled(known)
        for run_id, run in before[dag_id].items():
            if ended_well(run, until) and run_id != stays:
                # What was the newest is there yet, if the next one came after its DAG's turn.
                assert run_id not in after or run_id == newest_scheduled(before[dag_id]), (dag_id, run_id)
                if run_id not in after:
                    assert not (logs / f"dag_id={dag_id}" / f"run_id={run_id}").exists(), (dag_id, run_id)
            else:
                assert run_id in after, (dag_id, run_id, run["state"])
    after = runs_of(stack, "lane_bulk")
    assert (failed in after, ended in after) == (True, False)
    assert (logs / "dag_id=lane_bulk" / f"run_id={failed}").is_dir()
    for dag_id in others:
        assert set(before[dag_id]) <= set(runs_of(stack, dag_id))
        assert set(kept_logs[dag_id]) <= set((logs / f"dag_id={dag_id}").glob("*"))
    # The schedule goes on from the run that stayed.
    due = datetime.fromisoformat(next_run(stack))
    assert due - datetime.now(UTC) < timedelta(minutes=3)
    known = set(runs_of(stack, SWEEP))
    wait_for(
        "the next scheduled sweep",
        lambda: [
            run_id for run_id, each in runs_of(stack, SWEEP).items()
            if each["run_type"] == "scheduled" and run_id not in known
        ],
        180,
        poll_s=2,
    )  # fmt: skip
