"""Claiming: take what a lane can run now, highest priority first, and start its runs.

One transaction: the lane's lock, the moves, the commit; then the acks (DESIGN guarantee 4). A claim that dies at any
point leaves its messages to be delivered again, where those of claimed tasks move nothing, and its claimed tasks to
the repair pass, which starts the run that the commit named.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from collect_ops.broker.consumer import Consumer, Delivery
from collect_ops.broker.message import MalformedMessage, OutgoingMessage, TaskMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.coordination.wakeups import Wakeups
from collect_ops.journal.trace import Stage, TraceRow, write_traces
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.capacity import effective, room
from collect_ops.lanes.held import release_held
from collect_ops.lanes.hosts import hosts_in_the_way, note_probes
from collect_ops.lanes.placing import NodeNeeds, Placing
from collect_ops.lanes.policy import Candidate, FirstHeld, Sorted, passed_over
from collect_ops.lanes.publication import Publication, publication_of, publish
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import Runs, RunsUnavailable, collect_dag_id, wake
from collect_ops.nodes.machine import node_id_of
from collect_ops.nodes.placement import Placement
from collect_ops.nodes.rules import placement_rules
from collect_ops.sources.stored import FORMAT
from collect_ops.storage import Connection, connect, query

log = logging.getLogger(__name__)

#: Messages looked at in one go, once the first few were stale or small.
BLOCK = 500
#: A claim ends after this, in seconds, and wakes itself for the rest: the lane DAG must stay short.
TIME_LIMIT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRun:
    """A collect run that a claim has named."""

    dag_id: str
    run_id: str
    conf: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Claimed:
    """What a claim did, counted in messages.

    `stale` ones are of an older generation, or of a task that no longer waits; `orphans` name a task that is not in the
    database. Both are dropped. `released` are held tasks that come before others which were held behind them.
    """

    lane: str
    runs: list[ClaimedRun] = field(default_factory=list)
    claimed: int = 0
    held: int = 0
    released: int = 0
    deferred: int = 0
    stale: int = 0
    orphans: int = 0
    malformed: int = 0
    room: int = 0
    busy: bool = False
    more: bool = False


def claim(lane: str, backends: Backends, rules: LaneRules, runs: Runs, *, actor: str) -> Claimed:
    """Claim what the lane has room for and start its runs.

    Args:
        lane: Lane name.
        backends: Where the services are.
        rules: Lane rules.
        runs: Where runs are started.
        actor: Who claims, for the task log.

    Returns:
        Counts and the runs started; `busy` when another claim of the lane is at work.

    Raises:
        BrokerUnavailable, DatabaseUnavailable: What was not acked comes again; what was claimed is started.
    """
    wakeups = Wakeups(backends.redis_url)
    wakeups.clear(lane)
    with (
        connect(backends.postgres_dsn, application_name=f"collect-ops claim {lane}") as connection,
        Consumer(backends.amqp_url) as consumer,
    ):
        claiming = _Claim(lane, backends, rules, connection, consumer, actor)
        with connection.transaction():
            if not claiming.locked():
                log.info("lane %s: another claim is at work", lane)
                return Claimed(lane=lane, busy=True)
            claiming.take_until_full()
            done = claiming.commit()
        try:
            with Publisher(backends.amqp_url) as publisher:
                claiming.settle_messages(publisher)
                claiming.release_first(publisher)
        finally:
            # They are committed: a broker that goes away now brings the messages again, where they move nothing.
            start_runs(done.runs, runs)
    if done.more:
        wake([lane], runs, wakeups)
    log.info(
        "lane %s: claimed %d tasks in %d runs, held %d, deferred %d, stale %d, orphans %d, malformed %d",
        lane, done.claimed, len(done.runs), done.held, done.deferred, done.stale, done.orphans, done.malformed,
    )  # fmt: skip
    return done


def start_runs(runs_to_start: Sequence[ClaimedRun], runs: Runs) -> None:
    """Start runs; one that could not be started is the repair pass's: its tasks are CLAIMED and name it."""
    for run in runs_to_start:
        try:
            runs.start(run.dag_id, run.run_id, run.conf)
        except RunsUnavailable as error:
            log.error("run %s not started, repair will: %s", run.run_id, error)


def run_conf(
    tasks: Sequence[tuple[int, int]],
    priority: int,
    lane: str,
    nodes: Sequence[str] = (),
    sources: Iterable[str] = (),
) -> dict[str, Any]:
    """The conf of a collect run: ids, what the cluster policy needs and what people filter runs by, nothing large.

    Args:
        tasks: Task ids with their attempts.
        priority: 0-10, of the run's most urgent task.
        lane: Lane name.
        nodes: Whose queues the shard groups go to, in order, again from the first one after the last; none: on any
            worker.
        sources: Names of the tasks' sources.
    """
    named = [{"task_id": task_id, "attempt": attempt} for task_id, attempt in tasks]
    conf: dict[str, Any] = {"tasks": named, "priority": priority, "lane": lane}
    if of := sorted(set(sources)):
        conf["sources"] = of
    return {**conf, "nodes": list(nodes)} if nodes else conf


class _Claim:
    """One claim: messages in hand, and what becomes of them at the commit and after it."""

    def __init__(
        self,
        lane: str,
        backends: Backends,
        rules: LaneRules,
        connection: Connection,
        consumer: Consumer,
        actor: str,
    ) -> None:
        self._lane = lane
        self._backends = backends
        self._rules = rules
        self._connection = connection
        self._consumer = consumer
        self._actor = actor
        self._began = time.perf_counter()
        self._result = Claimed(lane=lane)
        self._sorted = Sorted(room=0, active={})
        self._deliveries: dict[int, Delivery] = {}  # by task id: the newest message of each
        self._stale: list[int] = []
        self._orphans: list[int] = []
        self._busy: list[int] = []
        self._contested: set[str] = set()  # sources whose limit another lane's claim is counting
        self._returned: list[Candidate] = []  # of those sources
        self._malformed: list[tuple[Delivery, MalformedMessage]] = []

    def locked(self) -> bool:
        """Whether this claim is the lane's only one, until its transaction ends."""
        row = self._connection.execute(query("lanes/lock_lane"), {"lane": self._lane}).fetchone()
        return bool(row and row["locked"])

    def take_until_full(self) -> None:
        """Take messages, highest priority first, until nothing more fits, the queue is empty or the time is up."""
        self._sorted.room = self._result.room = room(
            self._connection, self._lane, self._rules, self._backends
        )
        numbers = effective(self._connection, self._lane, self._rules)
        self._sorted.pack, self._sorted.width = numbers.pack, numbers.groups_per_task
        if self._sorted.room:
            self._sorted.placing = Placing.of(self._connection, self._backends, placement_rules())
        deadline = time.monotonic() + TIME_LIMIT_S
        block = self._sorted.room
        while self._sorted.takes_more:
            deliveries = self._consumer.take(self._rules.queue(self._lane), block)
            if not deliveries:
                # A busy broker has messages that it did not deliver in time.
                self._result.more = self._consumer.depth(self._rules.queue(self._lane)) > 0
                return
            left = len(self._sorted.leave)
            self._sort(deliveries)
            # Full but for shared runs, and the block held something that cannot share: enough has been looked at.
            if self._sorted.room == 0 and len(self._sorted.leave) > left:
                return
            block = BLOCK
            if time.monotonic() > deadline:
                self._result.more = True
                return

    def commit(self) -> Claimed:
        """Move the tasks; the caller's transaction commits it."""
        self._hold()
        note_probes(self._connection, self._sorted.probed, self._rules.host)
        rows = self._move()
        self._record_progress()
        self._result.claimed = len(rows)
        self._result.held = len(self._sorted.hold) + len(self._sorted.nowhere)
        self._result.deferred = len(self._sorted.defer)
        self._result.stale = len(self._stale)
        self._result.orphans = len(self._orphans)
        self._result.malformed = len(self._malformed)
        self._result.more |= bool(self._busy)
        self._result.runs = self._named_runs(rows)
        self._trace(rows)
        return self._result

    def settle_messages(self, publisher: Publisher) -> None:
        """After the commit: ack what is done, give back what stays, send what is not due up the ladder again."""
        claimed = [candidate for run in self._sorted.runs for candidate in run]
        held = [candidate for candidate, _ in (*self._sorted.hold, *self._sorted.nowhere)]
        self._consumer.give_back([*self._busy, *self._tags(self._sorted.leave)])
        self._consumer.ack([*self._stale, *self._orphans, *self._tags(claimed), *self._tags(held)])
        if self._sorted.defer:
            again = [self._again(candidate) for candidate in self._sorted.defer]
            confirmed = {p.task_id for p in publish(self._connection, publisher, self._rules, again)}
            self._consumer.ack(self._tags([c for c in self._sorted.defer if c.task_id in confirmed]))
        if self._malformed:
            dead = publisher.publish(
                [_dead(delivery, error, self._rules) for delivery, error in self._malformed]
            )
            self._consumer.ack([self._malformed[index][0].tag for index in sorted(dead.confirmed)])

    def release_first(self, publisher: Publisher) -> None:
        """Publish those that others were held behind, as far as they may run: else nobody would until the next end."""
        for source in sorted({candidate.source for candidate in self._sorted.behind_held}):
            rows = release_held(self._connection, self._rules.host, source=source, actor=self._actor)
            publish(self._connection, publisher, self._rules, [publication_of(row) for row in rows])
            self._result.released += len(rows)
            self._result.more |= any(row["lane"] == self._lane for row in rows)

    def _sort(self, deliveries: Sequence[Delivery]) -> None:
        named = self._decode(deliveries)
        candidates = self._candidates(named)
        current = {candidate.task_id for candidate in candidates}
        others = [message for message in named if message.task_id not in current]
        self._drop(others)
        self._sorted.hosts |= hosts_in_the_way(
            self._connection, {c.connection for c in candidates} - self._sorted.hosts.keys()
        )
        self._sorted.first_held |= self._first_held(candidates)
        active = self._active(candidates)
        contested = [candidate for candidate in candidates if candidate.source in self._contested]
        self._returned.extend(contested)
        self._busy.extend(self._deliveries.pop(candidate.task_id).tag for candidate in contested)
        self._sorted.sort([c for c in candidates if c.source not in self._contested], active)

    def _decode(self, deliveries: Sequence[Delivery]) -> list[TaskMessage]:
        """Bodies read; a second message of a task in hand is stale, or makes the first one so."""
        named: dict[int, TaskMessage] = {}
        for delivery in deliveries:
            try:
                message = TaskMessage.decode(delivery.body)
            except MalformedMessage as error:
                self._malformed.append((delivery, error))
                continue
            rival = named.get(message.task_id)
            in_hand = message.task_id in self._deliveries
            if in_hand and (rival is None or rival.generation >= message.generation):
                self._stale.append(delivery.tag)
                continue
            if rival is not None:
                self._stale.append(self._deliveries[message.task_id].tag)
            named[message.task_id] = message
            self._deliveries[message.task_id] = delivery
        return list(named.values())

    def _candidates(self, named: Sequence[TaskMessage]) -> list[Candidate]:
        rows = self._connection.execute(query("lanes/lock_named"), _names(named)).fetchall()
        found = {row["id"]: _candidate(row) for row in rows}
        return [found[message.task_id] for message in named if message.task_id in found]

    def _drop(self, messages: Sequence[TaskMessage]) -> None:
        """What cannot be claimed: of a task that somebody else has in hand it goes back, else it is done with."""
        if not messages:
            return
        rows = self._connection.execute(query("lanes/select_others"), _names(messages)).fetchall()
        busy = {row["id"]: row["busy"] for row in rows}
        orphans = [message.task_id for message in messages if message.task_id not in busy]
        if orphans:
            # As after a restore from a backup that is older than the queue, or from a producer that makes up numbers.
            log.error("lane %s: messages of tasks that are not in the database: %s", self._lane, orphans[:20])
        for message in messages:
            held = busy.get(message.task_id)
            tags = self._orphans if held is None else self._busy if held else self._stale
            tags.append(self._deliveries.pop(message.task_id).tag)

    def _active(self, candidates: Sequence[Candidate]) -> dict[str, int]:
        """Tasks under way of the limited sources that are new in this block; ours alone to claim until we commit."""
        limited = {c.source for c in candidates if c.max_active_tasks is not None}
        new = sorted(limited - self._sorted.active.keys() - self._contested)
        if not new:
            return {}
        locked = self._connection.execute(query("lanes/lock_sources"), {"sources": new}).fetchall()
        ours = [row["source"] for row in locked]
        self._contested.update(set(new) - set(ours))
        # A statement of its own: it must see what was committed before the locks were ours.
        rows = self._connection.execute(query("lanes/count_active"), {"sources": ours}).fetchall()
        return dict.fromkeys(ours, 0) | {row["source"]: row["active"] for row in rows}

    def _first_held(self, candidates: Sequence[Candidate]) -> dict[tuple[str, str], FirstHeld]:
        """What of the candidates' endpoints is held and released first; mostly nothing."""
        endpoints = sorted({candidate.endpoint for candidate in candidates})
        if not endpoints:
            return {}
        rows = self._connection.execute(
            query("lanes/select_first_held"),
            {
                "connections": [connection for connection, _ in endpoints],
                "sources": [source for _, source in endpoints],
                "format": FORMAT,
            },
        ).fetchall()
        return {
            (row["connection"], row["source"]): FirstHeld(task_id=row["id"], priority=row["priority"])
            for row in rows
        }

    def _hold(self) -> None:
        for found, held_for in ((self._sorted.hold, None), (self._sorted.nowhere, "node")):
            if found:
                values = {
                    "task_ids": [candidate.task_id for candidate, _ in found],
                    "generations": [candidate.generation for candidate, _ in found],
                    "reasons": [reason for _, reason in found],
                    "held_for": held_for,
                    "actor": self._actor,
                }
                self._connection.execute(query("lanes/hold_tasks"), values)

    def _move(self) -> list[dict[str, Any]]:
        """Claim the tasks: a run of its own a task, or one named by this claim for those that share."""
        if not self._sorted.runs:
            return []
        named = [(self._shared_run_id() if len(run) > 1 else None, run) for run in self._sorted.runs]
        nodes = [",".join(self._nodes(placement)) for placement in self._sorted.placements]
        return self._connection.execute(
            query("lanes/claim_tasks"),
            {
                "task_ids": [c.task_id for _, run in named for c in run],
                "generations": [c.generation for _, run in named for c in run],
                "run_ids": [run_id for run_id, run in named for _ in run],
                "reserved": [int(place == 0) for _, run in named for place in range(len(run))],
                "nodes": [chosen for (_, run), chosen in zip(named, nodes, strict=True) for _ in run],
                "dag_id": collect_dag_id(self._lane),
                "actor": self._actor,
            },
        ).fetchall()

    def _record_progress(self) -> None:
        """Record how far the lane has come, and what it passed over on purpose: what is older and neither is lost."""
        claimed = [candidate for run in self._sorted.runs for candidate in run]
        if not claimed:
            return
        values = {
            "lane": self._lane,
            "priorities": [candidate.priority for candidate in claimed],
            "queued_at": [candidate.queued_at for candidate in claimed],
        }
        self._connection.execute(query("lanes/record_progress"), values)
        passed = passed_over(claimed, [*self._sorted.leave, *self._returned])
        if passed:
            task_ids = [candidate.task_id for candidate in passed]
            self._connection.execute(query("lanes/mark_passed"), {"task_ids": task_ids})

    def _nodes(self, placement: Placement | None) -> Sequence[str]:
        """Where a run's groups will be: where they are sent; beside us, when the executor has no nodes' queues."""
        if placement is not None:
            return placement.nodes
        return () if self._backends.node_queues else (node_id_of(os.environ.get("COLLECT_NODE_ID")),)

    def _shared_run_id(self) -> str:
        row = self._connection.execute("SELECT nextval('collect.claim_id') AS id").fetchone()
        if row is None:
            raise LookupError("the sequence collect.claim_id gave no number")
        return f"claim-{row['id']}"

    def _named_runs(self, rows: Sequence[dict[str, Any]]) -> list[ClaimedRun]:
        moved = {row["id"]: row for row in rows}
        by_run: dict[str, list[dict[str, Any]]] = {}
        for run in self._sorted.runs:  # highest priority first: started in this order
            for row in (moved[candidate.task_id] for candidate in run if candidate.task_id in moved):
                by_run.setdefault(row["run_id"], []).append(row)
        return [
            ClaimedRun(
                dag_id=collect_dag_id(self._lane),
                run_id=run_id,
                conf=run_conf(
                    [(row["id"], row["attempt"]) for row in members],
                    max(row["priority"] for row in members),
                    self._lane,
                    members[0]["nodes"] if self._sorted.placing is not None else (),
                    {row["source"] for row in members},
                ),
            )
            for run_id, members in by_run.items()
        ]

    def _trace(self, rows: Sequence[dict[str, Any]]) -> None:
        duration_s = time.perf_counter() - self._began
        write_traces(
            self._connection,
            [
                TraceRow(
                    task_id=row["id"],
                    stage=Stage.CLAIM,
                    attempt=row["attempt"],
                    duration_s=duration_s,
                    response={
                        "lane": self._lane,
                        "run_id": row["run_id"],
                        "waited_s": round(row["waited_s"], 3),
                        "nodes": row["nodes"],
                    },
                )
                for row in rows
            ]
            + self._placements(rows),
        )

    def _placements(self, rows: Sequence[dict[str, Any]]) -> list[TraceRow]:
        """Why each run goes where it goes, by its first task: that of those which share it."""
        attempts = {row["id"]: row["attempt"] for row in rows}
        return [
            TraceRow(
                task_id=candidate.task_id,
                stage=Stage.PLACE,
                attempt=attempts[candidate.task_id],
                duration_s=0.0,
                response=placement.as_trace(),
            )
            for run, placement in zip(self._sorted.runs, self._sorted.placements, strict=True)
            for candidate in run
            if placement is not None and candidate.task_id in attempts
        ]

    def _tags(self, candidates: Sequence[Candidate]) -> list[int]:
        return [self._deliveries[candidate.task_id].tag for candidate in candidates]

    def _again(self, candidate: Candidate) -> Publication:
        return Publication(
            task_id=candidate.task_id,
            generation=candidate.generation,
            priority=candidate.priority,
            lane=self._lane,
            delay_s=candidate.due_in_s or 0.0,
            retry_count=candidate.retry_count,
        )


def _names(messages: Sequence[TaskMessage]) -> dict[str, Any]:
    return {
        "task_ids": [message.task_id for message in messages],
        "generations": [message.generation for message in messages],
    }


def _candidate(row: dict[str, Any]) -> Candidate:
    return Candidate(
        task_id=row["id"],
        generation=row["generation"],
        attempt=row["attempt"],
        source=row["source"],
        priority=row["priority"],
        retry_count=row["retry_count"],
        small=bool(row["small"]),
        due_in_s=row["due_in_s"],
        max_active_tasks=row["max_active_tasks"],
        connection=row["connection"],
        needs=NodeNeeds.of(row),
        queued_at=row["queued_at"],
        in_queue_at=row["in_queue_at"],
        format=row["format"],
    )


def _dead(delivery: Delivery, error: MalformedMessage, rules: LaneRules) -> OutgoingMessage:
    return OutgoingMessage(
        exchange=rules.broker.dead_queue,
        routing_key=delivery.routing_key,
        body=delivery.body,
        content_type="application/octet-stream",
        headers={"error-message": str(error)[:1000], "failed-time": int(time.time()), "retry-count": 0},
        # So that two equal ones count as two.
        message_id=f"raw-{uuid.uuid4().hex}",
    )
