"""A running stack of release 0.1.0 is upgraded, with tasks in every state: nothing is lost, no retry is counted."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from demo.run import unpause_needed
from tests.e2e.installation import Installation
from tests.e2e.kills import landed, point_connection
from tests.e2e.node_stack import names_a_stack
from tests.e2e.running_stack import RunningStack, wait_for
from tests.servers.paged import Failure, PagedServer, Recorded

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]
ROWS = 1500
CONNECTION = "upgrade_api"
LATER_S = 300
COUNT = "SELECT count(*) AS rows, count(DISTINCT id) AS ids, min(id) AS low, max(id) AS high FROM landing.{}"


def declared(name: str, **more: Any) -> dict[str, Any]:
    """A source that both the release and this checkout know; its requests carry its name. None leaves a field out."""
    fields = {
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
    return {field: value for field, value in fields.items() if value is not None}


SHARDS = {"shards": {"by": "count", "max_size": 250}}
SOURCES = {
    name: declared(name, **more)
    for name, more in {
        "upgrade_ended": {},
        # 300 pages: it runs until the others are where they shall be, on a busy machine, too.
        "upgrade_slow": {"max_active_tasks": 1, "page_size": 5},
        "upgrade_waiting": {},
        # Due again when the upgrade has begun.
        "upgrade_retrying": {"retries": {"base_s": 60}},
        "upgrade_dead": {},
        "upgrade_queued": {},
        # Replaces its table; dies with one of six shards not fetched.
        "upgrade_half": {
            **SHARDS,
            "target": {
                "table": "upgrade_half",
                "disposition": "replace",
                "columns": {"id": {"type": "bigint"}},
            },
        },
        "upgrade_partial": {**SHARDS, "max_failed_shards": 1},
        "upgrade_merged": {
            "request": {
                "path": "/select",
                "query": {"ids": "{ids}", "probe": "upgrade_merged"},
                "params": {"ids": {"type": "string"}},
            },
            "paging": {"type": "none"},
            "total": {"type": "body", "path": "matching"},
            "batch_size": None,
            "page_size": None,
            "merge": {"type": "list", "param": "ids", "column": "id", "max_values": 50},
            "merge_window_seconds": 600,
        },
    }.items()
}
#: Rows of the tables whose sources are not fetched to their end.
FEWER_ROWS = {"upgrade_partial": 1250, "upgrade_merged": 4}


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


def healthy_status(installation: Installation) -> dict[str, Any]:
    """What `stack status` says; a server of a busy machine may not answer one look in time."""

    def look() -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(installation.run("stack", "status", "--json"))
        except AssertionError:
            return None
        return found

    return wait_for("a healthy stack", look, 120, poll_s=2)


def has_status(stack: RunningStack, task_id: int, *statuses: str) -> bool:
    return stack.task(task_id)["status"] in statuses


def lacks_its_end(source: str) -> Callable[[Recorded], bool]:
    """The requests of a source's last shard."""
    return lambda request: (
        request.query.get("probe") == source and int(request.query.get("offset", 0)) >= 1250
    )


def is_page(request: Recorded, source: str) -> bool:
    """Not the look at the total, which planning takes."""
    return request.query.get("probe") == source and int(request.query.get("limit", 0)) > 1


def unfinished_rows(stack: RunningStack, task_id: int) -> set[int]:
    """Offsets of rows that a task has not fetched: those of its shards that are not done."""
    shards = stack.rows(
        "SELECT span_offset, span_size FROM collect.shard WHERE task_id = %s AND status <> 'DONE'", task_id
    )
    spans = [range(each["span_offset"], each["span_offset"] + each["span_size"]) for each in shards]
    return set(chain(*spans))


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
    assert old.task_ended(submit(old, "upgrade_half"), LATER_S)["status"] == "COMPLETED"
    for source in ("upgrade_half", "upgrade_partial"):
        server.fail_where(lacks_its_end(source), Failure(status=404))
    tasks["half"], over = submit(old, "upgrade_half"), {"partial": submit(old, "upgrade_partial")}
    assert old.task_ended(tasks["half"], LATER_S)["status"] == "DEAD"
    assert old.task_ended(over["partial"], LATER_S)["status"] == "PARTIAL"
    missing = unfinished_rows(old, tasks["half"])
    assert set(range(1250, ROWS)) <= missing < set(range(ROWS)), "it is half done"
    pause(old, "lane_bulk")
    tasks["queued"] = submit(old, "upgrade_queued", priority=1)
    tasks["survivor"], tasks["merged"] = (
        submit(old, "upgrade_merged", priority=1, force=False, params={"ids": ids})
        for ids in ("1,2", "2,3,4")
    )
    assert old.task(tasks["merged"])["merged_into"] == tasks["survivor"]
    over["cancelled"] = submit(old, "upgrade_queued", priority=1)
    installation.run("collect_ops.cli", "cancel", str(over["cancelled"]), **installation.exports())
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
    before = {name: old.task(task_id) for name, task_id in (tasks | over).items()}
    print({name: task["status"] for name, task in before.items()})
    assert [before[name]["status"] for name in ("slow", "held", "merged", "cancelled")] == [
        "RUNNING", "HELD", "MERGED", "CANCELLED",
    ]  # fmt: skip
    server.mend()

    installation.pull()
    # Between `git pull` and `make up`: what runs goes on, old processes beside new files.
    there = landed(old, tasks["slow"])
    wait_for("rows of what runs, beside the new files", lambda: landed(old, tasks["slow"]) > there, 60)
    window = {name: old.task(each) for name, each in tasks.items()}
    assert [name for name, each in window.items() if each["status"] == "DEAD"] == ["dead", "half"]
    assert not [name for name, each in window.items() if each["lost_count"] > before[name]["lost_count"]]
    old.close()

    began = time.monotonic()
    told = installation.run("stack", "up")
    print(told, f"upgraded in {time.monotonic() - began:.0f} s", sep="\n")
    server.delay_s = 0.0

    status = healthy_status(installation)
    assert {line["service"]: (line["state"], line["code"]) for line in status["services"]} == {
        line["service"]: ("healthy", "current") for line in status["services"]
    }
    with monkeypatch.context() as patch:
        new = running_stack(installation.exports("--all"), patch)
        unpause_needed(new.airflow)
        letters = new.rows(
            "SELECT id::text FROM collect.dead_letter WHERE task_id IN (%s, %s)", tasks["dead"], tasks["half"]
        )
        assert len(letters) == 2
        asked = len(server.requests)
        redriven = installation.run(
            "collect_ops.cli",
            "dead",
            "redrive",
            *(letter["id"] for letter in letters),
            **installation.exports("--all"),
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
        for name in ("ended", "queued", "slow", "held", "waiting", "survivor", "merged"):
            assert after[name]["retry_count"] == 0, counts
            assert after[name]["lost_count"] == 0, counts
        assert after["retrying"]["retry_count"] == before["retrying"]["retry_count"], counts
        assert (after["merged"]["merged_into"], after["merged"]["result"]["rows_landed"]) == (
            tasks["survivor"],
            3,
        )
        for name, task_id in over.items():
            kept = new.task(task_id)
            assert (kept["status"], kept["attempt"]) == (before[name]["status"], before[name]["attempt"])
        again = {
            int(each.query["offset"]) for each in server.requests[asked:] if is_page(each, "upgrade_half")
        }
        assert again, "what was missing is fetched"
        assert again <= missing, "and nothing else: it goes on from the rows that the release has put aside"
        for source in SOURCES:
            (found,) = new.rows(COUNT.format(source))
            low, rows = (1 if source == "upgrade_merged" else 0), FEWER_ROWS.get(source, ROWS)
            assert found == {"rows": rows, "ids": rows, "low": low, "high": low + rows - 1}, source
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
    told = installation.run("stack", "up")
    assert told.count("runs already") == len(status["services"]), "what runs this code is left alone"


def pause(stack: RunningStack, dag_id: str) -> None:
    answer = stack.rest("PATCH", f"/dags/{dag_id}", body={"is_paused": True})
    assert answer.status_code == 200, answer.text
