"""A running stack of release 0.1.0 is upgraded, with tasks in every state: nothing is lost, no retry is counted."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.run import unpause_needed
from tests.e2e.installation import Installation
from tests.e2e.kills import landed, point_connection
from tests.e2e.node_stack import names_a_stack
from tests.e2e.running_stack import RunningStack, wait_for
from tests.servers.paged import Failure, PagedServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]
ROWS = 1500
CONNECTION = "upgrade_api"
LATER_S = 300
COUNT = "SELECT count(*) AS rows, count(DISTINCT id) AS ids, min(id) AS low, max(id) AS high FROM landing.{}"


def declared(name: str, **more: Any) -> dict[str, Any]:
    """A source that both the release and this checkout know; its requests carry its name."""
    return {
        "name": name,
        "connection": CONNECTION,
        "request": {"path": "/offset", "query": {"probe": name}},
        "records": "rows",
        "paging": {"type": "offset"},
        "total": {"type": "body", "path": "total"},
        "batch_size": 250,
        "page_size": 25,
        "dedup": {"ttl_h": 1},
        "target": {
            "table": name,
            "disposition": "merge",
            "key": ["id"],
            "columns": {"id": {"type": "bigint"}},
        },
        **more,
    }


SOURCES = {
    name: declared(name, **more)
    for name, more in {
        "upgrade_ended": {},
        "upgrade_slow": {"max_active_tasks": 1},
        "upgrade_waiting": {},
        "upgrade_retrying": {},
        "upgrade_dead": {},
        "upgrade_queued": {},
    }.items()
}


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation.of_release(tmp_path, SOURCES)
    try:
        made.start_release()
        yield made
    finally:
        made.remove()


@pytest.fixture
def server() -> Iterator[PagedServer]:
    with PagedServer(rows=ROWS) as running:
        yield running


def running_stack(variables: dict[str, str], patch: pytest.MonkeyPatch) -> RunningStack:
    """The stack as the other tests know it."""
    for key in [key for key in os.environ if names_a_stack(key)]:
        patch.delenv(key)
    for key, value in variables.items():
        if key not in ("PATH", "PYTHONPATH"):
            patch.setenv(key, value)
    return RunningStack.from_environment()


def has_status(stack: RunningStack, task_id: int, *statuses: str) -> bool:
    return stack.task(task_id)["status"] in statuses


def submit(stack: RunningStack, source: str, **more: Any) -> int:
    return int(stack.submit({"source": source, "force": True, **more}, 120)["task_id"])


def test_a_running_stack_is_upgraded(
    installation: Installation, server: PagedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = running_stack(installation.exports(), monkeypatch)
    unpause_needed(old.airflow)
    point_connection(old, CONNECTION, server.base_url)
    server.fail_where(lambda request: request.query.get("probe") == "upgrade_dead", Failure(status=404))
    server.fail_where(lambda request: request.query.get("probe") == "upgrade_retrying", Failure(status=500))

    tasks = {"ended": submit(old, "upgrade_ended")}
    old.task_ended(tasks["ended"], LATER_S)
    tasks["dead"] = submit(old, "upgrade_dead")
    old.task_ended(tasks["dead"], LATER_S)
    pause(old, "lane_bulk")
    tasks["queued"] = submit(old, "upgrade_queued", priority=1)
    server.delay_s = 1.5
    tasks["slow"] = submit(old, "upgrade_slow")
    wait_for("a running task", lambda: has_status(old, tasks["slow"], "RUNNING"), LATER_S)
    tasks["held"] = submit(old, "upgrade_slow")
    wait_for("a held task", lambda: has_status(old, tasks["held"], "HELD"), LATER_S)
    old.airflow.wait_for_dag("source_upgrade_waiting", 120)
    old.airflow.unpause("source_upgrade_waiting")
    waiting = old.trigger("source_upgrade_waiting", {})
    assert waiting.status_code == 200, waiting.text
    waiting_run = waiting.json()["dag_run_id"]
    wait_for(
        "a deferred source DAG",
        lambda: (
            "deferred"
            in [each["state"] for each in old.task_instances("source_upgrade_waiting", waiting_run)]
        ),
        LATER_S,
    )
    (row,) = old.rows("SELECT id FROM collect.task WHERE source = 'upgrade_waiting'")
    tasks["waiting"] = row["id"]
    tasks["retrying"] = submit(old, "upgrade_retrying")
    wait_for("a task to try again", lambda: has_status(old, tasks["retrying"], "RETRYING"), LATER_S)
    before = {name: old.task(task_id) for name, task_id in tasks.items()}
    print({name: task["status"] for name, task in before.items()})
    assert before["slow"]["status"] == "RUNNING", "it is slow enough to be met by the upgrade"

    installation.pull()
    # Between `git pull` and `make up`: what runs goes on, old processes beside new files.
    there = landed(old, tasks["slow"])
    wait_for("rows of what runs, beside the new files", lambda: landed(old, tasks["slow"]) > there, 60)
    window = {name: old.task(each) for name, each in tasks.items()}
    assert [name for name, each in window.items() if each["status"] == "DEAD"] == ["dead"]
    assert not [name for name, each in window.items() if each["lost_count"] > before[name]["lost_count"]]
    old.close()

    began = time.monotonic()
    told = installation.run("stack", "up")
    print(told, f"upgraded in {time.monotonic() - began:.0f} s", sep="\n")
    server.mend()
    server.delay_s = 0.0

    status = json.loads(installation.run("stack", "status", "--json"))
    assert {line["service"]: (line["state"], line["code"]) for line in status["services"]} == {
        line["service"]: ("healthy", "current") for line in status["services"]
    }
    with monkeypatch.context() as patch:
        new = running_stack(installation.exports("--all"), patch)
        unpause_needed(new.airflow)
        (letter,) = new.rows("SELECT id FROM collect.dead_letter WHERE task_id = %s", tasks["dead"])
        redriven = installation.run(
            "collect_ops.cli", "dead", "redrive", str(letter["id"]), **installation.exports("--all")
        )
        print(redriven)
        wait_for(
            "every task to complete",
            lambda: all(has_status(new, each, "COMPLETED") for each in tasks.values()),
            600,
            poll_s=1,
        )
        after = {name: new.task(task_id) for name, task_id in tasks.items()}
        counts = {
            name: (task["retry_count"], task["lost_count"], task["attempt"]) for name, task in after.items()
        }
        print(counts)
        for name in ("ended", "queued", "slow", "held", "waiting"):
            assert after[name]["retry_count"] == 0, counts
            assert after[name]["lost_count"] == 0, counts
        assert after["retrying"]["retry_count"] == before["retrying"]["retry_count"], counts
        for source in SOURCES:
            (found,) = new.rows(COUNT.format(source))
            assert found == {"rows": ROWS, "ids": ROWS, "low": 0, "high": ROWS - 1}, source
        assert new.run_ended("source_upgrade_waiting", waiting_run, LATER_S)["state"] == "success"
        failed = new.rest("GET", "/dags/~/dagRuns/~/taskInstances?state=failed&limit=100")
        assert failed.status_code == 200, failed.text
        assert [
            (each["dag_id"], each["dag_run_id"], each["task_id"]) for each in failed.json()["task_instances"]
        ] == []
        assert new.open_groups() == []
        assert new.leases() == []
        fresh = submit(new, "upgrade_ended")
        assert new.task_ended(fresh, LATER_S)["status"] == "COMPLETED"
        new.close()
    again = installation.run("stack", "up")
    assert again.count("runs already") == len(status["services"]), "what runs this code is left alone"


def pause(stack: RunningStack, dag_id: str) -> None:
    answer = stack.rest("PATCH", f"/dags/{dag_id}", body={"is_paused": True})
    assert answer.status_code == 200, answer.text
