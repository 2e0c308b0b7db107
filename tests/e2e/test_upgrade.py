"""A running stack of release 0.1.0 is upgraded to this checkout, with tasks in every state; nothing is lost or counted.

Its checkout is a folder that first holds the release's files and then, while it runs, these: what `git pull` does.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from demo.run import unpause_needed
from stack import processes
from stack.layout import CHECKOUT, Layout
from tests.e2e.kills import point_connection
from tests.e2e.node_stack import _exports, _names_a_stack
from tests.e2e.running_stack import RunningStack, wait_for
from tests.servers.paged import Failure, PagedServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]
RELEASE = "c3ff294"
ROWS = 1500
CONNECTION = "upgrade_api"
UP_TIMEOUT_S = 1200
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


@dataclass(slots=True, kw_only=True)
class Installation:
    """A checkout in a folder of its own, and its stack."""

    folder: Path
    layout: Layout

    @classmethod
    def of_release(cls, base: Path) -> Installation:
        """The release's files, and the sources of this test."""
        archive = subprocess.run(
            ["git", "-C", str(CHECKOUT), "archive", RELEASE], capture_output=True, check=False
        )
        if archive.returncode != 0:
            pytest.skip(f"git does not have commit {RELEASE}: {archive.stderr.decode().strip()}")
        folder = base / "checkout"
        folder.mkdir()
        subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
        made = cls(folder=folder, layout=Layout(home=base / "home", checkout=folder))
        made.declare()
        return made

    def declare(self) -> None:
        """Write the sources of this test; examples of the checkout are left out: they are noise here."""
        for file in (self.folder / "include" / "sources").glob("*.yaml"):
            file.unlink()
        for name, source in SOURCES.items():
            text = yaml.safe_dump(source, sort_keys=False)
            (self.folder / "include" / "sources" / f"{name}.yaml").write_text(text)

    def pull(self) -> None:
        """Have the files of this checkout in place of the release's, uncommitted ones included."""
        listed = subprocess.run(
            ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        for part in ("plugins", "stack", "dags", "config", "include", "scripts"):
            shutil.rmtree(self.folder / part)
        for name in filter(None, listed.stdout.split("\0")):
            if (CHECKOUT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, self.folder / name)
        self.declare()

    def run(self, module: str, *arguments: str, **variables: str) -> str:
        """A command of the checkout, on its stack; fails when it does."""
        own = {key: value for key, value in os.environ.items() if not _names_a_stack(key)}
        own |= {"STACK_HOME": str(self.layout.home), "PYTHONPATH": f"{self.folder}:{self.folder / 'plugins'}"}
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.folder, env={**own, **variables}, capture_output=True, text=True, check=False,
            timeout=UP_TIMEOUT_S,
        )  # fmt: skip
        assert done.returncode == 0, (
            f"{module} {' '.join(arguments)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
        return done.stdout

    def start_release(self) -> None:
        """Bring its stack up; on a slow machine the release gives up while its services still start."""
        for patience in range(4):
            try:
                self.run("stack", "up")
            except AssertionError:
                if patience == 3:
                    raise
            else:
                return

    def exports(self, *arguments: str) -> dict[str, str]:
        """What `stack env` says."""
        return {**_exports(self.run("stack", "env", *arguments)), "STACK_HOME": str(self.layout.home)}

    def remove(self) -> None:
        """Stop it, whatever state it is in, and remove its data."""
        for process in processes.leftovers(self.layout):
            _continue(process)
        self.run("stack", "clean", "--yes")
        assert processes.leftovers(self.layout) == []


def _continue(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        time.sleep(0)  # it has ended by itself


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation.of_release(tmp_path)
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
    for key in [key for key in os.environ if _names_a_stack(key)]:
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
    old.close()

    installation.pull()
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
