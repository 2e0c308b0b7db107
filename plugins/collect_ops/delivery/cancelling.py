"""A cancel when callers share work: who cancels is taken out, and the work stops when nobody is left."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collect_ops.admission.merging import narrow
from collect_ops.storage import Connection, query
from collect_ops.tasks.lifecycle import TaskStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A task, as a cancel sees it.

    Args:
        status: Where it stands.
        merged_into: The survivor that it waits for.
        withdrawn: Its own caller has cancelled before.
        waiting: Tasks that wait for it.
    """

    task_id: int
    status: TaskStatus
    merged_into: int | None
    withdrawn: bool
    waiting: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelling:
    """What a cancel has to do.

    Args:
        cancel: Tasks that end as CANCELLED.
        withdraw: Survivors that go on for others.
        shrink: Survivors that lose a caller and go on.
    """

    cancel: frozenset[int]
    withdraw: frozenset[int]
    shrink: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelledCallers:
    """What a cancel did: rows of cancelled tasks, as `delivery/cancel_tasks` returns them, and withdrawn survivors."""

    rows: tuple[dict[str, Any], ...]
    withdrawn: tuple[int, ...]


def cancelling(asked: Collection[int], callers: Mapping[int, Caller]) -> Cancelling:
    """Decide what becomes of the tasks that somebody cancels. Pure.

    Args:
        asked: The tasks that were named.
        callers: Those of them that exist, and the survivors that merged ones among them wait for.
    """
    cancel: set[int] = set()
    withdraw: set[int] = set()
    gone: dict[int, set[int]] = {}
    for task_id in asked:
        caller = callers.get(task_id)
        if caller is None or caller.status.final:
            continue
        if caller.status is TaskStatus.MERGED and caller.merged_into is not None:
            cancel.add(task_id)
            gone.setdefault(caller.merged_into, set()).add(task_id)
        elif caller.waiting <= set(asked):
            cancel.add(task_id)
        else:
            withdraw.add(task_id)
    for survivor, lost in gone.items():
        work = callers.get(survivor)
        if work is not None and work.withdrawn and work.waiting <= lost:
            cancel.add(survivor)
    withdraw = {task_id for task_id in withdraw if not callers[task_id].withdrawn}
    shrink = (set(gone) | withdraw) - cancel
    return Cancelling(cancel=frozenset(cancel), withdraw=frozenset(withdraw), shrink=frozenset(shrink))


def cancel_callers(
    connection: Connection, task_ids: Sequence[int], *, actor: str, reason: str
) -> CancelledCallers:
    """Cancel in the caller's transaction, and fence off who holds a shard of what ends.

    Args:
        connection: In a transaction.
        task_ids: The tasks that were named.
        actor: Who cancels, for the task log.
        reason: Why, for people.
    """
    named = {"task_ids": list(task_ids)}
    locked = [row["id"] for row in connection.execute(query("delivery/lock_cancelled"), named).fetchall()]
    rows = connection.execute(query("delivery/select_callers"), {"task_ids": locked}).fetchall()
    todo = cancelling(frozenset(task_ids), {row["id"]: _caller(row) for row in rows})
    values = {"actor": actor, "reason": reason}
    ended = connection.execute(
        query("delivery/cancel_tasks"), {"task_ids": sorted(todo.cancel), **values}
    ).fetchall()
    connection.execute(query("delivery/fence_tasks"), {"task_ids": [row["id"] for row in ended]})
    withdrawn = connection.execute(
        query("delivery/withdraw_survivors"), {"task_ids": sorted(todo.withdraw), **values}
    ).fetchall()
    if todo.shrink:
        narrow(connection, sorted(todo.shrink))
    return CancelledCallers(rows=tuple(ended), withdrawn=tuple(sorted(row["task_id"] for row in withdrawn)))


def _caller(row: Mapping[str, Any]) -> Caller:
    return Caller(
        task_id=row["id"],
        status=TaskStatus(row["status"]),
        merged_into=row["merged_into"],
        withdrawn=row["withdrawn"],
        waiting=frozenset(row["waiting"]),
    )
