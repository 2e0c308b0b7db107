"""Benchmark `priority`: ten thousand waiting tasks get another priority in one call."""

from __future__ import annotations

from typing import Final

from rich.console import Console

from benchmarks.errors import PeerFailed
from benchmarks.fill import fill
from benchmarks.measure import Contender, Sample, Stopwatch, circumstances, median, rounds
from benchmarks.own_services import empty, own_backends, purge
from benchmarks.report import Result, Row, Target
from benchmarks.settings import BenchSettings
from collect_ops.broker.publisher import Publisher
from collect_ops.delivery.priorities import adjust
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.publication import Publication, as_message
from collect_ops.lanes.rules import LaneRules, lane_rules
from collect_ops.storage import connect

DEFAULT_ROUNDS: Final = 3
TASKS: Final = 10_000
BEFORE: Final = 1
AFTER: Final = 6
OURS: Final = "collect-ops, one call"
BARE: Final = "bare update and publish"

#: A table with the columns, indexes and checks of collect.task, but nobody's triggers and references.
BARE_TABLE: Final = (
    "drop table if exists bench_task",
    "create table bench_task (like collect.task including all)",
    "insert into bench_task overriding system value select * from collect.task",
    "analyze bench_task",
)
BARE_UPDATE: Final = """
    update bench_task set priority = %(priority)s, lane = %(lane)s, generation = generation + 1
    where status = 'QUEUED'
    returning id, generation
"""


def run(settings: BenchSettings, count: int | None, console: Console) -> Result:
    """Compare a re-prioritisation with the two things it cannot do without.

    Args:
        settings: the running stack; only its servers are needed.
        count: rounds; `DEFAULT_ROUNDS` when None.
        console: where progress is shown.
    """
    count = count or DEFAULT_ROUNDS
    before = circumstances()
    rules = lane_rules()
    with own_backends(settings) as backends:
        contenders = [
            Contender(name=OURS, run=lambda: reprioritise(backends, rules)),
            Contender(name=BARE, run=lambda: update_and_publish(backends, rules)),
        ]
        samples = rounds(contenders, count, console, "tasks")
    ours, bare = median(samples[OURS]), median(samples[BARE])
    row = Row(
        claim="10,000 waiting tasks re-prioritised in one call",
        ours=ours,
        peer=bare,
        ratio=bare / ours,
        target=Target(of="ours", sign="<=", value=10),
        unit="s",
        measured="from priority 1 to 6, into another lane: new generations, their log, confirmed messages; "
        "the bare limit is one UPDATE … RETURNING and the same messages",
        rounds=count,
    )
    return Result(name="priority", rows=[row], samples=samples, circumstances=before)


def reprioritise(backends: Backends, rules: LaneRules, tasks: int = TASKS) -> Sample:
    """Give waiting tasks another priority.

    Raises:
        PeerFailed: not all of them have it, with a confirmed message.
    """
    empty(backends, rules)
    ids = fill(backends, rules, tasks, priority=BEFORE)
    with Stopwatch() as watch:
        adjust(ids, AFTER, backends, rules, actor="benchmark", reason="measured")
    with connect(backends.postgres_dsn) as connection:
        row = connection.execute(
            "select count(*) as n from collect.task where priority = %s and confirmed_generation = 2",
            (AFTER,),
        ).fetchone()
    if row is None or row["n"] != tasks:
        raise PeerFailed(peer=OURS, reason=f"{row and row['n']} of {tasks} tasks have their priority")
    return {"seconds": watch.seconds, "tasks": tasks}


def update_and_publish(backends: Backends, rules: LaneRules, tasks: int = TASKS) -> Sample:
    """One statement and a stream of messages with their confirms, and nothing else.

    Raises:
        PeerFailed: the broker did not confirm all of them.
    """
    empty(backends, rules)
    fill(backends, rules, tasks, priority=BEFORE)
    purge(backends.amqp_url, rules)
    lane = rules.lane_of(AFTER)
    with connect(backends.postgres_dsn) as connection, Publisher(backends.amqp_url) as publisher:
        for statement in BARE_TABLE:
            connection.execute(statement)
        with Stopwatch() as watch:
            values = {"priority": AFTER, "lane": lane}
            rows = connection.execute(BARE_UPDATE, values).fetchall()
            messages = [
                as_message(
                    Publication(task_id=row["id"], generation=row["generation"], priority=AFTER, lane=lane),
                    rules,
                )
                for row in rows
            ]
            published = publisher.publish(messages)
    if len(published.confirmed) != tasks:
        raise PeerFailed(peer=BARE, reason=f"{len(published.confirmed)} of {tasks} messages confirmed")
    return {"seconds": watch.seconds, "tasks": tasks}
