"""Settling the tasks that were merged into another: each gets the outcome, and its own share of the rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from collect_ops.execution.policy import Outcome
from collect_ops.landing.shares import count_shares
from collect_ops.sources.model import Source
from collect_ops.storage import Connection, Jsonb, errors, query
from collect_ops.tasks.lifecycle import TaskStatus

log = logging.getLogger(__name__)

_GOOD = frozenset({TaskStatus.COMPLETED, TaskStatus.PARTIAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """Those for whom a survivor has collected, itself included, and how many of the rows are each one's.

    Args:
        merged: Tasks that wait for the survivor.
        shares: Rows by task; empty when they could not be counted.
        fault: Why not.
    """

    merged: tuple[int, ...]
    shares: Mapping[int, int]
    fault: str | None = None


def callers_of(connection: Connection, task: Mapping[str, Any], source: Source | None) -> Callers | None:
    """Who waits for a survivor, locked; None for a task that nothing was merged into.

    Args:
        connection: In the transaction that settles the survivor and holds its lock.
        task: The survivor's row.
        source: What it was admitted with; None when that cannot be read.
    """
    if not task["merged_task_ids"]:
        return None
    rows = connection.execute(query("execution/lock_merged"), {"task_id": task["id"]}).fetchall()
    asked = {task["id"]: task["own_params"], **{row["id"]: row["params"] for row in rows}}
    merged = tuple(row["id"] for row in rows)
    if source is None:
        return Callers(merged=merged, shares={}, fault="its declaration cannot be read")
    try:
        with connection.transaction():
            shares = count_shares(connection, source, task["id"], asked)
    except (errors.OperationalError, errors.InterfaceError):
        raise  # the database went away: the next to settle tries again
    except (ValueError, errors.DatabaseError) as error:
        # The table was dropped, or altered by hand: the callers must get their outcome all the same.
        log.error("task %s: the shares of its callers cannot be counted", task["id"], exc_info=error)
        return Callers(merged=merged, shares={}, fault=str(error)[:200])
    return Callers(merged=merged, shares=shares)


def survivors_own(task: Mapping[str, Any], outcome: Outcome) -> Outcome:
    """What the survivor itself ends as: CANCELLED when its own caller has cancelled and the work was for others."""
    if task["withdrawn_at"] is None or outcome.status not in _GOOD:
        return outcome
    reason = (
        f"cancelled by its own caller; it collected for the tasks merged into it, which are {outcome.status}"
    )
    return replace(outcome, status=TaskStatus.CANCELLED, reason=reason)


def settle_merged(
    connection: Connection,
    task: Mapping[str, Any],
    callers: Callers,
    outcome: Outcome,
    *,
    error: dict[str, Any] | None,
    actor: str,
) -> Sequence[int]:
    """Move those that wait for a survivor to its outcome; returns them.

    Args:
        connection: In the survivor's transaction.
        task: The survivor's row.
        callers: From `callers_of`.
        outcome: The work's.
        error: The work's, None when it went well.
        actor: For the task log.
    """
    results = [Jsonb(_result(task["id"], callers, caller)) for caller in callers.merged]
    rows = connection.execute(
        query("execution/settle_merged"),
        {
            "survivor": task["id"],
            "task_ids": list(callers.merged),
            "results": results,
            "status": outcome.status,
            "reason": _reason(task["id"], outcome),
            "error": None if error is None else Jsonb(error),
            "actor": actor,
        },
    ).fetchall()
    return [row["id"] for row in rows]


def _reason(survivor: int, outcome: Outcome) -> str:
    return f"collected by task {survivor}" + (f": {outcome.reason}" if outcome.reason else "")


def _result(survivor: int, callers: Callers, caller: int) -> dict[str, Any]:
    result: dict[str, Any] = {"collected_by": survivor, "rows_landed": callers.shares.get(caller)}
    return result if callers.fault is None else {**result, "fault": callers.fault}
