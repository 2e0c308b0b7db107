"""The trace: one row a stage of a collect task (admit, publish, claim, plan, fetch, land, settle, repair)."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from collect_ops.kernel.errors import CollectOpsError, Transient
from collect_ops.kernel.masking import mask
from collect_ops.storage import AsyncConnection, Connection, Jsonb, query

_STACK_LINES = 60


class Stage(StrEnum):
    """The stages of a collect task."""

    ADMIT = "admit"
    PUBLISH = "publish"
    CLAIM = "claim"
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
    """`describe_error`, with what settling decides by: `transient`, and `retry_after_s` where the host asked for it."""
    return {
        **describe_error(error),
        "transient": isinstance(error, Transient) or not isinstance(error, CollectOpsError),
        "retry_after_s": getattr(error, "retry_after_s", None),
    }


def write_traces(connection: Connection, rows: Sequence[TraceRow]) -> None:
    """Write trace rows in one round trip."""
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(query("journal/insert_trace"), [_values(row) for row in rows])


async def write_traces_async(connection: AsyncConnection, rows: Sequence[TraceRow]) -> None:
    """The same for asyncio."""
    if rows:
        async with connection.cursor() as cursor:
            await cursor.executemany(query("journal/insert_trace"), [_values(row) for row in rows])


def _values(row: TraceRow) -> dict[str, Any]:
    return {
        "task_id": row.task_id,
        "shard_no": row.shard_no,
        "attempt": row.attempt,
        "stage": row.stage,
        "duration_s": row.duration_s,
        "rows": row.rows,
        "bytes": row.bytes,
        "request": _jsonb(row.request),
        "response": _jsonb(row.response),
        "error": _jsonb(row.error),
    }


def _jsonb(value: Any) -> Jsonb | None:
    return None if value is None else Jsonb(_storable(mask(value)))


def _storable(value: Any) -> Any:
    """The value without what jsonb refuses (NUL, lone surrogates): it came from a server we do not know."""
    if isinstance(value, str):
        return value.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {str(_storable(str(key))): _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value
