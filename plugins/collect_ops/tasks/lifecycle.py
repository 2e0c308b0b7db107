"""The state machine of a collect task: one table of legal moves, the same that PostgreSQL enforces."""

from __future__ import annotations

from enum import StrEnum


class TaskStatus(StrEnum):
    """Where a collect task stands."""

    CREATED = "CREATED"
    QUEUED = "QUEUED"
    HELD = "HELD"
    CLAIMED = "CLAIMED"
    DISPATCHED = "DISPATCHED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    PARTIAL = "PARTIAL"
    RETRYING = "RETRYING"
    DEAD = "DEAD"
    MERGED = "MERGED"
    CANCELLED = "CANCELLED"
    DISPATCH_FAILED = "DISPATCH_FAILED"

    @property
    def final(self) -> bool:
        """Whether the task has ended; only a redrive moves it again."""
        return self in FINAL

    @property
    def under_way(self) -> bool:
        """Whether a run holds the task, so that it counts against limits and capacity."""
        return self in UNDER_WAY


S = TaskStatus
#: MERGED is not among them: a merged task waits, and settles with its survivor.
FINAL = frozenset({S.COMPLETED, S.PARTIAL, S.DEAD, S.CANCELLED})
UNDER_WAY = frozenset({S.CLAIMED, S.DISPATCHED, S.RUNNING})
#: Ends that leave the dedup key free for the next submission (DESIGN guarantee 2).
FREES_KEY = frozenset({S.DEAD, S.CANCELLED})

MOVES: dict[TaskStatus, frozenset[TaskStatus]] = {
    S.CREATED: frozenset({S.QUEUED, S.MERGED, S.CANCELLED}),
    S.QUEUED: frozenset({S.CLAIMED, S.HELD, S.MERGED, S.CANCELLED, S.DEAD}),
    S.HELD: frozenset({S.QUEUED, S.MERGED, S.CANCELLED, S.DEAD}),
    S.CLAIMED: frozenset({S.DISPATCHED, S.QUEUED, S.RETRYING, S.DEAD, S.DISPATCH_FAILED, S.CANCELLED}),
    S.DISPATCHED: frozenset(
        {
            S.RUNNING,
            S.QUEUED,
            S.HELD,
            S.COMPLETED,
            S.PARTIAL,
            S.RETRYING,
            S.DEAD,
            S.DISPATCH_FAILED,
            S.CANCELLED,
        }
    ),
    S.RUNNING: frozenset({S.COMPLETED, S.PARTIAL, S.RETRYING, S.DEAD, S.QUEUED, S.HELD, S.CANCELLED}),
    S.RETRYING: frozenset({S.CLAIMED, S.HELD, S.CANCELLED, S.DEAD}),
    S.DISPATCH_FAILED: frozenset({S.QUEUED, S.DEAD, S.CANCELLED}),
    S.DEAD: frozenset({S.QUEUED, S.MERGED}),
    S.COMPLETED: frozenset(),
    S.PARTIAL: frozenset(),
    S.MERGED: frozenset({S.COMPLETED, S.PARTIAL, S.DEAD, S.CANCELLED}),
    S.CANCELLED: frozenset(),
}


def may_move(current: TaskStatus, to: TaskStatus) -> bool:
    """Whether the move is legal."""
    return to in MOVES[current]
