"""What retention asks of PostgreSQL, as typed rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from collect_ops.kernel.errors import CollectOpsError, Permanent
from collect_ops.storage import Connection, query


class DeletingNotAllowed(CollectOpsError, Permanent):
    """The role that is connected reads and moves tasks, and does not delete them."""

    def __init__(self, role: str) -> None:
        self.role = role
        super().__init__(
            f"{role} may not delete tasks and their log; the DAG retention does (its form has a dry run, too), and so "
            "does this command with the owners' rights: make env ALL=1"
        )


#: Rows of tasks that may go before their task.
TaskRows = Literal["traces", "bad_rows"]
#: Rows that stand for themselves.
AgedRows = Literal["redrives", "message_letters", "events", "node_log", "backlog_actions", "nodes"]

#: Before every task, as PostgreSQL reads it.
_BEGINNING: Final = "-infinity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far a pass through ended tasks has come: the end and the number of the last one."""

    finished_at: datetime | str = _BEGINNING
    task_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTask:
    """A task that ended longer ago than its kind is kept, as far as its age says."""

    id: int
    finished_at: datetime
    status: str

    @property
    def place(self) -> Place:
        """Where a pass goes on after it."""
        return Place(finished_at=self.finished_at, task_id=self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupsDeleted:
    """A step through closed shard groups.

    Args:
        looked_at: Groups read.
        orphaned: Of them those of whose run nothing is left.
        after: Where to go on.
    """

    looked_at: int
    orphaned: int
    after: GroupPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlace:
    """How far a pass through closed shard groups has come."""

    closed_at: datetime | str = _BEGINNING
    run_id: str = ""
    group_no: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedVersion:
    """A stored declaration that no task refers to, and the newest task of its source."""

    hash: bytes
    source: str
    newest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """Seconds that tasks and request ids are kept."""

    completed_s: float
    cancelled_s: float
    dead_s: float
    requests_s: float


class RetentionStore:
    """The statements of retention on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def demand_rights(self) -> None:
        """See that this role may delete, before anything is deleted.

        Raises:
            DeletingNotAllowed: It may not.
        """
        row = self._connection.execute(query("maintenance/may_delete")).fetchone()
        if row is not None and not row["allowed"]:
            raise DeletingNotAllowed(row["role"])

    def old_tasks(self, after: Place, *, keep_s: float, most: int, lock: bool) -> list[EndedTask]:
        """The next tasks that ended longer ago than `keep_s`; locked, without those that somebody else holds."""
        text = query("maintenance/lock_old_tasks" if lock else "maintenance/select_old_tasks")
        values = {"keep_s": keep_s, "after_at": after.finished_at, "after_id": after.task_id, "most": most}
        return [EndedTask(**row) for row in self._connection.execute(text, values).fetchall()]

    def judge(self, task_ids: Sequence[int], ages: Ages) -> dict[int, str | None]:
        """Why each of these tasks is kept; None when it may be deleted."""
        values = {
            "task_ids": list(task_ids),
            "completed_s": ages.completed_s,
            "cancelled_s": ages.cancelled_s,
            "dead_s": ages.dead_s,
            "requests_s": ages.requests_s,
        }
        rows = self._connection.execute(query("maintenance/judge_tasks"), values).fetchall()
        return {row["id"]: row["kept"] for row in rows}

    def delete_tasks(self, task_ids: Sequence[int], *, dry_run: bool) -> Counter[str]:
        """Delete tasks and all that is about them, or count it; returns rows by kind."""
        values = {"task_ids": list(task_ids)}
        if not dry_run:
            self._connection.execute(query("maintenance/lock_keys"), values)
        text = query("maintenance/count_tasks" if dry_run else "maintenance/delete_tasks")
        return Counter(self._connection.execute(text, values).fetchone() or {})

    def mark(self, kind: str) -> Place:
        """How far traces or bad rows are deleted."""
        row = self._connection.execute(query("maintenance/read_mark"), {"kind": kind}).fetchone()
        return Place() if row is None else Place(**row)

    def move_mark(self, kind: str, place: Place) -> None:
        """Remember how far they are deleted."""
        values = {"kind": kind, "finished_at": place.finished_at, "task_id": place.task_id}
        self._connection.execute(query("maintenance/move_mark"), values)

    def delete_of_tasks(self, kind: TaskRows, task_ids: Sequence[int], *, dry_run: bool) -> int:
        """Delete rows of tasks that are kept, or count them."""
        values = {"task_ids": list(task_ids)}
        return self._count(kind, values) if dry_run else self._delete(kind, values)

    def delete_groups(self, after: GroupPlace, *, keep_s: float, most: int, dry_run: bool) -> GroupsDeleted:
        """Delete closed shard groups of whose run nothing is left, or count them."""
        values = {
            "keep_s": keep_s,
            "after_at": after.closed_at,
            "after_run": after.run_id,
            "after_no": after.group_no,
            "most": most,
            "dry": dry_run,
        }
        row = self._connection.execute(query("maintenance/delete_groups"), values).fetchone() or {}
        place = GroupPlace(
            closed_at=row["after_at"], run_id=row["after_run"] or "", group_no=row["after_no"] or 0
        )
        orphaned = row["would_go"] if dry_run else row["deleted"]
        return GroupsDeleted(looked_at=row["looked_at"], orphaned=orphaned, after=place)

    def delete_aged(self, kind: AgedRows, *, keep_s: float, most: int) -> int:
        """Delete rows of a kind, some at a time; returns how many."""
        return self._delete(kind, {"keep_s": keep_s, "most": most})

    def count_aged(self, kind: AgedRows, *, keep_s: float) -> int:
        """How many rows of a kind are not kept any longer."""
        return self._count(kind, {"keep_s": keep_s})

    def unused_versions(self, *, keep_s: float, most: int) -> list[UnusedVersion]:
        """Stored declarations that nothing refers to."""
        values = {"keep_s": keep_s, "most": most}
        rows = self._connection.execute(query("maintenance/select_unused_versions"), values).fetchall()
        return [UnusedVersion(**row) for row in rows]

    def delete_version(self, version: UnusedVersion) -> int:
        """Delete one, unless a task has come to use it; waits for admissions under way."""
        # Whoever stores a task has tried to write to this table before, in the same transaction.
        self._connection.execute("LOCK TABLE collect.source_version IN SHARE ROW EXCLUSIVE MODE")
        values = {"hash": version.hash, "newest": version.newest}
        return self._connection.execute(query("maintenance/delete_version"), values).rowcount

    def _delete(self, kind: str, values: dict[str, Any]) -> int:
        return self._connection.execute(query(f"maintenance/delete_{kind}"), values).rowcount

    def _count(self, kind: str, values: dict[str, Any]) -> int:
        row = self._connection.execute(query(f"maintenance/count_{kind}"), values).fetchone()
        return 0 if row is None else int(row["rows"])
