"""The nodes' network under a running stack: made, kept over a crash, changed, and gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stack import network
from stack.layout import Layout
from stack.processes import leftovers
from stack.settings import load
from tests.stack.command import run_stack

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make network namespaces"),
]


def up(layout: Layout, **variables: str) -> str:
    done = run_stack(layout.home, "up", "--only", "redis", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(home=tmp_path / "stack")
    yield layout
    done = run_stack(layout.home, "clean", "--yes")
    assert done.returncode == 0, done.stderr
    assert namespaces(layout) == []
    assert leftovers(layout) == []
    assert not Path(f"/sys/class/net/{network.bridge_of(layout)}").exists()


def namespaces(layout: Layout) -> list[str]:
    return sorted(path.name for path in network.NAMESPACES.glob(f"*{layout.stack_id}*"))


def redis_listens_at(layout: Layout) -> set[str]:
    (redis,) = [process for process in leftovers(layout, "redis") if process.name() == "redis-server"]
    return {link.laddr.ip for link in redis.net_connections("inet") if link.status == psutil.CONN_LISTEN}


def test_through_a_crash_and_changes(layout: Layout) -> None:
    up(layout, NODES="2")
    nodes = load(layout).nodes
    assert len(namespaces(layout)) == 2
    assert redis_listens_at(layout) == {"127.0.0.1", nodes.bridge}
    status = json.loads(run_stack(layout.home, "status", "--json").stdout)["services"]
    addresses = {line["service"]: line["address"] for line in status}
    assert addresses["worker-2"] == addresses["agent-2"] == nodes.address("node-2")

    # Remembered; and one node more does not touch what runs.
    redis = leftovers(layout, "redis")
    up(layout)
    up(layout, NODES="3")
    assert len(namespaces(layout)) == 3
    assert leftovers(layout, "redis") == redis

    # Everything dies at once.
    for process in leftovers(layout):
        process.send_signal(signal.SIGKILL)
    psutil.wait_procs(leftovers(layout), timeout=10)
    assert len(namespaces(layout)) == 3
    up(layout)
    assert len(namespaces(layout)) == 3
    assert load(layout).nodes.subnet == nodes.subnet

    # Back to none: who listened on the bridge is started anew.
    said = up(layout, NODES="0")
    assert "stopping what changes" in said
    assert namespaces(layout) == []
    assert redis_listens_at(layout) == {"127.0.0.1"}


def test_down_after_everything_died(layout: Layout) -> None:
    up(layout, NODES="1")
    for process in leftovers(layout):
        process.send_signal(signal.SIGKILL)
    done = run_stack(layout.home, "down")
    assert done.returncode == 0, done.stderr
    assert namespaces(layout) == []


def test_where_namespaces_are_not_wanted_nodes_share_the_machine(layout: Layout) -> None:
    up(layout, NODES="2", NODE_NETWORK="0")
    assert namespaces(layout) == []
    assert redis_listens_at(layout) == {"127.0.0.1"}
    status = json.loads(run_stack(layout.home, "status", "--json").stdout)["services"]
    assert [line["service"] for line in status if line["service"].startswith("worker-")] == [
        "worker-control", "worker-1", "worker-2",
    ]  # fmt: skip


def test_another_address_is_listened_on_until_it_is_taken_away(layout: Layout) -> None:
    own = next(
        each.address
        for name, addresses in psutil.net_if_addrs().items()
        for each in addresses
        if each.family is socket.AF_INET and name != "lo"
    )
    up(layout, LISTEN=own)
    assert redis_listens_at(layout) == {"127.0.0.1", own}
    up(layout, LISTEN="")
    assert redis_listens_at(layout) == {"127.0.0.1"}


def test_a_wrong_number_is_told_and_changes_nothing(layout: Layout) -> None:
    up(layout, NODES="1")
    done = run_stack(layout.home, "up", "--only", "redis", NODES="many")
    assert done.returncode == 1
    assert "error: NODES: 'many' cannot be used; allowed: a number from 0 to 32" in done.stderr
    assert load(layout).nodes.count == 1
