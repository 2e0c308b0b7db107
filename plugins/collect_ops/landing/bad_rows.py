"""Rows that did not fit their columns, as people look at them: by reason, with examples, or one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from collect_ops.storage import Connection, query


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRowFilter:
    """Whose bad rows, and since when; None for everybody's and always.

    Args:
        task_id: Of this task.
        source: Of this source's tasks.
        since: Met at this time or later.
    """

    task_id: int | None = None
    source: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRowExample:
    """A bad row; `row_text` is the record as JSON in ASCII, cut where it is long."""

    task_id: int
    shard_no: int
    page: int
    ordinal: int
    at: datetime
    reason: str
    row_text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRowGroup:
    """Rows that did not fit for one reason.

    Args:
        pattern: The reason, without the values.
        examples: The newest row and the oldest.
    """

    pattern: str
    row_count: int
    task_count: int
    first_at: datetime
    last_at: datetime
    examples: tuple[BadRowExample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRows:
    """What did not fit.

    Args:
        row_count: All rows.
        reason_count: All reasons; `groups` may be fewer.
        groups: The most frequent reasons.
    """

    row_count: int
    reason_count: int
    groups: tuple[BadRowGroup, ...]


def group_bad_rows(connection: Connection, wanted: BadRowFilter, *, limit: int) -> BadRows:
    """Bad rows by reason, the most frequent first.

    Args:
        connection: Any.
        wanted: Whose.
        limit: So many reasons at most.
    """
    rows = connection.execute(query("landing/group_bad_rows"), {**asdict(wanted), "limit": limit}).fetchall()
    return BadRows(
        row_count=rows[0]["all_rows"] if rows else 0,
        reason_count=rows[0]["all_reasons"] if rows else 0,
        groups=tuple(_group(row) for row in rows),
    )


def read_bad_rows(connection: Connection, wanted: BadRowFilter) -> Iterator[dict[str, Any]]:
    """Bad rows one by one, task by task in the order of their pages; read as they are asked for."""
    with connection.transaction(), connection.cursor(name="bad_rows") as cursor:
        cursor.execute(query("landing/select_bad_rows"), asdict(wanted))
        yield from cursor


def _group(row: dict[str, Any]) -> BadRowGroup:
    examples = tuple(
        BadRowExample(**{**each, "at": datetime.fromisoformat(each["at"])}) for each in row["examples"]
    )
    fields = {name: row[name] for name in BadRowGroup.__dataclass_fields__ if name != "examples"}
    return BadRowGroup(**fields, examples=examples)
