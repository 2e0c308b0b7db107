"""Priorities of tasks that wait: set by people, raised as an emergency, raised by ageing (DESIGN guarantee 9).

A change is a new generation, published to the lane that it belongs to now; the message of the old one is dropped at
claim. Any number of tasks costs the same few statements.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collect_ops.broker.publisher import Publisher
from collect_ops.coordination.priorities import Priorities
from collect_ops.delivery.intervene import Intervened
from collect_ops.delivery.selection import Selection, find
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.lanes.priority import PriorityRules, priority_of, priority_rules
from collect_ops.lanes.publication import publication_of, publish
from collect_ops.lanes.rules import LaneRules
from collect_ops.sources.stored import FORMAT, NewerDefinition, UnreadableDefinition, load_formula
from collect_ops.storage import Connection, connect, query
from collect_ops.tasks.lifecycle import TaskStatus

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a waiting task's priority becomes.

    Args:
        priority: 0-10.
        base: What the formula starts from.
        emergency: Whether it is one.
        pinned: Set by hand: of the formula only ageing is added.
        anew: It ages from now on.
    """

    priority: int
    base: int
    emergency: bool
    pinned: bool
    anew: bool = False


Decide = Callable[[Mapping[str, Any]], Change | None]


def adjust(
    task_ids: Sequence[int], priority: int, backends: Backends, rules: LaneRules, *, actor: str, reason: str
) -> Intervened:
    """Give waiting tasks a priority: what was said counts, and ageing goes on from there.

    Args:
        task_ids: The tasks. Of merged ones the task that collects for them is raised, never lowered.
        priority: 0-10.
        backends: Where the services are.
        rules: Lane rules.
        actor: Who adjusts, for the task log.
        reason: Why, for people.

    Raises:
        ValidationFailed: The priority is not in 0-10.
    """
    _demand_priority(priority)

    def decide(row: Mapping[str, Any]) -> Change | None:
        lowers_others = row["asked_by"] != row["id"] and priority < row["priority"]
        if row["priority"] == priority or lowers_others:
            return None
        return Change(priority=priority, base=priority, emergency=False, pinned=True, anew=True)

    return _change(task_ids, decide, backends, rules, actor=actor, reason=reason)


def batch_adjust(
    selection: Selection, priority: int, backends: Backends, rules: LaneRules, *, actor: str, reason: str
) -> Intervened:
    """Give all waiting tasks that match a selection a priority; see `adjust`."""
    _demand_priority(priority)
    return adjust(find(selection, backends), priority, backends, rules, actor=actor, reason=reason)


def emergency_promote(
    task_ids: Sequence[int], backends: Backends, rules: LaneRules, *, actor: str, reason: str
) -> Intervened:
    """Make waiting tasks emergencies: their priority rises by what the formula says for it.

    Args:
        task_ids: The tasks. Of merged ones the task that collects for them is promoted.
        backends: Where the services are.
        rules: Lane rules.
        actor: Who promotes, for the task log.
        reason: Why, for people.
    """

    def decide(row: Mapping[str, Any]) -> Change | None:
        if row["emergency"]:
            return None
        raised = _priority(row, emergency=True, pinned=False)
        if raised is None:
            return None
        return Change(
            priority=max(raised, row["priority"]), base=row["base_priority"], emergency=True, pinned=False
        )

    return _change(task_ids, decide, backends, rules, actor=actor, reason=reason)


def aged(
    connection: Connection, rules: LaneRules, *, older_than_s: float, limit: int
) -> list[dict[str, Any]]:
    """Raise tasks that have waited long, in a transaction of their own; returns what to publish.

    Args:
        connection: Autocommit.
        rules: Lane rules.
        older_than_s: Seconds of waiting from which a task can have aged.
        limit: Tasks looked at.
    """

    def decide(row: Mapping[str, Any]) -> Change | None:
        priority = _priority(row, emergency=row["emergency"], pinned=row["pinned"])
        if priority is None or priority <= row["priority"]:
            return None
        kept = {name: row[name] for name in ("emergency", "pinned")}
        return Change(priority=priority, base=row["base_priority"], **kept)

    with connection.transaction():
        values = {"older_than_s": older_than_s, "limit": limit, "format": FORMAT}
        rows = connection.execute(query("delivery/lock_aged"), values).fetchall()
        return _set(connection, rows, decide, rules, actor="collect-ops ageing", reason="has waited long")


def _demand_priority(priority: object) -> None:
    if type(priority) is not int or not 0 <= priority <= 10:
        fault = Fault(field="priority", value=priority, problem="must be a whole number from 0 to 10")
        raise ValidationFailed("priority", (fault,))


def _change(
    task_ids: Sequence[int], decide: Decide, backends: Backends, rules: LaneRules, *, actor: str, reason: str
) -> Intervened:
    with connect(backends.postgres_dsn, application_name="collect-ops priority") as connection:
        with connection.transaction():
            rows = connection.execute(query("delivery/lock_waiting"), {"task_ids": list(task_ids)}).fetchall()
            changed = _set(connection, rows, decide, rules, actor=actor, reason=reason)
        waiting = tell(connection, changed, backends, rules)
    ids = {row["id"] for row in changed}
    moved = tuple(sorted({row["asked_by"] for row in rows if row["id"] in ids}))
    log.info("%s changed the priority of %d of %d tasks: %s", actor, len(moved), len(task_ids), reason)
    left = tuple(sorted(set(task_ids) - set(moved)))
    return Intervened(moved=moved, left=left, lanes=frozenset(row["lane"] for row in waiting))


def tell(
    connection: Connection, changed: Sequence[dict[str, Any]], backends: Backends, rules: LaneRules
) -> list[dict[str, Any]]:
    """Publish tasks whose priority has changed, and tell Redis; returns those that were published."""
    waiting = [row for row in changed if row["status"] != TaskStatus.HELD]
    Priorities(backends.redis_url).write({row["id"]: row["priority"] for row in changed})
    with Publisher(backends.amqp_url) as publisher:
        publish(connection, publisher, rules, [publication_of(row) for row in waiting])
    return waiting


def _set(
    connection: Connection,
    rows: Sequence[Mapping[str, Any]],
    decide: Decide,
    rules: LaneRules,
    *,
    actor: str,
    reason: str,
) -> list[dict[str, Any]]:
    changes = {row["id"]: change for row in rows if (change := decide(row)) is not None}
    if not changes:
        return []
    return connection.execute(
        query("delivery/set_priorities"),
        {
            "task_ids": list(changes),
            "priorities": [change.priority for change in changes.values()],
            "lanes": [rules.lane_of(change.priority) for change in changes.values()],
            "bases": [change.base for change in changes.values()],
            "emergencies": [change.emergency for change in changes.values()],
            "pinned": [change.pinned for change in changes.values()],
            "anew": [change.anew for change in changes.values()],
            "actor": actor,
            "reason": reason,
        },
    ).fetchall()


def _priority(row: Mapping[str, Any], *, emergency: bool, pinned: bool) -> int | None:
    """What a task's formula makes of it; None when this process cannot read it: then it stays as it is."""
    try:
        formula = _formula(row)
    except (NewerDefinition, UnreadableDefinition) as error:
        log.warning("the priority of task %s stays as it is: %s", row["id"], error)
        return None
    return priority_of(
        formula,
        row["base_priority"],
        emergency=emergency,
        retry_count=row["retry_count"],
        waited_s=row["waited_s"],
        pinned=pinned,
    )


def _formula(row: Mapping[str, Any]) -> PriorityRules:
    return priority_rules().for_source(load_formula(row["version"], row["format"], row["formula"]))
