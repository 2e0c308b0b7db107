"""What a claim does with each message it took: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from collect_ops.lanes.hosts import Host
from collect_ops.lanes.placing import ANYTHING, NodeNeeds, Placing
from collect_ops.nodes.placement import Obstacle, Placement
from collect_ops.sources.stored import NewerDefinition, refuse_newer

#: Small tasks that share a run at most: they share one shard group, so its length is bounded. A backlog rule may
#: set more.
PACK = 50
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A task that a current message names.

    Args:
        small: It is expected to be one shard, and may share a run with others of its source.
        due_in_s: Seconds until a retry is due; None for a task that never failed.
        max_active_tasks: The source's limit, None for none.
        connection: The source's connection, which stands for its host.
        needs: What it asks of a node.
        queued_at: When it was published.
        in_queue_at: When its message was last known to be in its queue.
        format: Of the declaration that it was admitted with.
    """

    task_id: int
    generation: int
    attempt: int
    source: str
    priority: int
    retry_count: int
    small: bool
    due_in_s: float | None
    max_active_tasks: int | None
    connection: str = ""
    needs: NodeNeeds = ANYTHING
    queued_at: datetime = LONG_AGO
    in_queue_at: datetime = LONG_AGO
    format: int = 0

    @property
    def endpoint(self) -> tuple[str, str]:
        """Its endpoint: the connection, and what the source asks of it."""
        return self.connection, self.source


def passed_over(claimed: Iterable[Candidate], returned: Iterable[Candidate]) -> list[Candidate]:
    """Candidates that go back to the queue while one of no higher priority, published later, was claimed.

    Without a record of it they would be taken for lost: a queue delivers by priority and age, so what waits while later
    ones are claimed is not in it.

    Args:
        claimed: What was claimed.
        returned: What is given back.
    """
    youngest: dict[int, datetime] = {}
    for each in claimed:
        youngest[each.priority] = max(each.queued_at, youngest.get(each.priority, each.queued_at))
    return [
        candidate
        for candidate in returned
        if any(
            queued_at > candidate.in_queue_at
            for priority, queued_at in youngest.items()
            if priority <= candidate.priority
        )
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstHeld:
    """The held task of an endpoint that is released before the others.

    Args:
        task_id: Which one.
        priority: 0-10.
    """

    task_id: int
    priority: int

    def comes_before(self, candidate: Candidate) -> bool:
        """Whether it is to run first: it is more urgent, or older where both are as urgent."""
        return (-self.priority, self.task_id) < (-candidate.priority, candidate.task_id)


@dataclass(slots=True, kw_only=True)
class Sorted:
    """What becomes of candidates, block by block; each candidate goes to exactly one of the lists.

    Args:
        room: Runs that may still be started.
        active: Tasks under way, by source.
        pack: Small tasks that share a run at most.
        width: Shard groups that a task which is not small may have.
        placing: Where runs go; None leaves that to Airflow.
        hosts: Hosts with something that is held, by connection.
        first_held: Of each endpoint that has held tasks the one that is released first.
        probed: Endpoints to which a task was let through, to try what is held.
        behind_held: Candidates that were held for nothing but others of their endpoint that come first.
    """

    room: int
    active: dict[str, int]
    pack: int = PACK
    width: int = 1
    placing: Placing | None = None
    hosts: dict[str, Host] = field(default_factory=dict)
    first_held: dict[tuple[str, str], FirstHeld] = field(default_factory=dict)
    probed: set[tuple[str, str]] = field(default_factory=set)
    behind_held: list[Candidate] = field(default_factory=list)
    runs: list[list[Candidate]] = field(default_factory=list)
    placements: list[Placement | None] = field(default_factory=list)
    hold: list[tuple[Candidate, str]] = field(default_factory=list)
    nowhere: list[tuple[Candidate, str]] = field(default_factory=list)
    defer: list[Candidate] = field(default_factory=list)
    leave: list[Candidate] = field(default_factory=list)
    _open_packs: dict[str, list[Candidate]] = field(default_factory=dict)

    @property
    def takes_more(self) -> bool:
        """Whether another candidate could be claimed."""
        return self.room > 0 or bool(self._open_packs)

    def sort(self, candidates: Sequence[Candidate], active: Mapping[str, int]) -> int:
        """Sort a block, which comes highest priority first; returns how many were claimed.

        Not due yet: deferred (back to the retry ladder). Admitted by a newer release, source at its limit, host or
        endpoint down, or behind held tasks of its endpoint: held; no node that can take it, while there are nodes for
        others: held, too (`nowhere`). The rest is claimed while there is room or a run of its source to share, and left
        in the queue after that.

        Args:
            candidates: In the order the broker delivered them.
            active: Tasks under way of their sources, as far as not known from an earlier block.
        """
        for source, count in active.items():
            self.active.setdefault(source, count)
        return sum(self._sort_one(candidate) for candidate in candidates)

    def _sort_one(self, candidate: Candidate) -> bool:
        limit, running = candidate.max_active_tasks, self.active.get(candidate.source, 0)
        if candidate.due_in_s is not None and candidate.due_in_s > 0:
            self.defer.append(candidate)
        elif (newer := _newer(candidate)) is not None:
            self.hold.append((candidate, newer))
        elif limit is not None and running >= limit:
            reason = f"source {candidate.source} has {running} active tasks, max_active_tasks is {limit}"
            self.hold.append((candidate, reason))
        elif (down := self._down(candidate)) is not None:
            self.hold.append((candidate, down))
        elif (behind := self._behind(candidate)) is not None:
            self.hold.append((candidate, behind))
            self.behind_held.append(candidate)
        elif self._claim(candidate):
            self.active[candidate.source] = running + 1
            if not self._is_free(candidate):
                self.probed.add(candidate.endpoint)
            return True
        return False

    def _is_free(self, candidate: Candidate) -> bool:
        host = self.hosts.get(candidate.connection)
        return host is None or host.is_free(candidate.source)

    def _down(self, candidate: Candidate) -> str | None:
        """Why nothing may be sent for a candidate; None when it may, if only to try."""
        host = self.hosts.get(candidate.connection)
        if host is None or host.is_free(candidate.source):
            return None
        if not host.may_be_tried(candidate.source) or self._is_tried(host, candidate):
            return host.reason(candidate.source)
        return None

    def _is_tried(self, host: Host, candidate: Candidate) -> bool:
        """Whether a task was let through already that tries what holds a candidate: its host, or else its endpoint."""
        if host.breaker.until is None:
            return candidate.endpoint in self.probed
        return any(connection == candidate.connection for connection, _ in self.probed)

    def _behind(self, candidate: Candidate) -> str | None:
        """Why a candidate waits for held ones of its endpoint; one that tries what holds them waits for nobody."""
        first = self.first_held.get(candidate.endpoint)
        if first is None or not self._is_free(candidate) or not first.comes_before(candidate):
            return None
        held = f"task {first.task_id} of source {candidate.source}"
        return f"{held}, which comes before it (priority {first.priority}), is held as well"

    def _claim(self, candidate: Candidate) -> bool:
        pack = self._open_packs.get(candidate.source) if candidate.small else None
        if pack is None:
            pack = self._new_run(candidate)
            if pack is None:
                return False
            if candidate.small:
                self._open_packs[candidate.source] = pack
        pack.append(candidate)
        if len(pack) >= self.pack:
            del self._open_packs[candidate.source]
        return True

    def _new_run(self, candidate: Candidate) -> list[Candidate] | None:
        """A run for a candidate; None when it cannot have one, and is held or left."""
        placement: Placement | None = None
        if self.room > 0 and self.placing is not None:
            groups = 1 if candidate.small else self.width
            placement = self.placing.place(candidate.needs, candidate.priority, groups)
            if not placement.nodes and self.placing.exhausted():
                self.room = 0
            elif placement.obstacle is Obstacle.BUSY and not candidate.needs.require:
                # One that presses, behind it, may still be placed.
                self.leave.append(candidate)
                return None
            elif not placement.nodes:
                self.nowhere.append((candidate, placement.reason))
                return None
        if self.room <= 0:
            self.leave.append(candidate)
            return None
        self.room -= 1
        run: list[Candidate] = []
        self.runs.append(run)
        self.placements.append(placement)
        return run


def _newer(candidate: Candidate) -> str | None:
    """Why only a process of a newer release can run a task; None when this one can."""
    try:
        refuse_newer(candidate.format)
    except NewerDefinition as newer:
        return str(newer)
    return None
