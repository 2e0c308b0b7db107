"""Worker hosts of a stack of their own do the work, and the others go on when one is cut off, frozen or dead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.kills import empty_table, point_connection, readings_are_exact
from tests.e2e.node_stack import NodeStack, node_stack
from tests.e2e.running_stack import wait_for
from tests.servers.paged import PagedServer

# A stack with two more workers takes minutes to start on two cores: the long form, `make chaos`.
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]
ROWS = 2000


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeStack]:
    home: Path = tmp_path_factory.mktemp("nodes") / "stack"
    labels = "node-1:region=eu;node-2:region=us"
    with node_stack(home, count=2, environment={"WORKER_SLOTS": "3", "NODE_LABELS": labels}) as running:
        yield running


def nodes(hosts: NodeStack) -> dict[str, dict[str, Any]]:
    done = hosts.stack.command("collect_ops.cli", "nodes", "--json")
    assert done.returncode == 0, done.stderr
    return {node["id"]: node for node in json.loads(done.stdout)}


def consumers(hosts: NodeStack, node_id: str) -> int:
    answer = httpx.get(
        f"{hosts.stack.settings.rabbitmq_api_url}/api/queues/celery/node.{node_id}", trust_env=False
    )
    return int(answer.raise_for_status().json().get("consumers", 0))


def collect(hosts: NodeStack, timeout_s: float) -> set[str]:
    """Collect the readings; returns the nodes that did."""
    empty_table(hosts.stack, "landing.example_offset")
    with PagedServer(rows=ROWS, host=hosts.bridge) as server:
        point_connection(hosts.stack, "example_api", server.base_url)
        submitted = hosts.stack.submit({"source": "example_offset", "force": True}, timeout_s)
        task = hosts.stack.task_ended(submitted["task_id"], timeout_s)
    assert task["status"] == "COMPLETED"
    assert readings_are_exact(hosts.stack, ROWS)
    groups = hosts.stack.rows(
        "SELECT node FROM collect.shard_group WHERE run_id = %s AND started_at IS NOT NULL", task["run_id"]
    )
    return {group["node"] for group in groups}


def test_nodes_live_at_addresses_of_their_own_and_do_the_work(hosts: NodeStack) -> None:
    wait_for("two nodes", lambda: len(nodes(hosts)) == 2, 120)
    found = nodes(hosts)
    assert {node_id: node["address"] for node_id, node in found.items()} == {
        node_id: hosts.address(node_id) for node_id in hosts.ids
    }
    assert {node_id: node["labels"] for node_id, node in found.items()} == {
        "node-1": {"region": "eu"}, "node-2": {"region": "us"},
    }  # fmt: skip
    assert collect(hosts, 180) <= set(hosts.ids)


def test_a_node_that_is_cut_off_holds_nothing_back(hosts: NodeStack) -> None:
    hosts.cut("node-1")
    try:
        # What RabbitMQ has handed to node-1 comes back after two of its heartbeats.
        assert collect(hosts, 240) == {"node-2"}
        wait_for("no consumer on node-1", lambda: consumers(hosts, "node-1") == 0, 60)
    finally:
        hosts.heal("node-1")
    wait_for("node-1 serving its queue", lambda: consumers(hosts, "node-1") == 1, 120)


def test_a_frozen_node_holds_nothing_back(hosts: NodeStack) -> None:
    hosts.pause("node-2")
    try:
        assert collect(hosts, 240) == {"node-1"}
    finally:
        hosts.resume("node-2")
    wait_for("node-2 serving its queue", lambda: consumers(hosts, "node-2") == 1, 120)


def test_a_dead_node_stays_dead_until_it_is_revived(hosts: NodeStack) -> None:
    hosts.kill("node-1")
    states = hosts.stack.services()
    assert (states["worker-1"]["state"], states["agent-1"]["state"]) == ("stopped", "stopped")
    assert collect(hosts, 180) == {"node-2"}
    wait_for("node-1 LOST", lambda: nodes(hosts)["node-1"]["status"] == "LOST", 180)
    hosts.revive("node-1")
    wait_for("node-1 ACTIVE", lambda: nodes(hosts)["node-1"]["status"] == "ACTIVE", 120)


def test_a_full_disk_of_a_node_is_its_own(hosts: NodeStack) -> None:
    with hosts.tmpfs("node-2", 8) as folder:
        (folder / "full").write_bytes(b"x" * 8 * 1024 * 1000)
        wait_for("a heartbeat that says so", lambda: nodes(hosts)["node-2"]["disk_percent"] > 90, 120)
        assert nodes(hosts)["node-1"]["disk_percent"] < 90
