"""Connections on the running stack: added with their secrets, kept out of sight, used by the command."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.running_stack import RunningStack
from tests.kept_python import KEPT
from tests.servers.paged import PagedServer, basic

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]
SECRET = "hush-hush-4711"


@pytest.fixture
def name(stack: RunningStack) -> Iterator[str]:
    """A connection's id that nobody uses; removed afterwards."""
    chosen = f"added_{uuid.uuid4().hex[:8]}"
    yield chosen
    from collect_ops.lanes.rest_runs import RestRuns

    RestRuns.from_environment().request("DELETE", f"/connections/{chosen}")


def collect_ops(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """The command as a person has it: what `make env` exports, and no connection of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW_CONN_")}
    return KEPT.run(
        "collect_ops.cli", *arguments, environment={**kept, **variables}, stdin=stdin, timeout_s=120
    )


def test_a_connection_is_added_and_used(stack: RunningStack, name: str, tmp_path: Path) -> None:
    with PagedServer(rows=20, required_headers=basic("me", SECRET)) as server:
        add = ("connection", "add", name, "--host", server.base_url, "--login", "me", "--password-stdin")
        added = collect_ops(*add, "--allow-private-networks", stdin=f"{SECRET}\n")
        assert added.returncode == 0, added.stderr
        again = collect_ops(*add, "--allow-private-networks", stdin="another one")
        assert again.returncode == 1
        declaration = {
            "name": "things",
            "connection": name,
            "auth": {"type": "basic"},
            "request": {"path": "/offset"},
            "records": "rows",
            "paging": {"type": "offset"},
            "page_size": 10,
            "batch_size": 10,
            "target": {"table": "things", "disposition": "append"},
        }
        path = tmp_path / "things.yaml"
        path.write_text(yaml.safe_dump(declaration), encoding="utf-8")
        # Without a variable: the password is read from this machine's stack.
        checked = collect_ops("source", "check", str(path), "--online", "--json")
        (verdict,) = json.loads(checked.stdout)
        states = {each["check"]: each["state"] for each in verdict["online"]}
        assert (states["connection"], states["next page"]) == ("ok", "ok"), checked.stdout
        replaced = collect_ops(*add, "--allow-private-networks", "--replace", stdin="another one")
        assert replaced.returncode == 0, replaced.stderr
        checked = collect_ops("source", "check", str(path), "--online", "--json")
        assert checked.returncode == 2
        for each in (added, again, replaced, checked):
            assert SECRET not in each.stdout + each.stderr
            assert "another one" not in each.stdout + each.stderr


def test_a_connection_that_is_not_defined(stack: RunningStack, name: str) -> None:
    tested = collect_ops("connection", "test", name)
    assert tested.returncode == 2
    assert f"collect-ops connection add {name}" in tested.stderr


def test_a_paused_lane_is_told(stack: RunningStack) -> None:
    from collect_ops.lanes.rest_runs import RestRuns

    runs = RestRuns.from_environment()
    runs.set_paused("lane_bulk", paused=True)
    try:
        since = f"since=2024-03-01T00:00:00.{uuid.uuid4().int % 10**6:06d}Z"
        submitted = collect_ops("submit", "example_offset", "-p", since, "--priority", "1", "--json")
        task_id = str(json.loads(submitted.stdout)["task_id"])
        told = json.loads(collect_ops("why", task_id, "--json").stdout)
        assert told["paused"] == ["lane_bulk"]
        assert "lane_bulk is paused" in told["sentences"][0]
        status = stack.command("stack", "status", "--json")
        assert "lane_bulk" in json.loads(status.stdout)["paused"]
        collect_ops("cancel", task_id)
    finally:
        runs.set_paused("lane_bulk", paused=False)
