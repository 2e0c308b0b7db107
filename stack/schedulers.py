"""A scheduler that died: its job is marked as failed before the next one starts.

Airflow takes a scheduler for dead when it has sent no heartbeat for a minute. Whoever starts the next one knows at
once, and what the dead one had queued is taken up as soon as the new one runs. Containers do the same, for a scheduler
that starts again under the same host name (`python -m stack.schedulers`).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

import psycopg

from stack import env_files, postgres
from stack.settings import Stack

#: Airflow's schema comes with the first start.
EXISTS = "SELECT to_regclass('job') IS NOT NULL AND to_regclass('task_instance') IS NOT NULL"
MARK = """
    UPDATE job SET state = 'failed', end_date = now()
    WHERE job_type = 'SchedulerJob' AND state = 'running' AND hostname = ANY(%s)
    RETURNING id
"""
# What stood in the executor's hands when it died may never have been sent: without this id it is not adopted, but
# queued again at once. A message that was sent all the same is refused, since the task instance has another id by then.
FORGET_SENT = """
    UPDATE task_instance SET external_executor_id = NULL
    WHERE state = 'queued' AND queued_by_job_id = ANY(%s)
"""


def own_names() -> list[str]:
    """What Airflow may call this machine in its jobs."""
    return sorted({socket.gethostname(), socket.getfqdn()})


def mark_dead(connection: psycopg.Connection, hostnames: Sequence[str]) -> list[int]:
    """Mark the jobs of schedulers that ran on a machine, where none runs now; repeatable.

    Args:
        connection: To Airflow's database.
        hostnames: What the machine is called.

    Returns:
        The ids of the jobs.
    """
    exists = connection.execute(EXISTS).fetchone()
    if exists is None or not exists[0]:
        return []
    with connection.transaction():
        jobs = [row[0] for row in connection.execute(MARK, [list(hostnames)]).fetchall()]
        connection.execute(FORGET_SENT, [jobs])
    return jobs


def forget_dead(stack: Stack) -> None:
    """Mark the jobs of this stack's schedulers on this machine; called before each start, when none runs."""
    with postgres.connect(stack, stack.places["POSTGRES_AIRFLOW_DB"]) as connection:
        jobs = mark_dead(connection, own_names())
    if jobs:
        print(f"the last scheduler died: job {', '.join(map(str, jobs))} marked as failed", flush=True)


def main() -> int:
    """The same in a container, by its own environment."""
    address = env_files.database(os.environ).replace("postgresql+psycopg2", "postgresql")
    with psycopg.connect(address, connect_timeout=5, autocommit=True) as connection:
        jobs = mark_dead(connection, own_names())
    if jobs:
        print(f"the last scheduler died: job {', '.join(map(str, jobs))} marked as failed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
