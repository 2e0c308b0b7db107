"""Sending dead letters again: in steps, at a rate, until nothing is left or somebody cancels.

A redrive is a row with its letters; a step takes as many as its rate allows, in one transaction under the redrive's
lock. So it does not matter who drives it: an Airflow task, a shell, the sweep, or two of them at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collect_ops.admission import store
from collect_ops.broker.publisher import Publisher
from collect_ops.delivery.dead_message import again
from collect_ops.delivery.dead_model import LetterState, NoSuchRedrive, RedriveProgress
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.publication import publication_of, publish
from collect_ops.lanes.rules import LaneRules
from collect_ops.storage import Connection, connect, query
from collect_ops.tasks.lifecycle import TaskStatus

log = logging.getLogger(__name__)

#: Letters of one step at most: one transaction.
BATCH = 500
#: Seconds of a rate that a step makes up for at most: the sweep, which comes every minute, keeps the rate alone.
BURST_S = 90.0
#: Seconds for which a pass of the sweep works off a redrive without a rate.
CONTINUE_S = 5.0
#: Seconds between two steps of a redrive with a rate.
PAUSE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a step may do.

    Args:
        letters: How many letters.
        credit: What is left of the rate when all of them are sent.
    """

    letters: int
    credit: float


def allowance(rate_per_s: float | None, elapsed_s: float, credit: float, batch: int = BATCH) -> Allowance:
    """How many letters a step may take. Pure.

    Args:
        rate_per_s: Letters a second at most, None for no limit.
        elapsed_s: Seconds since the last step.
        credit: What the last step left.
        batch: How many at most, whatever the rate.
    """
    if rate_per_s is None:
        return Allowance(letters=batch, credit=0.0)
    saved = min(credit + rate_per_s * max(0.0, elapsed_s), max(1.0, rate_per_s * BURST_S))
    letters = min(batch, int(saved))
    return Allowance(letters=letters, credit=saved - letters)


def refusal(letter: Mapping[str, Any], task: Mapping[str, Any] | None) -> str | None:
    """Why a letter is not sent again, None when it is. Pure.

    Args:
        letter: Its row, from `delivery/lock_letters`.
        task: Its task's row, from `delivery/lock_letter_tasks`; None for a message without a task.
    """
    if letter["state"] != LetterState.OPEN:
        return f"is {letter['state']}"
    if task is None:
        return _message_refusal(letter)
    if task["status"] != TaskStatus.DEAD:
        return f"task {task['id']} is {task['status']}"
    if task["merged_into"] is not None:
        return f"task {task['id']} was collected by task {task['merged_into']}: redrive that one"
    return None


def _message_refusal(letter: Mapping[str, Any]) -> str | None:
    if letter["task_id"] is not None:
        return "its task is gone"
    if letter["send_exchange"] is None:
        return "where it came from is not known: edit its exchange and routing key"
    if not letter["edited"] and (letter["body_bytes"] or 0) > (letter["kept_bytes"] or 0):
        return f"only {letter['kept_bytes']} of its {letter['body_bytes']} bytes were kept: edit its body"
    return None


def step(redrive_id: int, backends: Backends, rules: LaneRules, *, actor: str) -> frozenset[str]:
    """One step of a redrive; one that has ended does nothing. Returns the lanes that got work.

    Args:
        redrive_id: The redrive.
        backends: Where the services are.
        rules: Lane rules.
        actor: Who acts, for the task log.
    """
    with (
        connect(backends.postgres_dsn, application_name="collect-ops redrive") as connection,
        Publisher(backends.amqp_url) as publisher,
    ):
        with connection.transaction():
            redrive = connection.execute(
                query("delivery/lock_redrive"), {"redrive_id": redrive_id}
            ).fetchone()
            if redrive is None:
                return frozenset()
            rows = _step(connection, publisher, redrive, actor)
        # What is not confirmed is the outbox's.
        publish(connection, publisher, rules, [publication_of(row) for row in rows])
    return frozenset(row["lane"] for row in rows)


def _step(
    connection: Connection, publisher: Publisher, redrive: Mapping[str, Any], actor: str
) -> list[dict[str, Any]]:
    """Returns the tasks to publish."""
    elapsed_s = _elapsed_s(connection, redrive)
    allowed = allowance(redrive["rate_per_s"], elapsed_s, redrive["credit"])
    ids = _pending(connection, redrive["id"], allowed.letters) if allowed.letters else []
    sending = _Sending(
        connection, f"redrive {redrive['id']} of {redrive['requested_by']}: {redrive['reason']}", actor
    )
    if ids:
        sending.send(ids, publisher)
        connection.execute(
            query("delivery/answer_items"),
            {
                "redrive_id": redrive["id"],
                "ids": ids,
                "states": ["SKIPPED" if each in sending.left else "DONE" for each in ids],
                "answers": [sending.left.get(each) for each in ids],
            },
        )
    # Letters that were allowed and not sent are still to one's credit: the rate is for the sources' sake.
    credit = allowed.credit + allowed.letters - len(ids) + len(sending.left) if redrive["rate_per_s"] else 0.0
    connection.execute(
        query("delivery/step_redrive"),
        {"redrive_id": redrive["id"], "credit": credit, "elapsed_s": elapsed_s},
    )
    return sending.rows


def _elapsed_s(connection: Connection, redrive: Mapping[str, Any]) -> float:
    row = connection.execute(query("delivery/select_elapsed"), {"at": redrive["stepped_at"]}).fetchone()
    return float(row["elapsed_s"]) if row else 0.0


def _pending(connection: Connection, redrive_id: int, limit: int) -> list[int]:
    rows = connection.execute(
        query("delivery/select_pending_items"), {"redrive_id": redrive_id, "limit": limit}
    ).fetchall()
    return [row["dead_letter_id"] for row in rows]


@dataclass(slots=True)
class _Sending:
    """Letters on their way, in the caller's transaction.

    Args:
        reason: For the task log.
        actor: Likewise.
    """

    connection: Connection
    reason: str
    actor: str
    left: dict[int, str] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def send(self, ids: Sequence[int], publisher: Publisher) -> None:
        """Move tasks and publish messages; what is not sent is in `left` with its reason."""
        locked = self.connection.execute(query("delivery/lock_letter_tasks"), {"ids": list(ids)}).fetchall()
        tasks = {row["id"]: row for row in locked}
        letters = self.connection.execute(query("delivery/lock_letters"), {"ids": list(ids)}).fetchall()
        self.left = dict.fromkeys(set(ids) - {letter["id"] for letter in letters}, "does not exist any more")
        sent: dict[int, Mapping[str, Any]] = {}  # by task
        messages = []
        for letter in letters:
            task = tasks.get(letter["task_id"])
            why = refusal(letter, task)
            if why is not None:
                self.left[letter["id"]] = why
            elif task is None:
                messages.append(letter)
            elif task["id"] in sent:
                self.left[letter["id"]] = f"task {task['id']} has another dead letter, which was sent"
            else:
                sent[task["id"]] = letter
        self._move([tasks[task_id] for task_id in sent], sent)
        self._publish(messages, publisher)

    def _move(self, tasks: Sequence[Mapping[str, Any]], letters: Mapping[int, Mapping[str, Any]]) -> None:
        got = self._take_keys(tasks)
        moving = [task["id"] for task in tasks if task["id"] in got]
        if moving:
            self.rows = self.connection.execute(
                query("delivery/redrive_tasks"),
                {"task_ids": moving, "reason": self.reason, "actor": self.actor},
            ).fetchall()
            self.connection.execute(query("delivery/reset_shards"), {"task_ids": moving})
            self._remerge(moving)
            self._mark({letters[row["id"]]["id"]: row["attempt"] for row in self.rows})
        self._tell_duplicates([task for task in tasks if task["id"] not in got], letters)

    def _remerge(self, survivors: Sequence[int]) -> None:
        """Those that died with them wait for them again, unless an equal task is live by now."""
        named = {"task_ids": list(survivors)}
        members = self.connection.execute(query("delivery/lock_dead_members"), named).fetchall()
        if got := self._take_keys(members):
            self.connection.execute(
                query("delivery/remerge_tasks"), {"task_ids": sorted(got), "actor": self.actor}
            )

    def _take_keys(self, tasks: Sequence[Mapping[str, Any]]) -> set[int]:
        """The dedup keys back, by the statement that gives them to new tasks; returns the tasks that got theirs."""
        first: dict[bytes, Mapping[str, Any]] = {}
        for task in tasks:
            first.setdefault(bytes(task["dedup_key"]), task)
        if not first:
            return set()
        ordered = sorted(first.items())
        rows = self.connection.execute(
            query("admission/take_dedup_keys"),
            {
                "keys": [key for key, _ in ordered],
                "task_ids": [task["id"] for _, task in ordered],
                "ttls_s": [task["dedup_ttl_s"] for _, task in ordered],
                "forced": [],
                "free_when_ended": [task["id"] for _, task in ordered if task["dedup_while"] == "active"],
            },
        ).fetchall()
        got = {row["task_id"] for row in rows}
        self.connection.execute(
            query("delivery/raise_key_generations"),
            {"task_ids": sorted(got), "keys": [key for key, _ in ordered]},
        )
        return got

    def _tell_duplicates(
        self, tasks: Sequence[Mapping[str, Any]], letters: Mapping[int, Mapping[str, Any]]
    ) -> None:
        if not tasks:
            return
        held = store.holders(self.connection, [bytes(task["dedup_key"]) for task in tasks], live_only=False)
        for task in tasks:
            holder = held.get(bytes(task["dedup_key"]))
            self.left[letters[task["id"]]["id"]] = (
                f"duplicate of task {holder['task_id']}, now {holder['status']}"
                if holder
                else "lost its dedup key"
            )

    def _publish(self, letters: Sequence[Mapping[str, Any]], publisher: Publisher) -> None:
        """Messages without a task. A crash before the commit sends one again: whoever takes it knows it by its id."""
        by_exchange: dict[str, list[Mapping[str, Any]]] = {}
        for letter in letters:
            by_exchange.setdefault(letter["send_exchange"], []).append(letter)
        # Apart: an exchange that does not exist makes the broker close the channel.
        for group in by_exchange.values():
            self._publish_group(group, publisher)

    def _publish_group(self, letters: Sequence[Mapping[str, Any]], publisher: Publisher) -> None:
        done = publisher.publish([again(letter) for letter in letters])
        self._mark({letter["id"]: None for index, letter in enumerate(letters) if index in done.confirmed})
        for index, letter in enumerate(letters):
            if index not in done.confirmed:
                target = f"exchange {letter['send_exchange']!r}, routing key {letter['send_routing_key']!r}"
                why = "no queue takes it" if index in done.unroutable else done.failure or "it was refused"
                self.left[letter["id"]] = f"not published to {target}: {why}"

    def _mark(self, attempts: Mapping[int, int | None]) -> None:
        self.connection.execute(
            query("delivery/mark_redriven"),
            {
                "ids": list(attempts),
                "attempts": list(attempts.values()),
                "actor": self.actor,
                "reason": self.reason,
            },
        )


def drive(
    redrive_id: int,
    backends: Backends,
    rules: LaneRules,
    *,
    actor: str,
    time_limit_s: float | None = None,
    wake: Callable[[Iterable[str]], object] | None = None,
    tell: Callable[[RedriveProgress], object] | None = None,
) -> RedriveProgress:
    """Step until the redrive has ended, or the time is up: then the sweep goes on with it.

    Args:
        redrive_id: The redrive.
        backends: Where the services are.
        rules: Lane rules.
        actor: Who acts, for the task log.
        time_limit_s: Seconds after which it stops; None for never.
        wake: Called with the lanes that got work.
        tell: Called with the progress after each step.
    """
    until = None if time_limit_s is None else time.monotonic() + time_limit_s
    while True:
        lanes = step(redrive_id, backends, rules, actor=actor)
        if lanes and wake is not None:
            wake(lanes)
        progress = progress_of(redrive_id, backends)
        if tell is not None:
            tell(progress)
        if progress.finished or (until is not None and time.monotonic() > until):
            return progress
        if progress.rate_per_s is not None:
            time.sleep(min(PAUSE_S, 1 / progress.rate_per_s))


def continue_all(backends: Backends, rules: LaneRules, *, actor: str) -> frozenset[str]:
    """Go on with redrives whose process has died; returns the lanes that got work.

    One with a rate gets a step, which makes up for the time since the last one; one without is worked off for a while.
    """
    lanes: set[str] = set()
    for progress in list_redrives(backends, open_only=True):
        if progress.rate_per_s is not None:
            lanes |= step(progress.id, backends, rules, actor=actor)
        else:
            drive(progress.id, backends, rules, actor=actor, time_limit_s=CONTINUE_S, wake=lanes.update)
    return frozenset(lanes)


def progress_of(redrive_id: int, backends: Backends) -> RedriveProgress:
    """How far a redrive is.

    Raises:
        NoSuchRedrive: There is none of this number.
    """
    found = list_redrives(backends, redrive_id=redrive_id)
    if not found:
        raise NoSuchRedrive(redrive_id)
    return found[0]


def list_redrives(
    backends: Backends, *, redrive_id: int | None = None, open_only: bool = False, limit: int = 50
) -> list[RedriveProgress]:
    """Redrives, newest first."""
    with connect(backends.postgres_dsn, application_name="collect-ops redrive") as connection:
        rows = connection.execute(
            query("delivery/select_redrives"),
            {"redrive_id": redrive_id, "open_only": open_only, "limit": limit},
        ).fetchall()
    return [RedriveProgress(**row) for row in rows]


def skipped_items(redrive_id: int, backends: Backends, *, limit: int = 100) -> list[dict[str, Any]]:
    """Letters that a redrive has not sent, each with the reason in `answer`."""
    with connect(backends.postgres_dsn, application_name="collect-ops redrive") as connection:
        return connection.execute(
            query("delivery/select_skipped_items"), {"redrive_id": redrive_id, "limit": limit}
        ).fetchall()


def cancel(redrive_id: int, backends: Backends, *, actor: str) -> RedriveProgress:
    """End a redrive: what it has not sent stays open. One that has ended stays as it is.

    Raises:
        NoSuchRedrive: There is none of this number.
    """
    with connect(backends.postgres_dsn, application_name="collect-ops redrive") as connection:
        connection.execute(query("delivery/cancel_redrive"), {"redrive_id": redrive_id, "actor": actor})
    return progress_of(redrive_id, backends)
