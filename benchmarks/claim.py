"""Benchmark `claim`: how fast a lane with room takes what waits in its queue."""

from __future__ import annotations

from functools import partial
from typing import Final

import pika
from rich.console import Console

from benchmarks.admission_process import NoRuns
from benchmarks.errors import PeerFailed
from benchmarks.fill import fill
from benchmarks.measure import Contender, Sample, Stopwatch, circumstances, median, rounds
from benchmarks.own_services import empty, own_backends
from benchmarks.report import Result, Row
from benchmarks.settings import BenchSettings
from collect_ops.delivery.priorities import adjust
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.claim import claim
from collect_ops.lanes.rules import LaneRules, lane_rules

DEFAULT_ROUNDS: Final = 3
LANE: Final = "bulk"
TASKS: Final = 8_000
#: Tasks that get another priority in the same lane: their first message is stale.
ADJUSTED: Final = 2_000
#: What one by one takes too long for all of it.
ONE_BY_ONE: Final = 1_000
PREFETCH: Final = 500
CLAIMS_AT_MOST: Final = 100

OURS: Final = "collect-ops, claims"
GET: Final = "basic_get + ack, one by one"
CONSUME: Final = "consume, prefetch 500, acks of many"


def run(settings: BenchSettings, count: int | None, console: Console) -> Result:
    """Compare claims with taking the same messages and doing nothing with them.

    Args:
        settings: the running stack; only its servers are needed.
        count: rounds; `DEFAULT_ROUNDS` when None.
        console: where progress is shown.
    """
    count = count or DEFAULT_ROUNDS
    before = circumstances()
    rules = roomy(lane_rules())
    with own_backends(settings) as backends:
        contenders = [
            Contender(name=OURS, run=partial(claim_all, backends, rules)),
            Contender(name=GET, run=partial(get_one_by_one, backends, rules)),
            Contender(name=CONSUME, run=partial(consume, backends, rules)),
        ]
        samples = rounds(contenders, count, console, "messages")
    per_s = {name: taken[0]["messages"] / median(taken) for name, taken in samples.items()}
    measured = "a queue of 10,000 messages, 2,000 of them stale, and room for all: locked, checked, moved to CLAIMED, "
    measured += "logged, traced, committed, acked, runs named"
    rows = [
        Row(
            claim=f"messages claimed, against {name}",
            ours=per_s[OURS],
            peer=per_s[name],
            ratio=per_s[OURS] / per_s[name],
            unit="/s",
            measured=measured
            if name == GET
            else "the bare limit: no database, nothing is done with the messages",
            rounds=count,
        )
        for name in (GET, CONSUME)
    ]
    tasks = Row(
        claim="tasks claimed",
        ours=samples[OURS][0]["tasks"] / median(samples[OURS]),
        unit="/s",
        measured="of the same claims: stale messages do not count",
        rounds=count,
    )
    return Result(name="claim", rows=[*rows, tasks], samples=samples, circumstances=before)


def roomy(rules: LaneRules) -> LaneRules:
    """The rules, with room for everything in the lane."""
    lane = rules.lanes[LANE].model_copy(update={"slots": 10 * (TASKS + ADJUSTED)})
    return rules.model_copy(update={"lanes": {**rules.lanes, LANE: lane}})


def backlog(backends: Backends, rules: LaneRules, tasks: int, adjusted: int) -> int:
    """A queue of `tasks` current and `adjusted` stale messages; returns how many that are."""
    empty(backends, rules)
    ids = fill(backends, rules, tasks, priority=1)
    adjust(ids[:adjusted], 2, backends, rules, actor="benchmark", reason="measured")
    return tasks + adjusted


def claim_all(backends: Backends, rules: LaneRules, tasks: int = TASKS, adjusted: int = ADJUSTED) -> Sample:
    """Claim until the queue is empty.

    Raises:
        PeerFailed: it is not, or tasks are missing.
    """
    messages = backlog(backends, rules, tasks, adjusted)
    claimed = stale = 0
    with Stopwatch() as watch:
        for _ in range(CLAIMS_AT_MOST):
            done = claim(LANE, backends, rules, NoRuns(), actor="benchmark")
            claimed, stale = claimed + done.claimed, stale + done.stale
            if claimed + stale >= messages:
                break
    if (claimed, stale) != (tasks, adjusted):
        raise PeerFailed(peer=OURS, reason=f"claimed {claimed} of {tasks} tasks, {stale} messages were stale")
    return {"seconds": watch.seconds, "messages": messages, "tasks": claimed}


def get_one_by_one(
    backends: Backends,
    rules: LaneRules,
    tasks: int = TASKS,
    adjusted: int = ADJUSTED,
    messages: int = ONE_BY_ONE,
) -> Sample:
    """Ask for a message, ack it, ask for the next."""
    backlog(backends, rules, tasks, adjusted)
    connection = pika.BlockingConnection(pika.URLParameters(backends.amqp_url))
    channel = connection.channel()
    with Stopwatch() as watch:
        for number in range(messages):
            method, _, _ = channel.basic_get(rules.queue(LANE))
            if method is None:
                raise PeerFailed(peer=GET, reason=f"the queue was empty after {number} messages")
            channel.basic_ack(method.delivery_tag)
    connection.close()
    return {"seconds": watch.seconds, "messages": messages}


def consume(backends: Backends, rules: LaneRules, tasks: int = TASKS, adjusted: int = ADJUSTED) -> Sample:
    """Take messages as they come, and ack them by the hundreds."""
    messages = backlog(backends, rules, tasks, adjusted)
    connection = pika.BlockingConnection(pika.URLParameters(backends.amqp_url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    with Stopwatch() as watch:
        for taken, (method, _, _) in enumerate(channel.consume(rules.queue(LANE), inactivity_timeout=5), 1):
            if method is None:
                raise PeerFailed(peer=CONSUME, reason=f"the queue was empty after {taken - 1} messages")
            if taken % (PREFETCH // 2) == 0 or taken == messages:
                channel.basic_ack(method.delivery_tag, multiple=True)
            if taken == messages:
                break
        channel.cancel()
    connection.close()
    return {"seconds": watch.seconds, "messages": messages}
