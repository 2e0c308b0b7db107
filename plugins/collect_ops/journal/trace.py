"""The trace: one row a stage of a collect task (admit, publish, claim, place, plan, fetch, land, settle, repair)."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from collect_ops.kernel.errors import CollectOpsError, OwnOutage, Transient, Unanswered
from collect_ops.kernel.masking import mask
from collect_ops.storage import AsyncConnection, Connection, query

_STACK_LINES = 60


class Stage(StrEnum):
    """The stages of a collect task."""

    ADMIT = "admit"
    PUBLISH = "publish"
    CLAIM = "claim"
    PLACE = "place"
    PLAN = "plan"
    FETCH = "fetch"
    LAND = "land"
    SETTLE = "settle"
    REPAIR = "repair"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRow:
    """One stage, done or failed.

    Args:
        duration_s: How long it took, in seconds.
        rows: How many rows it was about.
        bytes: Size of what was read or written.
        request: What was asked, masked before it is stored.
        response: What came back, masked before it is stored.
        error: From `describe_error`.
    """

    task_id: int
    stage: Stage
    attempt: int
    duration_s: float
    shard_no: int | None = None
    rows: int | None = None
    bytes: int | None = None
    request: Any = None
    response: Any = None
    error: dict[str, Any] | None = None


def describe_error(error: BaseException) -> dict[str, Any]:
    """Class, message and stack of an exception, as JSON, masked."""
    stack = "".join(traceback.format_exception(error)).splitlines()[-_STACK_LINES:]
    described = {"class": type(error).__name__, "message": str(error), "stack": "\n".join(stack)}
    storable: dict[str, Any] = _storable(mask(described))
    return storable


def describe_failure(error: BaseException) -> dict[str, Any]:
    """`describe_error`, with what settling decides by.

    That is `transient`, `unanswered` (the host did not answer at all), `host_fault` (`down`, `sick`, or nothing that
    counts against the host), `deferred` (nothing failed: the host is held, or the declaration is `newer` than this
    process), `probed` (it was let through to try an endpoint, which did not answer), `outage` (nothing failed: a
    service of ours was away), and `retry_after_s` where it asked for it. `remedy` is what would mend it, where the
    error knows a statement or command.
    """
    return {
        **describe_error(error),
        "unanswered": isinstance(error, Unanswered),
        "transient": isinstance(error, Transient) or not isinstance(error, CollectOpsError),
        "retry_after_s": getattr(error, "retry_after_s", None),
        "host_fault": getattr(error, "host_fault", None),
        "deferred": getattr(error, "deferred", False),
        "probed": getattr(error, "probed", False),
        "outage": isinstance(error, OwnOutage),
        "remedy": getattr(error, "remedy", None),
        "newer": getattr(error, "newer", False),
    }


def write_traces(connection: Connection, rows: Sequence[TraceRow]) -> None:
    """Write trace rows with one statement."""
    if rows:
        connection.execute(query("journal/insert_traces"), {"traces": _encoded(rows)})


async def write_traces_async(connection: AsyncConnection, rows: Sequence[TraceRow]) -> None:
    """The same for asyncio."""
    if rows:
        await connection.execute(query("journal/insert_traces"), {"traces": _encoded(rows)})


def _encoded(rows: Sequence[TraceRow]) -> str:
    """All rows as one JSON text: a parameter each would cost ten times as much for a batch of thousands."""
    return f"[{','.join(map(_encoded_row, rows))}]"


def _encoded_row(row: TraceRow) -> str:
    values = _values(row)
    try:
        encoded = orjson.dumps(values)
    except TypeError:  # what came from a server: lone surrogates, keys that are no text
        encoded = orjson.dumps(_storable(values))
    return (orjson.dumps(_storable(values)) if b"\\u0000" in encoded else encoded).decode()


def _values(row: TraceRow) -> dict[str, Any]:
    return {
        "task_id": row.task_id,
        "shard_no": row.shard_no,
        "attempt": row.attempt,
        "stage": row.stage,
        "duration_s": row.duration_s,
        "rows": row.rows,
        "bytes": row.bytes,
        "request": mask(row.request),
        "response": mask(row.response),
        "error": mask(row.error),
    }


def _storable(value: Any) -> Any:
    """The value without what jsonb refuses (NUL, lone surrogates): it came from a server we do not know."""
    if isinstance(value, str):
        if value.isascii() and "\x00" not in value:
            return value
        return value.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {str(_storable(str(key))): _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value
