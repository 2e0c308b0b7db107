"""Editing a dead letter before it is sent again: a task's request or priority, a message's body or address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from collect_ops.admission import store
from collect_ops.admission.model import Submission
from collect_ops.admission.policy import dedup_key, priority_fault, unreadable_faults, unstorable_faults
from collect_ops.delivery.dead_model import Edit, LetterState, NoSuchLetter, NotOpen, RequestHasLanded
from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.lanes.rules import LaneRules
from collect_ops.sources.model import Source
from collect_ops.sources.request import checked_request, render_admitted
from collect_ops.sources.stored import StoredDefinition, dump_definition, load_definition
from collect_ops.storage import Connection, Jsonb, query
from collect_ops.tasks.lifecycle import TaskStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """What an edit did.

    Args:
        before: The fields that were changed, as they were.
        after: As they are now.
        request_changed: The task collects something else now.
    """

    letter_id: int
    task_id: int | None
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    request_changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A task as it shall be; `stored` is its declaration when that is another one."""

    source: Source
    version: bytes
    stored: StoredDefinition | None
    params: Mapping[str, Any]
    path: str | None
    priority: int
    dedup_key: bytes
    changed: bool


def edit_letter(
    connection: Connection,
    rules: LaneRules,
    letter_id: int,
    edit: Edit,
    *,
    sources: Callable[[str], Source],
    actor: str,
    reason: str,
) -> Edited:
    """Change an open dead letter, in the caller's transaction.

    Args:
        connection: In a transaction.
        rules: Lane rules.
        letter_id: The dead letter.
        edit: What is changed.
        sources: How a source is found by name, for `redeclare`.
        actor: Who edits.
        reason: Why, for people.

    Raises:
        NoSuchLetter: There is none of this number.
        NotOpen: It, or its task, is not in a state to be edited.
        RequestHasLanded: Rows of the present request have landed.
        ValidationFailed: The new request or priority has faults, all of them; or the edit is of something else.
    """
    ids = {"ids": [letter_id]}
    task = connection.execute(query("delivery/lock_letter_tasks"), ids).fetchone()
    letter = connection.execute(query("delivery/lock_letters"), ids).fetchone()
    if letter is None:
        raise NoSuchLetter(letter_id)
    if letter["state"] != LetterState.OPEN:
        raise NotOpen(letter_id, f"it is {letter['state']}")
    if task is None:
        return _edit_message(connection, letter, edit, actor, reason)
    return _edit_task(connection, rules, letter_id, task, edit, sources=sources, actor=actor, reason=reason)


def _edit_message(
    connection: Connection, letter: Mapping[str, Any], edit: Edit, actor: str, reason: str
) -> Edited:
    _demand(edit.of_message and not edit.of_task, "a message without a task", "body, exchange or routing_key")
    body = None if edit.body is None else edit.body.encode()
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    if body is not None:
        before["body_bytes"], after["body_bytes"] = letter["body_bytes"], len(body)
    for name, value in (("exchange", edit.exchange), ("routing_key", edit.routing_key)):
        if value is not None:
            before[name], after[name] = letter[f"send_{name}"], value
    _note(connection, letter["id"], edit, body=body, before=before, after=after, actor=actor, reason=reason)
    return Edited(letter_id=letter["id"], task_id=None, before=before, after=after, request_changed=False)


def _edit_task(
    connection: Connection,
    rules: LaneRules,
    letter_id: int,
    task: Mapping[str, Any],
    edit: Edit,
    *,
    sources: Callable[[str], Source],
    actor: str,
    reason: str,
) -> Edited:
    _demand(edit.of_task and not edit.of_message, "a task", "params, path, priority or redeclare")
    _refuse_busy(letter_id, task)
    admitted = _admitted(connection, task)
    declared = sources(task["source"]) if edit.redeclare else None
    wanted = _wanted(task, admitted, declared, edit, actor)
    if wanted.changed:
        _start_over(connection, letter_id, task)
    if wanted.stored is not None:
        store.insert_definition(connection, wanted.stored)
    connection.execute(
        query("delivery/edit_task"),
        {
            "task_id": task["id"],
            "params": Jsonb(wanted.params),
            "path": wanted.path,
            "priority": wanted.priority,
            "lane": rules.lane_of(wanted.priority),
            "dedup_key": wanted.dedup_key,
            "source_version": wanted.version,
            "max_retries": wanted.source.retries.max_retries,
            "changed": wanted.changed,
            "actor": actor,
            "reason": f"edited: {reason}",
        },
    )
    before, after = _differences(task, wanted)
    _note(connection, letter_id, edit, body=None, before=before, after=after, actor=actor, reason=reason)
    return Edited(
        letter_id=letter_id, task_id=task["id"], before=before, after=after, request_changed=wanted.changed
    )


def _demand(fits: bool, what: str, allowed: str) -> None:  # noqa: FBT001 - a condition, and what it is for
    if not fits:
        raise ValidationFailed(
            "edit", (Fault(field="edit", value=None, problem=f"of {what} one may change {allowed}"),)
        )


def _refuse_busy(letter_id: int, task: Mapping[str, Any]) -> None:
    if task["status"] != TaskStatus.DEAD:
        raise NotOpen(letter_id, f"task {task['id']} is {task['status']}")
    if task["merged_into"] is not None:
        raise NotOpen(letter_id, f"task {task['id']} was collected by task {task['merged_into']}")


def _admitted(connection: Connection, task: Mapping[str, Any]) -> Source:
    """The declaration that the task was admitted with."""
    row = connection.execute(
        query("execution/select_definitions"), {"versions": [task["version"]]}
    ).fetchone()
    if row is None:
        raise LookupError(f"the declaration of task {task['id']} is not in collect.source_version")
    return load_definition(row["version"], row["format"], row["definition"])


def _wanted(
    task: Mapping[str, Any], admitted: Source, declared: Source | None, edit: Edit, actor: str
) -> _Wanted:
    """The task as it shall be, validated like a submission; `declared` is given when it takes today's declaration."""
    source = declared or admitted
    subject = f"edit of task {task['id']}, source {source.name}"
    path = task["path"] if edit.path is None else edit.path or None
    params = {**task["params"], **edit.params}
    faults = [fault for fault in (priority_fault(edit.priority),) if fault is not None]
    faults += _unfit(source, params, path, actor)
    if faults:
        raise ValidationFailed(subject, faults)
    try:
        checked, request = checked_request(source, params, path)
    except ValidationFailed as error:
        raise ValidationFailed(subject, error.faults) from error
    stored = _other(task, admitted, declared)
    version = bytes.fromhex(task["version"]) if stored is None else stored.version
    changed = checked != task["params"] or path != task["path"] or stored is not None
    old_key = bytes(task["dedup_key"])
    return _Wanted(
        source=source,
        version=version,
        stored=stored,
        params=checked,
        path=path,
        priority=task["priority"] if edit.priority is None else edit.priority,
        dedup_key=dedup_key(source, request, _identity(task, admitted, old_key)) if changed else old_key,
        changed=changed,
    )


def _unfit(source: Source, params: Mapping[str, Any], path: str | None, actor: str) -> tuple[Fault, ...]:
    submission = Submission(
        source=source.name,
        params=params,
        path=path,
        request_id="edit",
        submitted_by=actor,
        submitted_via="dead letter",
    )
    return unreadable_faults(submission) or unstorable_faults(submission)


def _identity(task: Mapping[str, Any], admitted: Source, old_key: bytes) -> dict[str, Any]:
    """What the way in had added to the key: nothing, or something that only the old key still tells.

    A data interval, for instance. Then the old key itself stands for it: equal edits of equal tasks stay equal.
    """
    plain = dedup_key(admitted, render_admitted(admitted, task["params"], task["path"]), {})
    return {} if plain == old_key else {"edited_from": old_key.hex()}


def _other(task: Mapping[str, Any], admitted: Source, declared: Source | None) -> StoredDefinition | None:
    """Today's declaration, when the task was admitted with another one.

    One that an older format holds is the same when it says the same: then what has landed stays.
    """
    if declared is None or declared == admitted:
        return None
    stored = dump_definition(declared)
    return None if stored.version.hex() == task["version"] else stored


def _start_over(connection: Connection, letter_id: int, task: Mapping[str, Any]) -> None:
    """Shards of the old request go, if nothing of them has landed."""
    if task["merged_task_ids"]:
        raise NotOpen(
            letter_id,
            f"task {task['id']} collects for tasks {task['merged_task_ids']} as well, which asked for this",
        )
    landed = connection.execute(query("delivery/sum_landed"), {"task_id": task["id"]}).fetchone()
    if landed and landed["begun"]:
        raise RequestHasLanded(task["id"], landed["rows_landed"], landed["begun"])
    connection.execute(query("delivery/delete_shards"), {"task_id": task["id"]})


def _differences(task: Mapping[str, Any], wanted: _Wanted) -> tuple[dict[str, Any], dict[str, Any]]:
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for name in ("params", "path", "priority"):
        if task[name] != getattr(wanted, name):
            before[name], after[name] = task[name], getattr(wanted, name)
    if task["version"] != wanted.version.hex():
        before["declaration"], after["declaration"] = task["version"][:12], wanted.version.hex()[:12]
    return before, after


def _note(
    connection: Connection,
    letter_id: int,
    edit: Edit,
    *,
    body: bytes | None,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    actor: str,
    reason: str,
) -> None:
    noted = {"by": actor, "reason": reason, "before": before, "after": after}
    connection.execute(
        query("delivery/edit_letter"),
        {
            "id": letter_id,
            "edit": Jsonb(noted),
            "body": body,
            "exchange": edit.exchange,
            "routing_key": edit.routing_key,
        },
    )
