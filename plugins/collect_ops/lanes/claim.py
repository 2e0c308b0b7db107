"""Claiming: take what a lane can run now, highest priority first, and start its runs.

One transaction: the lane's lock, the moves, the commit; then the acks (DESIGN guarantee 4). A claim that dies at any
point leaves its messages to be delivered again, where those of claimed tasks move nothing, and its claimed tasks to
the repair pass, which starts the run that the commit named.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from collect_ops.broker.consumer import Consumer, Delivery
from collect_ops.broker.message import MalformedMessage, OutgoingMessage, TaskMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.coordination.wakeups import Wakeups
from collect_ops.journal.trace import Stage, TraceRow, write_traces
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.capacity import room as room_of
from collect_ops.lanes.policy import Candidate, Decision, decide
from collect_ops.lanes.publication import Publication, publish
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import Runs, RunsUnavailable, collect_dag_id, wake
from collect_ops.storage import Connection, connect, query

log = logging.getLogger(__name__)

#: Messages looked at in one go when the head of the queue is stale.
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
    """What a claim did, counted in messages."""

    lane: str
    runs: list[ClaimedRun] = field(default_factory=list)
    claimed: int = 0
    held: int = 0
    deferred: int = 0
    stale: int = 0
    malformed: int = 0
    room: int = 0
    busy: bool = False
    more: bool = False


@dataclass(slots=True)
class _Taken:
    """Messages in hand, by what happens to them after the commit."""

    done: list[int] = field(default_factory=list)
    back: list[int] = field(default_factory=list)
    defer: list[tuple[Candidate, Delivery]] = field(default_factory=list)
    malformed: list[tuple[Delivery, MalformedMessage]] = field(default_factory=list)


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
        BrokerUnavailable, DatabaseUnavailable: Nothing was acked; the messages come again.
    """
    wakeups = Wakeups(backends.redis_url)
    wakeups.clear(lane)
    result, taken = Claimed(lane=lane), _Taken()
    with (
        connect(backends.postgres_dsn, application_name=f"collect-ops claim {lane}") as connection,
        Consumer(backends.amqp_url) as consumer,
        Publisher(backends.amqp_url) as publisher,
    ):
        with connection.transaction():
            if not _locked(connection, lane):
                result.busy = True
                return result
            _claim_until_full(connection, consumer, rules, result, taken, actor)
        _settle_messages(connection, consumer, publisher, rules, lane, taken)
    start_runs(result.runs, runs)
    if result.more:
        wake([lane], runs, wakeups)
    log.info(
        "lane %s: claimed %d, held %d, deferred %d, stale %d, malformed %d",
        lane, result.claimed, result.held, result.deferred, result.stale, result.malformed,
    )  # fmt: skip
    return result


def start_runs(runs_to_start: Sequence[ClaimedRun], runs: Runs) -> None:
    """Start runs; one that could not be started is the repair pass's: its task is CLAIMED and names it."""
    for run in runs_to_start:
        try:
            runs.start(run.dag_id, run.run_id, run.conf)
        except RunsUnavailable as error:
            log.error("run %s not started, repair will: %s", run.run_id, error)


def run_conf(task_id: int, attempt: int, priority: int, lane: str) -> dict[str, Any]:
    """The conf of a collect run: ids and what the cluster policy needs, nothing large."""
    return {"tasks": [{"task_id": task_id, "attempt": attempt}], "priority": priority, "lane": lane}


def _locked(connection: Connection, lane: str) -> bool:
    row = connection.execute(query("lanes/lock_lane"), {"lane": lane}).fetchone()
    return bool(row and row["locked"])


def _claim_until_full(
    connection: Connection, consumer: Consumer, rules: LaneRules, result: Claimed, taken: _Taken, actor: str
) -> None:
    result.room = room = room_of(connection, result.lane, rules)
    deadline = time.monotonic() + TIME_LIMIT_S
    block = room
    while room > 0:
        deliveries = consumer.take(rules.queue(result.lane), block)
        if not deliveries:
            return
        claimed = _claim_block(connection, rules, deliveries, room, result, taken, actor)
        room -= claimed
        block = BLOCK if claimed == 0 else room
        if time.monotonic() > deadline:
            result.more = room > 0
            return


def _claim_block(
    connection: Connection,
    rules: LaneRules,
    deliveries: Sequence[Delivery],
    room: int,
    result: Claimed,
    taken: _Taken,
    actor: str,
) -> int:
    began = time.perf_counter()
    named = _decode(deliveries, result, taken)
    candidates = _candidates(connection, named)
    by_id = {message.task_id: delivery for delivery, message in named}
    current = {candidate.task_id for candidate in candidates}
    active = _active(connection, candidates)
    decision = decide(candidates, room=room, active=active)
    _hold(connection, decision, actor)
    rows = _move(connection, decision, result.lane, actor)
    result.claimed += len(rows)
    result.held += len(decision.hold)
    result.deferred += len(decision.defer)
    result.stale += len(named) - len(candidates)
    for delivery, message in named:
        if message.task_id not in current:
            taken.done.append(delivery.tag)
    taken.done.extend(by_id[c.task_id].tag for c in (*decision.claim, *(held for held, _ in decision.hold)))
    taken.back.extend(by_id[c.task_id].tag for c in decision.leave)
    taken.defer.extend((c, by_id[c.task_id]) for c in decision.defer)
    duration_s = time.perf_counter() - began
    write_traces(
        connection,
        [
            TraceRow(
                task_id=row["id"],
                stage=Stage.CLAIM,
                attempt=row["attempt"],
                duration_s=duration_s,
                response={"lane": result.lane, "run_id": row["run_id"], "waited_s": round(row["waited_s"], 3)},
            )
            for row in rows
        ],
    )
    result.runs.extend(
        ClaimedRun(
            dag_id=collect_dag_id(result.lane),
            run_id=row["run_id"],
            conf=run_conf(row["id"], row["attempt"], row["priority"], result.lane),
        )
        for row in rows
    )
    return len(rows)


def _decode(
    deliveries: Sequence[Delivery], result: Claimed, taken: _Taken
) -> list[tuple[Delivery, TaskMessage]]:
    """Bodies read; of two messages of one task only the newest generation stays, the other is stale."""
    newest: dict[int, tuple[Delivery, TaskMessage]] = {}
    for delivery in deliveries:
        try:
            message = TaskMessage.decode(delivery.body)
        except MalformedMessage as error:
            result.malformed += 1
            taken.malformed.append((delivery, error))
            continue
        known = newest.get(message.task_id)
        if known is not None:
            stale = known if known[1].generation < message.generation else (delivery, message)
            taken.done.append(stale[0].tag)
            result.stale += 1
            if stale[0] is delivery:
                continue
        newest[message.task_id] = (delivery, message)
    return list(newest.values())


def _candidates(connection: Connection, named: Sequence[tuple[Delivery, TaskMessage]]) -> list[Candidate]:
    rows = connection.execute(
        query("lanes/lock_named"),
        {
            "task_ids": [message.task_id for _, message in named],
            "generations": [message.generation for _, message in named],
        },
    ).fetchall()
    found = {
        row["id"]: Candidate(
            task_id=row["id"],
            generation=row["generation"],
            attempt=row["attempt"],
            source=row["source"],
            priority=row["priority"],
            retry_count=row["retry_count"],
            due_in_s=row["due_in_s"],
            max_active_tasks=row["max_active_tasks"],
        )
        for row in rows
    }
    return [found[message.task_id] for _, message in named if message.task_id in found]


def _active(connection: Connection, candidates: Sequence[Candidate]) -> dict[str, int]:
    limited = sorted({c.source for c in candidates if c.max_active_tasks is not None})
    if not limited:
        return {}
    rows = connection.execute(query("lanes/count_active"), {"sources": limited}).fetchall()
    return {row["source"]: row["active"] for row in rows}


def _hold(connection: Connection, decision: Decision, actor: str) -> None:
    if decision.hold:
        connection.execute(
            query("lanes/hold_tasks"),
            {
                "task_ids": [candidate.task_id for candidate, _ in decision.hold],
                "generations": [candidate.generation for candidate, _ in decision.hold],
                "reasons": [reason for _, reason in decision.hold],
                "actor": actor,
            },
        )


def _move(connection: Connection, decision: Decision, lane: str, actor: str) -> list[dict[str, Any]]:
    if not decision.claim:
        return []
    return connection.execute(
        query("lanes/claim_tasks"),
        {
            "task_ids": [candidate.task_id for candidate in decision.claim],
            "generations": [candidate.generation for candidate in decision.claim],
            "run_ids": [None] * len(decision.claim),
            "dag_id": collect_dag_id(lane),
            "actor": actor,
        },
    ).fetchall()


def _settle_messages(
    connection: Connection, consumer: Consumer, publisher: Publisher, rules: LaneRules, lane: str, taken: _Taken
) -> None:
    """After the commit: ack what is done, give back what stays, send what is not due up the ladder again."""
    consumer.give_back(taken.back)
    consumer.ack(taken.done)
    if taken.defer:
        again = [
            Publication(
                task_id=candidate.task_id,
                generation=candidate.generation,
                priority=candidate.priority,
                lane=lane,
                delay_s=candidate.due_in_s or 0.0,
                retry_count=candidate.retry_count,
            )
            for candidate, _ in taken.defer
        ]
        confirmed = {publication.task_id for publication in publish(connection, publisher, rules, again)}
        consumer.ack([delivery.tag for candidate, delivery in taken.defer if candidate.task_id in confirmed])
    if taken.malformed:
        dead = publisher.publish([_dead(delivery, error, rules) for delivery, error in taken.malformed])
        consumer.ack([taken.malformed[index][0].tag for index in sorted(dead.confirmed)])


def _dead(delivery: Delivery, error: MalformedMessage, rules: LaneRules) -> OutgoingMessage:
    return OutgoingMessage(
        exchange=rules.broker.dead_queue,
        routing_key=delivery.routing_key,
        body=delivery.body,
        content_type="application/octet-stream",
        headers={"error-message": str(error)[:1000], "failed-time": int(time.time()), "retry-count": 0},
    )
