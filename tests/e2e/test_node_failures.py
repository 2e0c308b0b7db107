"""What becomes of a demo-sized run when one of three nodes fails in its middle (`make chaos`).

Three worker hosts in network namespaces, 336,776 rows, a second of pause before each request; the strike comes when
30 % of the rows have landed, at a node that runs a shard group. What came of each is appended to recoveries.jsonl.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from demo.run import submit
from tests.e2e.kills import Middle, empty_table, flights, kill_client, landed, record, recover
from tests.e2e.node_stack import NodeStack, node_stack
from tests.e2e.running_stack import CHECKOUT, wait_for

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make network namespaces"),
]
DELAY_S = 1.0
#: The lease of a shard, one pass, and the wake-up of the lane.
STARTS_WITHIN_S = 45.0
Strike = Callable[[NodeStack, str], None]


@pytest.fixture(scope="module")
def nodes() -> Iterator[NodeStack]:
    with node_stack(
        CHECKOUT / ".stack" / "chaos-nodes", environment={"COLLECT_NODE_HEARTBEAT_S": "10"}
    ) as running:
        yield running


def signal_worker(nodes: NodeStack, node_id: str, number: signal.Signals) -> None:
    for process in nodes.processes_of(node_id, "worker"):
        process.send_signal(number)


def fill_disk(nodes: NodeStack, node_id: str) -> None:
    size_mb = 4
    with nodes.tmpfs(node_id, size_mb) as folder:
        with pytest.raises(OSError, match="No space left"):
            (folder / "full").write_bytes(b"0" * (size_mb + 1) * 1024 * 1024)
        full = "SELECT 1 FROM collect.node WHERE id = %s AND disk_percent > 95"
        wait_for("its heartbeat", lambda: nodes.stack.rows(full, node_id), 40)
        submitted = nodes.stack.submit({"source": "example_offset", "force": True})
        placed = "SELECT nodes FROM collect.task WHERE id = %s AND attempt > 0"
        (row,) = wait_for("a placement", lambda: nodes.stack.rows(placed, submitted["task_id"]), 60)
        assert node_id not in row["nodes"], "nothing new is placed on it"


def lose_all(nodes: NodeStack, _: str) -> None:
    for node_id in nodes.ids:
        nodes.kill(node_id)
    time.sleep(20)
    nodes.revive(*nodes.ids)


def drain(nodes: NodeStack, node_id: str) -> None:
    done = nodes.stack.command("collect_ops.cli", "nodes", "drain", node_id, "--within", "30")
    assert done.returncode == 0, done.stdout + done.stderr


def kill_broker(nodes: NodeStack, _: str) -> None:
    Middle(stack=nodes.stack, task_id=0, rows=0).kill_service("rabbitmq")


STRIKES: dict[str, tuple[Strike, Strike]] = {
    "killed node": (lambda n, v: n.kill(v), lambda n, v: n.revive(v)),
    "killed worker": (lambda n, v: n.kill_program(v, "worker"), lambda n, v: None),
    "node paused and woken again": (lambda n, v: n.pause(v), lambda n, v: n.resume(v)),
    "hung worker, its agent alive": (
        lambda n, v: signal_worker(n, v, signal.SIGSTOP),
        lambda n, v: signal_worker(n, v, signal.SIGCONT),
    ),
    "network cut and healed": (lambda n, v: n.cut(v), lambda n, v: n.heal(v)),
    "disk full": (fill_disk, lambda n, v: None),
    "clean drain": (drain, lambda n, v: n.stack.command("collect_ops.cli", "nodes", "resume", v) and None),
    "worker asked to end (SIGTERM)": (
        lambda n, v: n.end_program(v, "worker"),
        lambda n, v: n.revive(v),
    ),
    "RabbitMQ killed, which carries the groups": (kill_broker, lambda n, v: None),
    "all nodes lost and back again": (lose_all, lambda n, v: None),
}


@pytest.mark.parametrize("failure", STRIKES)
def test_a_demo_sized_run_outlives_it(nodes: NodeStack, failure: str) -> None:
    stack = nodes.stack
    strike, mend = STRIKES[failure]
    struck: list[str] = []

    def strike_one(middle: Middle) -> None:
        struck.append(working_node(nodes, middle.task_id))
        strike(nodes, struck[0])

    recovery = recover(
        stack, failure, strike_one, flights(stack, delay_s=DELAY_S), mend=lambda: mend(nodes, struck[0])
    )
    record(stack, recovery)
    assert recovery.exact, recovery
    assert recovery.retries == 0, "a lost node is no failure"
    if failure not in ("disk full", "all nodes lost and back again") and recovery.again_s is not None:
        assert recovery.again_s < STARTS_WITHIN_S, recovery
    if failure in ("clean drain", "worker asked to end (SIGTERM)"):
        assert recovery.lost == 0, "what was handed back was not lost"


def test_a_plan_that_is_killed_is_taken_over(nodes: NodeStack) -> None:
    stack = nodes.stack
    with flights(stack, delay_s=DELAY_S).served() as checked:
        empty_table(stack, "landing.flights")
        task_id = submit(stack.airflow, "flights", force=True).task_id
        kill_client(stack, "collect-ops plan")
        wait_for(
            "its end",
            lambda: stack.rows(
                "SELECT 1 FROM collect.task WHERE id = %s AND finished_at IS NOT NULL", task_id
            ),
            240,
        )
        assert checked() == (336_776, True)


def working_node(nodes: NodeStack, task_id: int) -> str:
    """A node that runs a shard group of the task."""
    found = wait_for(
        "a node at work",
        lambda: nodes.stack.rows(
            """SELECT g.node FROM collect.shard_group AS g JOIN collect.task AS t ON t.run_id = g.run_id
               WHERE t.id = %s AND g.status = 'OPEN' AND g.started_at IS NOT NULL ORDER BY g.group_no""",
            task_id,
        ),
        20,
    )
    assert landed(nodes.stack, task_id) > 0
    return str(found[0]["node"])
