"""LocalExecutor, the setting for small machines: its scheduler loses PostgreSQL under a long group (`make chaos`).

The scheduler leaves its loop then and waits for the group, which is its child: its process lives and does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from benchmarks import slow_source
from benchmarks.slow_source import LONG_PAGE_S, Kind
from tests.e2e.kills import point_connection
from tests.e2e.node_stack import node_stack
from tests.e2e.running_stack import CHECKOUT, RunningStack, wait_for
from tests.e2e.test_recovery import admit, pid_of

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]
#: Less than the group takes. Its loop is silent for 30 s until it is called unwell, and for 30 more until it is
#: restarted; then the old scheduler ends, and the next one imports (79 and 91 s in all on a busy machine).
SOON_S = 4 * LONG_PAGE_S - 5
#: As long as a failover may take: the scheduler meets it in its loop, wherever it is.
CUT_FOR_S = 3.0
TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@pytest.fixture
def stack() -> Iterator[RunningStack]:
    environment = {"EXECUTOR": "LocalExecutor", "COLLECT_EXAMPLES": "1"}
    with node_stack(CHECKOUT / ".stack" / "chaos-local", count=0, environment=environment) as local:
        assert "worker" not in local.stack.services()
        yield local.stack


@pytest.fixture
def long_task(stack: RunningStack) -> Iterator[int]:
    """A task whose one group runs for nearly two minutes, and has begun."""
    with slow_source.serve() as port:
        point_connection(stack, "example_api", f"http://127.0.0.1:{port}")
        task_id = admit(stack, Kind.LONG, priority=5)
        landed = "SELECT 1 FROM collect.task_progress WHERE id = %s AND rows_landed > 0"
        wait_for("its first page", lambda: stack.rows(landed, task_id), 120)
        yield task_id


def cut_connections(stack: RunningStack) -> None:
    """Terminate every connection to PostgreSQL, again and again for a moment."""
    until = time.monotonic() + CUT_FOR_S
    with psycopg.connect(stack.settings.postgres_admin_dsn, autocommit=True) as connection:
        while time.monotonic() < until:
            connection.execute(TERMINATE)
            time.sleep(0.1)


def test_a_scheduler_that_lost_postgres_under_a_long_group_is_restarted(
    stack: RunningStack, long_task: int
) -> None:
    pid = pid_of(stack, "scheduler")
    struck = time.monotonic()
    cut_connections(stack)
    urgent = admit(stack, Kind.URGENT, priority=10)

    def complaint() -> str | None:
        line = stack.services()["scheduler"]
        return line["problem"] if line["state"] != "healthy" else None

    problem = wait_for("a health check that sees its loop", complaint, 60, poll_s=1, patient=True)
    assert "heartbeat" in problem
    assert pid_of(stack, "scheduler") == pid, "its process lives"

    started = "SELECT 1 FROM collect.task WHERE id = %s AND started_at IS NOT NULL"
    left_s = struck + SOON_S - time.monotonic()
    wait_for("the start of new work", lambda: stack.rows(started, urgent), left_s, patient=True)
    print(f"an urgent task has started {time.monotonic() - struck:.0f} s after the cut")
    assert stack.task(long_task)["finished_at"] is None, "it did not wait for the long group"
    assert pid_of(stack, "scheduler") not in (0, pid)
    log = (stack.settings.home / "logs" / "watchdog.log").read_text()
    assert f"restarting scheduler (process {pid})" in log

    stack.wait_until_healthy(240)
    for task_id in (urgent, long_task):
        task = stack.task_ended(task_id, 300)
        assert (task["status"], task["retry_count"]) == ("COMPLETED", 0)
    (rows,) = stack.rows("SELECT count(*) AS all, count(DISTINCT id) AS ids FROM landing.example_offset")
    assert (rows["all"], rows["ids"]) == (slow_source.LONG_ROWS + 1,) * 2
