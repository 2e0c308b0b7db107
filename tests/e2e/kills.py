"""Killing a process in the middle of a run, and what came of it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import psutil

from demo.run import CONNECTION, SOURCE, prepare_connection, submit, unpause_needed
from demo.server import DemoServer, ensure_running
from demo.verify import verify
from tests.e2e.running_stack import RunningStack, wait_for
from tests.e2e.slow_proxy import SlowProxy

#: Seconds from the kill within which the task must have completed by itself.
RECOVERY_LIMIT_S: Final = 150.0
#: Seconds after the task's end within which its run is over and nothing of it is left.
CLEARED_LIMIT_S: Final = 60.0
SERVICES: Final = ("scheduler", "api-server", "triggerer", "dag-processor", "postgres", "redis", "rabbitmq")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a kill came to.

    Args:
        victim: What was killed.
        at_rows: Rows that had landed at that moment.
        completed_s: Seconds from the kill to the task's end, by this machine's clock.
        attempts: Attempts that the task took.
        lost: Attempts that counted as lost, not as failed.
        retries: Attempts that counted as failed.
        status: How the task ended.
        rows: In the target table.
        expected_rows: By the server's own count.
        checksum_ok: Every value of every row is the server's.
        leases_left: Leases that nobody has given back.
        groups_left: Shard groups that still hold a slot.
    """

    victim: str
    at_rows: int
    completed_s: float
    attempts: int
    lost: int
    retries: int
    status: str
    rows: int
    expected_rows: int
    checksum_ok: bool
    leases_left: list[str]
    groups_left: list[dict[str, Any]]

    @property
    def exact(self) -> bool:
        """The rows are the server's, and nothing is left over."""
        return (
            self.status == "COMPLETED"
            and self.rows == self.expected_rows
            and self.checksum_ok
            and not self.leases_left
            and not self.groups_left
        )


@dataclass(slots=True, kw_only=True)
class Middle:
    """A run in its middle.

    Args:
        stack: Where it runs.
        task_id: The collect task.
        rows: That have landed.
    """

    stack: RunningStack
    task_id: int
    rows: int

    def kill_service(self, name: str) -> None:
        """kill -9 of the service's process; its supervisor starts it again."""
        pid = int(self.stack.services()[name]["pid"])
        os.kill(pid, signal.SIGKILL)

    def kill_group(self) -> None:
        """kill -9 of one shard group's process."""
        group = self._groups()[0]
        assert_is_task_process(group["pid"])
        os.kill(group["pid"], signal.SIGKILL)

    def flush_redis(self) -> None:
        """Forget every lease, hint and wake-up."""
        with self.stack.redis() as client:
            client.flushall()

    def _groups(self) -> list[dict[str, Any]]:
        return wait_for(
            "a shard group at work",
            lambda: self.stack.rows(
                """SELECT g.run_id, g.group_no, g.pid FROM collect.shard_group AS g
                   JOIN collect.task AS t ON t.run_id = g.run_id
                   WHERE t.id = %s AND g.status = 'OPEN' AND g.pid IS NOT NULL ORDER BY g.group_no""",
                self.task_id,
            ),
            10,
        )


def assert_is_task_process(pid: int) -> None:
    """A pid that the database names is killed only if it is what it is said to be."""
    words = " ".join(psutil.Process(pid).cmdline())
    assert "airflow" in words, f"process {pid} is no Airflow task but {words!r}"


@contextmanager
def slow_flights(stack: RunningStack, delay_s: float) -> Iterator[DemoServer]:
    """The demo's data behind a proxy that makes a run last; its connection points at the server again afterwards."""
    server = ensure_running(stack.settings.home)
    with SlowProxy(server.base_url, delay_s=delay_s) as proxy:
        stack.airflow.put_connection(
            CONNECTION,
            {
                "conn_type": "http",
                "host": proxy.base_url,
                "extra": json.dumps({"allow_private_networks": True}),
            },
        )
        try:
            unpause_needed(stack.airflow)
            yield server
        finally:
            prepare_connection(stack.airflow, server)


def landed(stack: RunningStack, task_id: int) -> int:
    """Rows of the task that have landed."""
    found = stack.rows("SELECT rows_landed FROM collect.task_progress WHERE id = %s", task_id)
    return int(found[0]["rows_landed"]) if found else 0


def recover(
    stack: RunningStack, victim: str, strike: Callable[[Middle], None], *, delay_s: float, share: float = 0.3
) -> Recovery:
    """Collect the flights, strike when a share of them has landed, and see what becomes of the task.

    Args:
        stack: Where.
        victim: What is struck, for the record.
        strike: Strikes.
        delay_s: Of each request of the source.
        share: Of the rows, after which it strikes.
    """
    stack.wait_until_healthy()
    with slow_flights(stack, delay_s) as server:
        if stack.rows("SELECT to_regclass('landing.flights') AS found")[0]["found"]:
            stack.execute("TRUNCATE landing.flights")  # rows of an earlier run would hide missing ones
        task_id = submit(stack.airflow, SOURCE, force=True).task_id
        wanted = int(server.dataset.rows * share)
        rows = wait_for(
            f"{wanted} rows of task {task_id}",
            lambda: count if (count := landed(stack, task_id)) >= wanted else None,
            120,
            poll_s=0.1,
        )
        struck = time.monotonic()
        strike(Middle(stack=stack, task_id=task_id, rows=rows))
        ended = wait_for(
            f"end of task {task_id} after {victim} was struck",
            lambda: stack.rows(
                "SELECT * FROM collect.task WHERE id = %s AND finished_at IS NOT NULL", task_id
            ),
            RECOVERY_LIMIT_S,
            patient=True,
        )[0]
        completed_s = time.monotonic() - struck
        stack.wait_until_healthy()
        _wait_until_cleared(stack)
        verification = verify(stack.settings.postgres_dsn, server)
    return Recovery(
        victim=victim,
        at_rows=rows,
        completed_s=round(completed_s, 1),
        attempts=ended["attempt"],
        lost=ended["lost_count"],
        retries=ended["retry_count"],
        status=ended["status"],
        rows=verification.rows,
        expected_rows=verification.expected_rows,
        checksum_ok=verification.checksum_ok,
        leases_left=stack.leases(),
        groups_left=stack.open_groups(),
    )


def _wait_until_cleared(stack: RunningStack) -> None:
    """Give what is on its way out its time; what is left then is asserted on by the caller."""
    deadline = time.monotonic() + CLEARED_LIMIT_S
    while (stack.leases() or stack.open_groups()) and time.monotonic() < deadline:
        time.sleep(0.5)


def record(stack: RunningStack, recovery: Recovery) -> None:
    """Add a recovery to `recoveries.jsonl` in the stack's folder: a line of JSON each, the newest last."""
    path = stack.settings.home / "recoveries.jsonl"
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(recovery)}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
