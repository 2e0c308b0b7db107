"""Deletes what has ended and is not kept any longer, a few hundred tasks a transaction.

Safe to run twice and at the same time: tasks that another pass holds are left to it. A pass that is stopped, or whose
time is over, has deleted what it reports; the next one goes on.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from collect_ops.kernel.backends import Backends
from collect_ops.landing.asides import drop_asides_of
from collect_ops.maintenance.retention_rules import DAY_S, RetentionRules
from collect_ops.maintenance.store import AgedRows, Ages, GroupPlace, Place, RetentionStore, TaskRows
from collect_ops.storage import Connection, connect, errors, query

log = logging.getLogger(__name__)

#: How long a transaction waits for what somebody else holds; what it waits for is left to the next pass.
_LOCK_TIMEOUT: Final = "2s"
#: Declarations deleted in one pass: for each of them admissions wait a moment.
_MOST_VERSIONS: Final = 20
#: Why a task is kept that somebody holds.
IN_USE: Final = "it is in use"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """What a pass did, or would do.

    Args:
        dry_run: Nothing was deleted.
        complete: The pass went through everything; otherwise its time was over.
        deleted: Rows by kind; tables aside as `tables_aside`.
        kept: Tasks that are old enough and were kept all the same, by the reason.
        seconds: How long it took.
    """

    dry_run: bool
    complete: bool
    deleted: Counter[str]
    kept: Counter[str]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "dry_run": self.dry_run,
            "complete": self.complete,
            "deleted": dict(self.deleted),
            "kept": dict(self.kept),
            "seconds": round(self.seconds, 1),
        }

    def lines(self) -> Iterator[str]:
        """For people, a line a kind."""
        verb = "would delete" if self.dry_run else "deleted"
        if not self.deleted:
            yield f"{verb} nothing"
        for kind, rows in self.deleted.items():
            yield f"{verb} {rows:,} {kind.replace('_', ' ')}"
        for reason, tasks in self.kept.most_common():
            yield f"kept {tasks:,} old tasks: {reason}"
        if not self.complete:
            yield f"stopped after {self.seconds:.0f} s, the time limit; the next pass goes on"


class _TimeIsOver(Exception):
    """The pass has taken as long as it may."""


def run_once(
    backends: Backends,
    rules: RetentionRules,
    *,
    dry_run: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Retained:
    """Delete everything that is not kept any longer, as long as the pass may take.

    Args:
        backends: Where the services are.
        rules: How long what is kept, and how gently to delete.
        dry_run: Count only; nothing is locked.
        sleep: Pauses between two transactions.

    Raises:
        DatabaseUnavailable: PostgreSQL went away; what was deleted stays deleted.
        DeletingNotAllowed: The role that connects may not delete.
    """
    started = time.monotonic()
    with connect(backends.postgres_dsn, application_name="collect-ops retention") as connection:
        if not dry_run:
            RetentionStore(connection).demand_rights()
        one = _Pass(
            connection=connection,
            rules=rules,
            dry_run=dry_run,
            sleep=sleep,
            until=started + rules.pace.time_limit_s,
        )
        try:
            one.delete_all()
            complete = True
        except _TimeIsOver:
            complete = False
    done = Retained(
        dry_run=dry_run,
        complete=complete,
        deleted=+one.deleted,
        kept=+one.kept,
        seconds=time.monotonic() - started,
    )
    log.info("retention: %s", done)
    return done


_LETTERS: Final[tuple[AgedRows, ...]] = ("redrives", "message_letters")
_JOURNALS: Final[tuple[AgedRows, ...]] = ("events", "node_log", "backlog_actions", "nodes")


@dataclass(slots=True, kw_only=True)
class _Pass:
    """One pass over everything."""

    connection: Connection
    rules: RetentionRules
    dry_run: bool
    sleep: Callable[[float], None]
    until: float
    deleted: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    #: Of a dry run: tasks that would be gone by now, and what is of them with them.
    going: set[int] = field(default_factory=set)

    @property
    def _store(self) -> RetentionStore:
        return RetentionStore(self.connection)

    def delete_all(self) -> None:
        """In this order: what is of tasks before what tasks refer to."""
        self._delete_tasks()
        self._strip_tasks("traces", self.rules.traces_days)
        self._strip_tasks("bad_rows", self.rules.bad_rows_days)
        self._delete_groups()
        for kind in _LETTERS:
            self._delete_aged(kind, self.rules.letters_days)
        for kind in _JOURNALS:
            self._delete_aged(kind, self.rules.journals_days)
        self._delete_versions()

    # Tasks

    def _delete_tasks(self) -> None:
        after: Place | None = self._delete_batch(Place())
        while after is not None:
            self._pause()
            after = self._delete_batch(after)

    def _delete_batch(self, after: Place) -> Place | None:
        """One transaction; returns where to go on, None when nothing is left."""
        with self.connection.transaction():
            self._limit_waiting()
            tasks = self._store.old_tasks(
                after,
                keep_s=self.rules.tasks.least * DAY_S,
                most=self.rules.pace.batch,
                lock=not self.dry_run,
            )
            if not tasks:
                return None
            judged = self._store.judge([task.id for task in tasks], self._ages())
            self.kept += Counter(reason for reason in judged.values() if reason not in (None, "younger"))
            if unneeded := [task_id for task_id, reason in judged.items() if reason is None]:
                self._delete(unneeded)
        return tasks[-1].place

    def _delete(self, task_ids: list[int]) -> None:
        try:
            with self.connection.transaction():
                free, tables = self._drop_asides(task_ids)
                rows = self._store.delete_tasks(free, dry_run=self.dry_run)
        except errors.LockNotAvailable:
            log.warning("tasks %d to %d are in use and stay until the next pass", task_ids[0], task_ids[-1])
            self.kept[IN_USE] += len(task_ids)
            return
        if self.dry_run:
            self.going.update(free)
        self.deleted += rows
        self.deleted["tables_aside"] += tables
        self.kept[IN_USE] += len(task_ids) - len(free)

    def _drop_asides(self, task_ids: list[int]) -> tuple[list[int], int]:
        """Drop the tasks' tables aside; returns the tasks of whose tables nobody reads one, and the tables."""
        if self.dry_run:
            names = self.connection.execute(
                query("landing/select_asides_of"), {"task_ids": task_ids}
            ).fetchall()
            return task_ids, len(names)
        try:
            with self.connection.transaction():
                return task_ids, drop_asides_of(self.connection, task_ids)
        except errors.LockNotAvailable:
            if len(task_ids) == 1:
                log.warning(
                    "the table aside of task %d is in use: both stay until the next pass", task_ids[0]
                )
                return [], 0
            half = len(task_ids) // 2
            first, tables = self._drop_asides(task_ids[:half])
            second, more = self._drop_asides(task_ids[half:])
            return [*first, *second], tables + more

    def _ages(self) -> Ages:
        tasks = self.rules.tasks
        return Ages(
            completed_s=tasks.completed * DAY_S,
            cancelled_s=tasks.cancelled * DAY_S,
            dead_s=tasks.dead * DAY_S,
            requests_s=self.rules.requests_days * DAY_S,
        )

    # What goes before its task

    def _strip_tasks(self, kind: TaskRows, days: float) -> None:
        store, pace = self._store, self.rules.pace
        after = store.mark(kind)
        while True:
            with self.connection.transaction():
                tasks = store.old_tasks(after, keep_s=days * DAY_S, most=pace.batch, lock=False)
                # Those of DEAD tasks stay as long as the task: whoever looks at its dead letter reads them.
                due = [task.id for task in tasks if task.status != "DEAD" and task.id not in self.going]
                self.deleted[kind] += store.delete_of_tasks(kind, due, dry_run=self.dry_run) if due else 0
                if tasks:
                    after = tasks[-1].place
                    if not self.dry_run:
                        store.move_mark(kind, after)
            if len(tasks) < pace.batch:
                return
            self._pause()

    # The rest

    def _delete_groups(self) -> None:
        after, pace = GroupPlace(), self.rules.pace
        while True:
            step = self._store.delete_groups(
                after, keep_s=self.rules.tasks.least * DAY_S, most=pace.batch, dry_run=self.dry_run
            )
            self.deleted["shard_groups"] += step.orphaned
            if step.looked_at < pace.batch:
                return
            after = step.after
            self._pause()

    def _delete_aged(self, kind: AgedRows, days: float) -> None:
        keep_s = days * DAY_S
        if self.dry_run:
            self.deleted[kind] += self._store.count_aged(kind, keep_s=keep_s)
            return
        most = self.rules.pace.batch
        for _ in self._steps():
            rows = self._store.delete_aged(kind, keep_s=keep_s, most=most)
            self.deleted[kind] += rows
            if rows < most:
                return

    def _delete_versions(self) -> None:
        keep_s = self.rules.versions_days * DAY_S
        unused = self._store.unused_versions(keep_s=keep_s, most=_MOST_VERSIONS)
        if self.dry_run:
            self.deleted["source_versions"] += len(unused)
            return
        for version, _ in zip(unused, self._steps(), strict=False):
            try:
                with self.connection.transaction():
                    self._limit_waiting()
                    self.deleted["source_versions"] += self._store.delete_version(version)
            except errors.LockNotAvailable:
                log.warning(
                    "a declaration of source %s stays until the next pass: admissions go on", version.source
                )

    def _steps(self) -> Iterator[None]:
        """Steps with a pause between two, until the time is over."""
        while True:
            yield
            self._pause()

    def _limit_waiting(self) -> None:
        self.connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")

    def _pause(self) -> None:
        if time.monotonic() >= self.until:
            raise _TimeIsOver
        if not self.dry_run:
            self.sleep(self.rules.pace.pause_s)
