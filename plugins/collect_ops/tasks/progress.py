"""How far a task is: rows, shards, rate, remaining time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from collect_ops.storage import AsyncConnection, Connection, query
from collect_ops.tasks.lifecycle import TaskStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A task's progress.

    Args:
        total_rows: Rows the source has named, None when it has not.
        rows_fetched: With those of unchanged pages.
        unchanged_pages: Pages that have not changed since their rows landed, and were not sent again.
        unchanged_rows: Rows of these.
        elapsed_s: Seconds since the first attempt started, None before.
        quiet_s: Seconds since the last sign of life.
        replaces: Whether its rows replace the target's: they stand aside until they are swapped in.
        swap: What became of these, None where that is not decided; see `collect_ops.landing.model.Swap`.
        repeated_rows: Rows that the task has fetched twice; None before its end, and where they are not counted.
        repeated_unknown: Whether they were not counted, for their number.
    """

    task_id: int
    source: str
    status: TaskStatus
    reason: str | None
    priority: int
    lane: str
    attempt: int
    retry_count: int
    lost_count: int
    dag_id: str | None
    run_id: str | None
    total_rows: int | None
    shards_total: int | None
    shards_done: int
    shards_failed: int
    rows_fetched: int
    rows_landed: int
    bad_rows: int
    bytes: int
    unchanged_pages: int
    unchanged_rows: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    elapsed_s: float | None
    quiet_s: float
    replaces: bool = False
    swap: str | None = None
    repeated_rows: int | None = None
    repeated_unknown: bool = False

    @property
    def rows_in_target(self) -> int:
        """Landed rows that stand in the target table."""
        return rows_in_target(self.rows_landed, replaces=self.replaces, swap=self.swap)

    @property
    def rows_per_s(self) -> float | None:
        """Rows a second since the start, None before there are any."""
        if not self.elapsed_s or not self.rows_fetched:
            return None
        return self.rows_fetched / self.elapsed_s

    @property
    def remaining_s(self) -> float | None:
        """Seconds to go at the present rate; None when the total or the rate is not known."""
        if self.status.final:
            return 0.0
        rate = self.rows_per_s
        if rate is None or self.total_rows is None:
            return None
        return max(0.0, (self.total_rows - self.rows_fetched) / rate)


def rows_in_target(rows_landed: int, *, replaces: bool, swap: str | None) -> int:
    """Of a task's landed rows those that stand in its target table.

    Rows of disposition replace land beside it: until they are swapped in none of them is there, and of a task whose
    rows were dropped (they were not all, or a newer task was faster) none ever is.
    """
    return rows_landed if not replaces or swap == "SWAPPED" else 0


def read_progress(connection: Connection, task_id: int) -> Progress | None:
    """A task's progress; None when there is no such task."""
    return _progress(connection.execute(query("tasks/select_progress"), {"task_id": task_id}).fetchone())


async def read_progress_async(connection: AsyncConnection, task_id: int) -> Progress | None:
    """The same for asyncio."""
    return _progress(
        await (await connection.execute(query("tasks/select_progress"), {"task_id": task_id})).fetchone()
    )


def _progress(row: dict[str, Any] | None) -> Progress | None:
    if row is None:
        return None
    fields = {name: row[name] for name in Progress.__dataclass_fields__ if name in row}
    return Progress(**{**fields, "task_id": row["id"], "status": TaskStatus(row["status"])})
