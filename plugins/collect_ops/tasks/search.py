"""Tasks found by what they have in common, newest first, page by page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.storage import Connection, query
from collect_ops.tasks.lifecycle import TaskStatus
from collect_ops.tasks.progress import rows_in_target

LOWEST, HIGHEST = 0, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """What tasks have in common; None for whatever it is.

    Args:
        status: In one of these states.
        source: Of this source.
        lane: In this lane.
        priority_min: Of this priority or above.
        priority_max: Of this priority or below.
        since: Admitted at this time or later.
        until: Admitted before this time.
        text: Holding this in the reason or the error, in capitals or not.
        before: With lower numbers than this: the next page.
        limit: So many at most.
    """

    status: tuple[TaskStatus, ...] | None = None
    source: str | None = None
    lane: str | None = None
    priority_min: int | None = None
    priority_max: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    before: int | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """A task in a line.

    Args:
        total_rows: Rows that the source has named, None when it has not.
        rows_in_target: Landed rows that stand in the target table, or will; see `rows_in_target`.
        reason: Why it is where it is, or the last error.
    """

    task_id: int
    source: str
    status: TaskStatus
    lane: str
    priority: int
    attempt: int
    retry_count: int
    total_rows: int | None
    rows_landed: int
    rows_in_target: int
    bad_rows: int
    reason: str | None
    submitted_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def filter_of(
    *,
    lanes: Sequence[str],
    status: Iterable[str] = (),
    source: str | None = None,
    lane: str | None = None,
    priority: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    text: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> TaskFilter:
    """A filter of what a command line gives.

    Args:
        lanes: Lanes that there are.
        status: States, in capitals or not.
        source: A source's name.
        lane: A lane's name.
        priority: `8`, or `8-10`.
        since: Admitted at this time or later.
        until: Admitted before this time.
        text: Part of a reason or an error.
        before: Only lower numbers.
        limit: So many at most.

    Raises:
        ValidationFailed: Some of it is unfit; all of that is named.
    """
    faults: list[Fault] = []
    states = tuple(dict.fromkeys(each.upper() for each in status))
    known = tuple(map(str, TaskStatus))
    faults += [Fault(field="--status", value=each, problem="is no state of a task", allowed=known)
               for each in states if each not in known]  # fmt: skip
    if lane is not None and lane not in lanes:
        faults.append(Fault(field="--lane", value=lane, problem="is no lane", allowed=tuple(lanes)))
    lowest, highest = _priorities(priority, faults)
    found = TaskFilter(
        status=tuple(TaskStatus(each) for each in states if each in known) or None,
        source=source,
        lane=lane,
        priority_min=lowest,
        priority_max=highest,
        since=since,
        until=until,
        text=text or None,
        before=before,
        limit=limit,
    )
    if faults:
        raise ValidationFailed("command line", faults)
    return found


def find_tasks(connection: Connection, wanted: TaskFilter) -> list[TaskSummary]:
    """A page of the tasks that match, newest first."""
    values = asdict(wanted)
    values["status"] = None if wanted.status is None else list(map(str, wanted.status))
    rows = connection.execute(query("tasks/select_tasks"), values).fetchall()
    return [_summary(row) for row in rows]


def _summary(row: dict[str, Any]) -> TaskSummary:
    fields = {name: row[name] for name in TaskSummary.__dataclass_fields__ if name in row}
    in_target = rows_in_target(row["rows_landed"], replaces=row["replaces"], swap=row["swap"])
    return TaskSummary(
        **{**fields, "task_id": row["id"], "status": TaskStatus(row["status"]), "rows_in_target": in_target}
    )


def _priorities(text: str | None, faults: list[Fault]) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    read = re.fullmatch(r"(\d{1,2})(?:\s*-\s*(\d{1,2}))?", text.strip(), re.ASCII)
    bounds = (int(read[1]), int(read[2] or read[1])) if read else (HIGHEST + 1, LOWEST)
    if not LOWEST <= bounds[0] <= bounds[1] <= HIGHEST:
        problem = f"must be {LOWEST} to {HIGHEST}, or a range of these such as 8-10"
        faults.append(Fault(field="--priority", value=text, problem=problem))
    return bounds
