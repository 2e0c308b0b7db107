"""Every key and its lifetime, in one place."""

from __future__ import annotations

PREFIX = "collect"


def lease(task_id: int, shard_no: int) -> str:
    """Lease of a shard; lives as long as the lease, renewed by its holder."""
    return f"{PREFIX}:lease:{task_id}:{shard_no}"


def wake(lane: str) -> str:
    """A wake-up of a lane is pending; deleted by the claim, else gone after `WAKE_LIFETIME_S`."""
    return f"{PREFIX}:wake:{lane}"


def dedup(key: bytes) -> str:
    """Hint: the task that holds a dedup key; lives as long as the promise in PostgreSQL."""
    return f"{PREFIX}:dedup:{key.hex()}"


#: Longer than a wake-up takes to reach its claim (measured: 0.3-1.1 s), short enough that a lost one costs little.
WAKE_LIFETIME_S = 10
