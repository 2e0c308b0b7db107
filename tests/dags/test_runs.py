"""`dag.test()` of the DAGs that people and schedules start: tasks run here, in a process with metadata of its own.

What they submit goes to the running stack, whose lanes collect it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.run import unpause_needed
from tests.e2e.kills import empty_table, point_connection, readings_are_exact
from tests.e2e.running_stack import CHECKOUT, RunningStack
from tests.servers.paged import PagedServer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def run_dags(home: Path, *runs: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Run DAGs one after the other, in a process with an Airflow home of its own; returns what came of them."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'plugins'}:{CHECKOUT / 'config'}",
    }
    arguments = [f"{dag_id}={json.dumps(conf)}" for dag_id, conf in runs]
    for command in (["airflow", "db", "migrate"], ["tests.dags.run_dag", *arguments]):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=CHECKOUT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return [json.loads(line.removeprefix("RESULT ")) for line in lines]


def test_runs_by_hand(tmp_path: Path) -> None:
    stack = RunningStack.from_environment()
    stack.wait_until_healthy()
    unpause_needed(stack.airflow)
    empty_table(stack, "landing.example_offset")
    with PagedServer(rows=2000) as server:
        point_connection(stack, "example_api", server.base_url)
        submitted, cleared, collected = run_dags(
            tmp_path,
            ("collect_submit", {"source": "example_offset", "force": True}),
            ("collect_normal", {"tasks": [{"task_id": 1, "attempt": 99}], "priority": 5, "lane": "normal"}),
            ("source_example_offset", {}),
        )
        answer = submitted["tasks"]["submit"]["result"]
        assert submitted["state"] == "success"
        admitted = f"task {answer['task_id']} admitted, now QUEUED"
        # Whether there was one to be forced over depends on what was collected before.
        assert answer["message"].partition(";")[0] == admitted
        assert stack.task_ended(answer["task_id"])["status"] == "COMPLETED"
    # A run whose attempt is not the task's any more: skipped, and nothing is settled.
    assert {name: task["state"] for name, task in cleared["tasks"].items()} == {
        "plan": "skipped",
        "collect": "skipped",
        "settle": "success",
    }
    assert cleared["tasks"]["settle"]["result"] == []
    # The source's own DAG waited (its trigger ran here) until the stack had collected it.
    end = collected["tasks"]["collect"]["result"]
    assert (collected["state"], end["status"], end["rows_landed"]) == ("success", "COMPLETED", 2000)
    assert readings_are_exact(stack, 2000)
    stack.close()
