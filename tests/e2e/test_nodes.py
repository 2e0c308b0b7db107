"""The node that the stack runs on: registered by Airflow, alive through a kill of its agent and a flush of Redis."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests.e2e.running_stack import RunningStack, wait_for
from tests.servers.paged import PagedServer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def nodes(stack: RunningStack) -> list[dict[str, Any]]:
    done = stack.command("collect_ops.cli", "nodes", "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_the_node_lives(stack: RunningStack, server: PagedServer) -> None:
    (node,) = wait_for("the node's first heartbeat", lambda: nodes(stack), 120)
    wait_for("ACTIVE", lambda: nodes(stack)[0]["status"] == "ACTIVE", 120)
    assert node["slots"] == 10
    assert abs(node["clock_skew_s"]) < 1
    (before,) = stack.rows("SELECT boot_id FROM collect.node")

    task = stack.task_ended(stack.submit({"source": "example_offset", "force": True}, 60)["task_id"])
    groups = stack.rows("SELECT DISTINCT node FROM collect.shard_group WHERE run_id = %s", task["run_id"])
    assert groups == [{"node": node["id"]}], "workers and agent call the machine the same"

    (changes,) = stack.rows("SELECT coalesce(max(id), 0) AS id FROM collect.node_log")
    with stack.redis() as client:
        client.flushall()
    os.kill(int(stack.services()["agent"]["pid"]), signal.SIGKILL)
    stack.wait_until_healthy()
    wait_for(
        "a heartbeat of the agent that the supervisor started",
        lambda: stack.rows("SELECT 1 FROM collect.node WHERE boot_id <> %s", before["boot_id"]),
        120,
    )
    wait_for("ACTIVE again", lambda: nodes(stack)[0]["status"] == "ACTIVE", 120)
    moves = stack.rows("SELECT to_status FROM collect.node_log WHERE id > %s", changes["id"])
    assert "LOST" not in {move["to_status"] for move in moves}
