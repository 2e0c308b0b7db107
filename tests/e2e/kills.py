"""Killing a process in the middle of a run, and what came of it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import psutil

from demo.run import prepare_connection, submit, unpause_needed
from demo.server import DemoServer, ensure_running
from demo.verify import verify
from stack import supervisor
from stack.layout import Layout
from tests.e2e.running_stack import RunningStack, wait_for
from tests.e2e.slow_proxy import SlowProxy
from tests.servers.paged import PagedServer, row

#: Seconds from the kill within which the task must have completed by itself.
RECOVERY_LIMIT_S: Final = 150.0
#: Seconds after the task's end within which its run is over and nothing of it is left.
CLEARED_LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a kill came to.

    Args:
        victim: What was killed.
        source: What was collected.
        at_rows: Rows that had landed at that moment.
        completed_s: Seconds from the kill to the task's end, by this machine's clock.
        again_s: Seconds until the next attempt was claimed; None when there was none: others took over its shards.
        attempts: Attempts that the task took.
        lost: Attempts that counted as lost, not as failed.
        retries: Attempts that counted as failed.
        status: How the task ended.
        run_state: How the run of its last attempt ended.
        rows: In the target table.
        expected_rows: By the server's own count.
        checksum_ok: Every value of every row is the server's.
        leases_left: Leases that nobody has given back.
        groups_left: Shard groups that still hold a slot.
    """

    victim: str
    source: str
    at_rows: int
    completed_s: float
    again_s: float | None
    attempts: int
    lost: int
    retries: int
    status: str
    run_state: str
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


#: Counts the rows that landed, and says whether they are exact.
Checked = Callable[[], tuple[int, bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Something to collect.

    Args:
        source: Name of the source; its table is called the same.
        rows: How many there are.
        served: Serves them slowly for as long as the block lasts.
    """

    source: str
    rows: int
    served: Callable[[], AbstractContextManager[Checked]]


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


def kill_client(stack: RunningStack, application_name: str, timeout_s: float = 60) -> int:
    """kill -9 of the process behind a database connection of this name, once there is one; returns its pid."""
    port = wait_for(
        f"a connection called {application_name}",
        lambda: stack.rows(
            "SELECT client_port FROM pg_stat_activity WHERE application_name = %s", application_name
        ),
        timeout_s,
        poll_s=0.02,
    )[0]["client_port"]
    (pid,) = {
        link.pid
        for link in psutil.net_connections("tcp")
        if link.laddr and link.laddr.port == port and link.raddr and link.pid
    }
    assert_is_task_process(pid)
    os.kill(pid, signal.SIGKILL)
    return int(pid)


@contextmanager
def frozen(stack: RunningStack, service: str) -> Iterator[None]:
    """SIGSTOP for all of a service's processes: they accept connections, and answer nothing until the block ends."""
    main = psutil.Process(supervisor.states(Layout(home=stack.settings.home))[service].pid)
    processes = [main, *main.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@contextmanager
def stopped(stack: RunningStack, service: str) -> Iterator[None]:
    """A service stopped by the stack's supervisor, and started again when the block ends."""
    layout = Layout(home=stack.settings.home)
    supervisor.stop_programs(layout, [service])
    try:
        yield
    finally:
        supervisor.start_program(layout, service)
        stack.wait_until_healthy()


def assert_is_task_process(pid: int) -> None:
    """A pid that the database names is killed only if it is what it is said to be."""
    words = " ".join(psutil.Process(pid).cmdline())
    assert "airflow" in words, f"process {pid} is no Airflow task but {words!r}"


def flights(stack: RunningStack, *, delay_s: float) -> Load:
    """The demo's 336,776 rows from Datasette, checked by a checksum over all 19 columns."""

    @contextmanager
    def served() -> Iterator[Checked]:
        server = ensure_running(stack.settings.home)
        with SlowProxy(server.base_url, delay_s=delay_s) as proxy:
            point_connection(stack, "flights_api", proxy.base_url)
            try:
                yield lambda: _verified(stack, server)
            finally:
                prepare_connection(stack.airflow, server.base_url)

    return Load(source="flights", rows=336_776, served=served)


def readings(stack: RunningStack, *, rows: int, delay_s: float) -> Load:
    """Rows of the tests' own server, for the short form: compared one by one."""

    @contextmanager
    def served() -> Iterator[Checked]:
        with PagedServer(rows=rows) as server, SlowProxy(server.base_url, delay_s=delay_s) as proxy:
            point_connection(stack, "example_api", proxy.base_url)
            yield lambda: (
                stack.rows("SELECT count(*) AS n FROM landing.example_offset")[0]["n"],
                readings_are_exact(stack, rows),
            )

    return Load(source="example_offset", rows=rows, served=served)


def readings_are_exact(stack: RunningStack, rows: int) -> bool:
    """Whether landing.example_offset holds what the tests' server serves, value by value."""
    found = stack.rows(
        """SELECT id, reading::float8 AS value, even, _extra ->> 'name' AS name,
                  to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS at
           FROM landing.example_offset ORDER BY id"""
    )
    return found == [row(number) for number in range(rows)]


def point_connection(
    stack: RunningStack, connection_id: str, base_url: str, *, login: str | None = None, password: str = ""
) -> None:
    """Have an Airflow connection point at a server of this machine, of which no breaker has heard."""
    extra = json.dumps({"allow_private_networks": True})
    settings = {"conn_type": "http", "host": base_url, "extra": extra, "login": login, "password": password}
    stack.airflow.put_connection(connection_id, settings)
    for circuits in ("collect.host", "collect.endpoint"):
        if _exists(stack, circuits):  # a release before 0.2.0 has none of endpoints
            stack.execute(f"DELETE FROM {circuits} WHERE connection = %s", connection_id)


def empty_table(stack: RunningStack, table: str) -> None:
    """Empty a target: rows of an earlier run would hide missing ones."""
    if _exists(stack, table):
        stack.execute(f"TRUNCATE {table}")


def _exists(stack: RunningStack, table: str) -> bool:
    return stack.rows("SELECT to_regclass(%s) AS found", table)[0]["found"] is not None


def _verified(stack: RunningStack, server: DemoServer) -> tuple[int, bool]:
    verification = verify(stack.settings.postgres_dsn, server)
    return verification.rows, verification.exact


def landed(stack: RunningStack, task_id: int) -> int:
    """Rows of the task that have landed."""
    found = stack.rows("SELECT rows_landed FROM collect.task_progress WHERE id = %s", task_id)
    return int(found[0]["rows_landed"]) if found else 0


def recover(
    stack: RunningStack,
    victim: str,
    strike: Callable[[Middle], None],
    load: Load,
    *,
    share: float = 0.3,
    mend: Callable[[], None] = lambda: None,
) -> Recovery:
    """Collect, strike when a share of the rows has landed, and see what becomes of the task.

    Args:
        stack: Where.
        victim: What is struck, for the record.
        strike: Strikes.
        load: What is collected.
        share: Of the rows, after which it strikes.
        mend: Makes good what was struck, once the task has ended without it.
    """
    stack.wait_until_healthy()
    unpause_needed(stack.airflow)
    with load.served() as checked:
        empty_table(stack, f"landing.{load.source}")
        task_id = submit(stack.airflow, load.source, force=True).task_id
        wanted = int(load.rows * share)
        rows = wait_for(
            f"{wanted} rows of task {task_id}",
            lambda: count if (count := landed(stack, task_id)) >= wanted else None,
            120,
            poll_s=0.05,
        )
        struck, struck_at = time.monotonic(), datetime.now(UTC)
        strike(Middle(stack=stack, task_id=task_id, rows=rows))
        ended = end_of(stack, task_id, f"after {victim} was struck")
        completed_s = time.monotonic() - struck
        mend()
        stack.wait_until_healthy()
        run_state = wait_until_run_ended(stack, ended["dag_id"], ended["run_id"])
        wait_until_cleared(stack)
        found_rows, exact = checked()
    return Recovery(
        victim=victim,
        source=load.source,
        at_rows=rows,
        completed_s=round(completed_s, 1),
        again_s=again_after(stack, task_id, struck_at),
        attempts=ended["attempt"],
        lost=ended["lost_count"],
        retries=ended["retry_count"],
        status=ended["status"],
        run_state=run_state,
        rows=found_rows,
        expected_rows=load.rows,
        checksum_ok=exact,
        leases_left=stack.leases(),
        groups_left=stack.open_groups(),
    )


def again_after(stack: RunningStack, task_id: int, struck_at: datetime) -> float | None:
    """Seconds from a moment, by the one clock of this machine, until the task was claimed again."""
    claimed = stack.rows(
        "SELECT min(at) AS at FROM collect.trace WHERE task_id = %s AND stage = 'claim' AND at > %s",
        task_id,
        struck_at,
    )[0]["at"]
    return None if claimed is None else round((claimed - struck_at).total_seconds(), 1)


def end_of(stack: RunningStack, task_id: int, when: str) -> dict[str, Any]:
    """A task once it has ended by itself; a PostgreSQL that restarts is waited for."""
    ended = "SELECT * FROM collect.task WHERE id = %s AND finished_at IS NOT NULL"
    return wait_for(
        f"end of task {task_id} {when}",
        lambda: stack.rows(ended, task_id),
        RECOVERY_LIMIT_S,
        patient=True,
    )[0]


def wait_until_run_ended(stack: RunningStack, dag_id: str, run_id: str) -> str:
    """The state in which the last attempt's run ended: a run that hangs holds one of its DAG's places."""
    return str(stack.run_ended(dag_id, run_id, CLEARED_LIMIT_S)["state"])


def wait_until_cleared(stack: RunningStack) -> None:
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
