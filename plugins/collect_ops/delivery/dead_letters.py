"""Dead letters: looking at them, grouping, editing, sending again, discarding, taking back.

A dead letter is of a collect task that ended DEAD, or of a message that nobody could read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from collect_ops.delivery.dead_drain import read_letters, settle_redriven, sum_up_groups
from collect_ops.delivery.dead_edit import Edited, edit_letter
from collect_ops.delivery.dead_message import shown_body
from collect_ops.delivery.dead_model import (
    Done,
    Edit,
    Group,
    LetterState,
    NoSuchLetter,
    RedriveProgress,
    Selection,
)
from collect_ops.delivery.redrive import progress_of
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.kernel.masking import mask
from collect_ops.lanes.rules import LaneRules
from collect_ops.sources.load import get_source
from collect_ops.sources.model import Source
from collect_ops.storage import Connection, Jsonb, connect, query

log = logging.getLogger(__name__)

#: Dead letters that one action may be about.
MAX_LETTERS = 1_000_000
#: Letters moved in one transaction.
BATCH = 500
_OPEN = (LetterState.OPEN,)
_RETURNABLE = (LetterState.REDRIVEN, LetterState.DISCARDED)


class DeadLetters:
    """What people do with dead letters.

    Args:
        backends: Where the services are.
        rules: Lane rules.
        sources: How a source is found by name, as it is declared now.
    """

    def __init__(
        self, backends: Backends, rules: LaneRules, *, sources: Callable[[str], Source] = get_source
    ) -> None:
        self._backends = backends
        self._rules = rules
        self._sources = sources

    def search(
        self, selection: Selection, *, limit: int = 50, before: int | None = None
    ) -> list[dict[str, Any]]:
        """A page of dead letters, newest first, masked; without a state in the selection those of every state.

        Args:
            selection: Which.
            limit: How many at most.
            before: Only those with a lower number: the last one of the page before.
        """
        with _looking(self._backends) as connection:
            ids = _ids(connection, selection, None, limit=limit, before=before)
            rows = connection.execute(query("delivery/select_dead_lines"), {"ids": ids}).fetchall()
        return [_masked(row) for row in rows]

    def groups(self, selection: Selection, *, limit: int = 50) -> list[Group]:
        """Dead letters by fault, the largest group first; without a state in the selection the open ones."""
        with _looking(self._backends) as connection:
            rows = _groups(connection, selection, limit)
        return [
            Group(
                **{
                    **row,
                    "sources": tuple(sorted(row["sources"])),
                    "pattern": mask(row["pattern"]),
                    "example_message": mask(row["example_message"]),
                }
            )
            for row in rows
        ]

    def show(self, letter_id: int) -> dict[str, Any]:
        """Everything about one, masked: the letter, its message, its task, the task's log and trace.

        Raises:
            NoSuchLetter: There is none of this number.
        """
        with _looking(self._backends) as connection:
            row = connection.execute(query("delivery/select_dead_letter"), {"id": letter_id}).fetchone()
            if row is None:
                raise NoSuchLetter(letter_id)
            task_id = {"task_id": row["task_id"]}
            moves = connection.execute(query("tasks/select_log"), task_id).fetchall()
            trace = connection.execute(query("journal/select_trace"), {**task_id, "stage": None}).fetchall()
        return {
            "letter": _masked({name: row[name] for name in _LETTER}),
            "message": _message(row),
            "task": None if row["task_id"] is None else _masked({name: row[name] for name in _TASK}),
            "log": [_masked(move) for move in moves],
            "trace": [_masked(stage) for stage in trace],
        }

    def edit(self, letter_id: int, edit: Edit, *, actor: str, reason: str) -> Edited:
        """Change what is sent again; sends nothing. See `edit_letter`."""
        _demand_reason(reason)
        with _looking(self._backends) as connection, connection.transaction():
            done = edit_letter(
                connection, self._rules, letter_id, edit, sources=self._sources, actor=actor, reason=reason
            )
        log.info("%s edited dead letter %d: %s", actor, letter_id, reason)
        return done

    def begin_redrive(
        self, selection: Selection, *, actor: str, reason: str, rate_per_s: float | None = None
    ) -> RedriveProgress:
        """Write down a redrive of what is selected and open; `redrive.drive` or the sweep carries it out.

        Args:
            selection: Which; letters that are named by id and not open are answered with their state.
            actor: Who asks.
            reason: Why, for the task log.
            rate_per_s: Letters a second at most; None for no limit.

        Raises:
            ValidationFailed: Nothing is selected, a named letter does not exist, or the rate is no rate.
        """
        _demand_selection(selection)
        _demand_reason(reason)
        if rate_per_s is not None and not (math.isfinite(rate_per_s) and rate_per_s > 0):
            fault = Fault(field="rate_per_s", value=rate_per_s, problem="must be above 0")
            raise ValidationFailed("redrive", (fault,))
        with _looking(self._backends) as connection, connection.transaction():
            ids = _ids(connection, selection, None if selection.ids else _OPEN)
            _demand_all_known(selection, ids)
            row = connection.execute(
                query("delivery/insert_redrive"),
                {
                    "asked": Jsonb(selection.model_dump(mode="json", exclude_none=True)),
                    "rate_per_s": rate_per_s,
                    "reason": reason,
                    "actor": actor,
                    "ids": ids,
                },
            ).fetchone()
        if row is None:
            raise LookupError("delivery/insert_redrive returned no row")
        log.info("%s redrives %d dead letters as redrive %d: %s", actor, len(ids), row["id"], reason)
        return progress_of(row["id"], self._backends)

    def discard(self, selection: Selection, *, actor: str, reason: str) -> Done:
        """Close open dead letters with a reason; their tasks stay DEAD.

        Raises:
            ValidationFailed: Nothing is selected, no reason is given, or a named letter does not exist.
        """
        _demand_selection(selection)
        _demand_reason(reason)

        def act(connection: Connection, ids: Sequence[int]) -> list[int]:
            values = {"ids": list(ids), "actor": actor, "reason": reason}
            return [
                row["id"] for row in connection.execute(query("delivery/discard_letters"), values).fetchall()
            ]

        return self._each(selection, _OPEN, act)

    def take_back(self, selection: Selection, *, actor: str, reason: str) -> Done:
        """Undo: redriven tasks that nobody has claimed yet are DEAD again, and discarded letters open.

        Raises:
            ValidationFailed: Nothing is selected, no reason is given, or a named letter does not exist.
        """
        _demand_selection(selection)
        _demand_reason(reason)

        def act(connection: Connection, ids: Sequence[int]) -> list[int]:
            return _take_back(connection, ids, actor=actor, reason=reason)

        return self._each(selection, _RETURNABLE, act)

    def _each(
        self,
        selection: Selection,
        states: tuple[LetterState, ...],
        act: Callable[[Connection, Sequence[int]], list[int]],
    ) -> Done:
        """Act on what is selected, some hundreds a transaction."""
        moved: list[int] = []
        with _looking(self._backends) as connection:
            ids = _ids(connection, selection, None if selection.ids else states)
            _demand_all_known(selection, ids)
            for start in range(0, len(ids), BATCH):
                with connection.transaction():
                    moved += act(connection, ids[start : start + BATCH])
            left = _why_left(connection, set(ids) - set(moved))
        return Done(moved=tuple(sorted(moved)), left=left)


@contextmanager
def _looking(backends: Backends) -> Iterator[Connection]:
    """A connection, once the letters' fingerprints and states are up to date."""
    with connect(backends.postgres_dsn, application_name="collect-ops dead letters") as connection:
        read_letters(connection)
        settle_redriven(connection)
        sum_up_groups(connection)
        yield connection


_LETTER = (
    "id", "state", "state_at", "state_by", "state_reason", "task_id", "source", "fingerprint", "error_class",
    "error_message", "failed_at", "retry_count", "edits",
)  # fmt: skip
_MESSAGE = (
    "message_id", "routing_key", "headers", "properties", "x_death", "drained_at", "body_bytes", "kept_bytes",
    "send_exchange", "send_routing_key",
)  # fmt: skip
_TASK = (
    "task_id", "source", "task_status", "params", "path", "priority", "lane", "attempt", "error", "submitted_by",
    "submitted_via", "merged_into", "merged_task_ids",
)  # fmt: skip


def _message(row: Mapping[str, Any]) -> dict[str, Any] | None:
    if row["drained_at"] is None:
        return None
    message: dict[str, Any] = _masked({name: row[name] for name in _MESSAGE})
    message["body"] = shown_body(row["body"])
    message["edited_body"] = shown_body(row["edited_body"])
    return message


def _masked(row: Mapping[str, Any]) -> dict[str, Any]:
    masked: dict[str, Any] = {
        name: mask(value) if isinstance(value, str | dict | list) else value for name, value in row.items()
    }
    return masked


def _ids(
    connection: Connection,
    selection: Selection,
    states: tuple[LetterState, ...] | None,
    *,
    limit: int = MAX_LETTERS,
    before: int | None = None,
) -> list[int]:
    values = {**selection.values(states), "limit": limit, "before": before}
    return [row["id"] for row in connection.execute(query("delivery/select_dead_ids"), values).fetchall()]


def _groups(connection: Connection, selection: Selection, limit: int) -> list[dict[str, Any]]:
    if selection in (Selection(), Selection(state=LetterState.OPEN)):
        return connection.execute(query("delivery/select_dead_groups"), {"limit": limit}).fetchall()
    ids = _ids(connection, selection, _OPEN)
    return connection.execute(query("delivery/group_dead_letters"), {"ids": ids, "limit": limit}).fetchall()


def _take_back(connection: Connection, ids: Sequence[int], *, actor: str, reason: str) -> list[int]:
    values = {"ids": list(ids), "actor": actor, "reason": reason}
    connection.execute(query("delivery/lock_letter_tasks"), {"ids": list(ids)})
    letters = connection.execute(query("delivery/lock_letters"), {"ids": list(ids)}).fetchall()
    rows = connection.execute(query("delivery/take_back_tasks"), values).fetchall()
    connection.execute(
        query("delivery/unmerge_tasks"), {"task_ids": [row["id"] for row in rows], "actor": actor}
    )
    opening = [letter["id"] for letter in letters if letter["state"] == LetterState.DISCARDED]
    opening += [row["letter_id"] for row in rows]
    opened = connection.execute(query("delivery/reopen_letters"), {**values, "ids": opening}).fetchall()
    connection.execute(
        query("delivery/take_back_items"), {"ids": [row["letter_id"] for row in rows], "reason": reason}
    )
    return [row["id"] for row in opened]


def _why_left(connection: Connection, ids: Iterable[int]) -> dict[int, str]:
    rows = connection.execute(query("delivery/select_dead_lines"), {"ids": sorted(ids)}).fetchall()
    return {
        row["id"]: f"is {row['state']}"
        + (
            f", task {row['task_id']} is {row['task_status']}"
            if row["task_id"]
            else ", a message without a task"
        )
        for row in rows
    }


def _demand_selection(selection: Selection) -> None:
    if selection.empty:
        problem = "name dead letters by id, a fingerprint, or a filter: nothing given would mean all"
        raise ValidationFailed("dead letters", (Fault(field="selection", value=None, problem=problem),))


def _demand_reason(reason: str) -> None:
    if not reason.strip():
        raise ValidationFailed("dead letters", (Fault(field="reason", value=None, problem="must say why"),))


def _demand_all_known(selection: Selection, found: Sequence[int]) -> None:
    known = set(found)
    only_ids = selection.model_dump(exclude_none=True).keys() == {"ids"}
    missing = [each for each in selection.ids or () if each not in known] if only_ids else []
    if missing:
        raise ValidationFailed(
            "dead letters",
            [Fault(field="ids", value=each, problem="does not exist") for each in missing[:20]],
        )
