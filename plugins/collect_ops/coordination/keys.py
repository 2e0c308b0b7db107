"""Every key and its lifetime, in one place."""

from __future__ import annotations

PREFIX = "collect"
#: What PostgreSQL numbers tasks with.
MAX_TASK_ID = 2**63 - 1


def lease(task_id: int, shard_no: int) -> str:
    """Lease of a shard; lives as long as the lease, renewed by its holder."""
    return f"{PREFIX}:lease:{task_id}:{shard_no}"


def wake(lane: str) -> str:
    """A wake-up of a lane is pending; deleted by the claim, else gone after `WAKE_LIFETIME_S`."""
    return f"{PREFIX}:wake:{lane}"


def watched(lane: str) -> str:
    """The name under which wake-ups by a lane's watcher are marked, beside those by publishers."""
    return f"{lane}:watched"


def unanswered_wakes(lane: str) -> str:
    """How many wake-ups of a lane have gone out since its last claim, which deletes it."""
    return f"{PREFIX}:wakes:{lane}"


def dedup(key: bytes) -> str:
    """Hint: the task that holds a dedup key; lives as long as the promise in PostgreSQL."""
    return f"{PREFIX}:dedup:{key.hex()}"


def priority(task_id: int) -> str:
    """A task's current priority; lives `PRIORITY_LIFETIME_S`, written anew by each change."""
    return f"{PREFIX}:priority:{task_id}"


PRIORITY_LIFETIME_S = 24 * 3600
#: Longer than a wake-up takes to reach its claim (measured: 0.3-1.1 s), short enough that a lost one costs little.
WAKE_LIFETIME_S = 10
#: Between two wake-ups of a lane that answers none of them: paused over a weekend it gets 600 runs, not 17,000.
WAKE_LIFETIME_MAX_S = 300
#: When the registry first looked, by Redis' clock: missing after a flush. Without an expiry.
NODES_WITNESS = f"{PREFIX}:nodes:witness"


#: A node has said something new: the registry takes it in at once, and deletes this. Lives `NODES_NEWS_LIFETIME_S`.
NODES_NEWS = f"{PREFIX}:nodes:news"
#: As long as a heartbeat lives in its queue.
NODES_NEWS_LIFETIME_S = 600


def node(node_id: str) -> str:
    """A node's machine and its agent's start; lives `heartbeat.alive_s`, renewed by the agent alone."""
    return f"{PREFIX}:node:{node_id}"


def limiter(host: str) -> list[str]:
    """A host's rate and pause, the places taken, who waits for one, and the limits declared; each expires by itself.

    The braces keep them in one slot of a Redis cluster.
    """
    return [f"{PREFIX}:limit:{{{host}}}:{name}" for name in ("state", "places", "waiting", "declared")]
