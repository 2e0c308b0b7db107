"""How far a collect task is, read from PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg.rows import class_row

from collect_ops.tasks.lifecycle import TaskStatus
from demo.errors import NotInTime

#: One row a task; the shards are summed up, so that rows count while they land.
PROGRESS_SQL: Final = """
    select task.id as task_id, task.status, task.source, task.reason, task.attempt, task.retry_count as retries,
           task.dag_id, task.run_id, task.total_rows, coalesce(task.error::text, '') as error,
           count(shard.shard_no) as shards_total,
           count(shard.shard_no) filter (where shard.status = 'DONE') as shards_done,
           coalesce(sum(shard.rows_landed), 0)::bigint as rows,
           coalesce(sum(shard.bad_rows), 0)::bigint as bad_rows,
           coalesce(sum(shard.bytes), 0)::bigint as bytes,
           coalesce(sum(shard.http_retries), 0)::bigint as http_retries,
           extract(epoch from task.started_at - task.created_at)::float as start_s,
           extract(epoch from min(shard.started_at) - task.created_at)::float as first_shard_s,
           extract(epoch from task.finished_at - task.created_at)::float as total_s
    from collect.task as task left join collect.shard as shard on shard.task_id = task.id
    where task.id = %s
    group by task.id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A collect task at one moment.

    Attributes:
        total_rows: what the source said it has, None until it was asked.
        rows: landed so far.
        start_s: from admission to the collect run's first act, by the database's clock; None before.
        first_shard_s: from admission to the first shard taken; None before.
        total_s: from admission to the end; None before.
    """

    task_id: int
    status: str
    source: str
    reason: str | None
    attempt: int
    retries: int
    dag_id: str | None
    run_id: str | None
    total_rows: int | None
    error: str
    shards_total: int
    shards_done: int
    rows: int
    bad_rows: int
    bytes: int
    http_retries: int
    start_s: float | None
    first_shard_s: float | None
    total_s: float | None

    @property
    def final(self) -> bool:
        """Whether the task has ended."""
        return TaskStatus(self.status).final


def read_progress(connection: psycopg.Connection, task_id: int) -> Progress:
    """The task as it stands.

    Raises:
        LookupError: there is no such task.
    """
    with connection.cursor(row_factory=class_row(Progress)) as cursor:
        progress = cursor.execute(PROGRESS_SQL, (task_id,)).fetchone()
    if progress is None:
        raise LookupError(f"collect.task has no row with id {task_id}")
    return progress


def wait_until_settled(
    dsn: str,
    task_id: int,
    timeout_s: float,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    poll_s: float = 0.1,
) -> Progress:
    """Follow the task to its end.

    Args:
        dsn: PostgreSQL, database of the collected data.
        task_id: which task.
        timeout_s: seconds until this gives up.
        on_progress: called with every look.
        poll_s: seconds between two looks.

    Raises:
        NotInTime: the task had not ended by then; the task itself goes on.
    """
    deadline = time.monotonic() + timeout_s
    seen = "nothing yet"
    while time.monotonic() < deadline:
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                while time.monotonic() < deadline:
                    progress = read_progress(connection, task_id)
                    on_progress(progress)
                    if progress.final:
                        return progress
                    seen = f"{progress.status}, {progress.shards_done} of {progress.shards_total} shards"
                    time.sleep(poll_s)
        except psycopg.OperationalError as error:
            # PostgreSQL restarts: the task goes on, so does the watcher.
            seen = f"PostgreSQL away: {error}"
            time.sleep(0.5)
    raise NotInTime(what=f"end of task {task_id}", seconds=timeout_s, last_seen=seen)
