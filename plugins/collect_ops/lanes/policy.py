"""What a claim does with each message it took: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A task that a current message names.

    Args:
        due_in_s: Seconds until a retry is due; None for a task that never failed.
        max_active_tasks: The source's limit, None for none.
    """

    task_id: int
    generation: int
    attempt: int
    source: str
    priority: int
    retry_count: int
    due_in_s: float | None
    max_active_tasks: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of the candidates: each is in exactly one of the four."""

    claim: tuple[Candidate, ...] = ()
    hold: tuple[tuple[Candidate, str], ...] = ()
    defer: tuple[Candidate, ...] = ()
    leave: tuple[Candidate, ...] = ()


@dataclass(slots=True)
class _Sorting:
    active: dict[str, int]
    claim: list[Candidate] = field(default_factory=list)
    hold: list[tuple[Candidate, str]] = field(default_factory=list)
    defer: list[Candidate] = field(default_factory=list)
    leave: list[Candidate] = field(default_factory=list)


def decide(candidates: Sequence[Candidate], *, room: int, active: Mapping[str, int]) -> Decision:
    """Sort candidates, which come highest priority first.

    Not due yet: deferred (back to the retry ladder). Source at its limit: held. The rest is claimed while there is
    room, and left in the queue after that.

    Args:
        candidates: In the order the broker delivered them.
        room: Shard groups that may still start.
        active: Tasks under way, by source.
    """
    sorting = _Sorting(dict(active))
    for candidate in candidates:
        limit, running = candidate.max_active_tasks, sorting.active.get(candidate.source, 0)
        if candidate.due_in_s is not None and candidate.due_in_s > 0:
            sorting.defer.append(candidate)
        elif limit is not None and running >= limit:
            reason = f"source {candidate.source} has {running} active tasks, max_active_tasks is {limit}"
            sorting.hold.append((candidate, reason))
        elif len(sorting.claim) >= room:
            sorting.leave.append(candidate)
        else:
            sorting.claim.append(candidate)
            sorting.active[candidate.source] = running + 1
    return Decision(
        claim=tuple(sorting.claim), hold=tuple(sorting.hold), defer=tuple(sorting.defer), leave=tuple(sorting.leave)
    )
