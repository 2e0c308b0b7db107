"""Benchmark `urgent`: how soon an urgent task starts while ten thousand bulk tasks wait.

Through the running stack: the bulk tasks are admitted as a bulk submission admits them, the urgent ones by Airflow's
REST API, one every few seconds. The same on the idle stack, just before, is the bare limit: how much of the time is
Airflow's and the machine's own. Moments are the database's. Whatever is still waiting in the end is cancelled.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import psycopg
from rich.console import Console

from benchmarks.admission_process import SOURCE
from benchmarks.errors import PeerFailed
from benchmarks.fill import fill
from benchmarks.latency import connection_to, serve_one_row
from benchmarks.measure import Sample, Stopwatch, circumstances
from benchmarks.report import Result, Row, Target
from benchmarks.settings import BenchSettings
from collect_ops.delivery.intervene import cancel
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import lane_rules
from demo.run import submit, unpause_needed

DEFAULT_ROUNDS: Final = 30
#: Of the idle stack, for comparison.
IDLE_ROUNDS: Final = 10
BACKLOG: Final = 10_000
BULK_PRIORITY: Final = 1
URGENT_PRIORITY: Final = 10
PAUSE_S: Final = 2.0
START_TIMEOUT_S: Final = 120.0
POLL_S: Final = 0.05
CANCEL_BLOCK: Final = 1_000
CANCEL_TIMEOUT_S: Final = 120.0
#: Parameters of the urgent tasks: none of them equals a bulk task's.
URGENT_DAY: Final = datetime(2020, 1, 1, tzinfo=UTC)

NOW_SQL: Final = "select clock_timestamp() as at"
STARTED_SQL: Final = "select created_at, started_at from collect.task where id = %s"
WAITING_SQL: Final = """
    select count(*) from collect.task
    where id = any(%s) and status in ('QUEUED', 'HELD', 'RETRYING')
"""
OPEN_SQL: Final = """
    select id from collect.task
    where id = any(%s) and status not in ('COMPLETED', 'PARTIAL', 'DEAD', 'CANCELLED')
    order by id
    limit %s
"""


def run(settings: BenchSettings, count: int | None, console: Console) -> Result:
    """Submit urgent tasks under a backlog.

    Args:
        settings: the running stack, Airflow included.
        count: urgent tasks; `DEFAULT_ROUNDS` when None.
        console: where progress is shown.
    """
    count = count or DEFAULT_ROUNDS
    before = circumstances()
    unpause_needed(settings.airflow)
    with (
        serve_one_row() as server,
        connection_to(settings.airflow, server),
        psycopg.connect(settings.dsn, autocommit=True) as database,
    ):
        idle = [
            _once(settings, database, number, IDLE_ROUNDS, console, of="idle")
            for number in range(1, IDLE_ROUNDS + 1)
        ]
        with _backlog(settings, console) as ids:
            _await_first_start(database, ids)
            samples = [
                _once(settings, database, number, count, console, of="urgent")
                for number in range(1, count + 1)
            ]
            row = database.execute(WAITING_SQL, (ids,)).fetchone()
        waiting = int(row[0]) if row else 0
    if not waiting:
        raise PeerFailed(peer="the backlog", reason="it was gone before the last urgent task was submitted")
    return Result(
        name="urgent",
        rows=rows(samples, idle),
        samples={"collect-ops": samples, "idle stack": idle},
        circumstances=before,
        notes=(f"{BACKLOG:,} bulk tasks in the beginning, {waiting:,} of them still waiting in the end.",),
    )


def rows(samples: Sequence[Sample], idle: Sequence[Sample]) -> list[Row]:
    """The claims, from the urgent tasks' figures and those of the idle stack."""
    whole = [float(sample["seconds"]) for sample in samples]
    admitted = [float(sample["from_admission_s"]) for sample in samples]
    median, bare = percentile(whole, 50), percentile([float(sample["seconds"]) for sample in idle], 50)
    posted = "POST of the submitting run to the collect run's first act (collect.task.started_at)"
    inner = "commit of the admission to the same: the submitting Airflow run not counted"

    def row(claim: str, value: float, measured: str, target: Target | None = None) -> Row:
        return Row(claim=claim, ours=value, target=target, unit="s", measured=measured, rounds=len(samples))

    return [
        Row(
            claim="urgent task under a backlog, submit to start, p50, against an idle stack",
            ours=median,
            peer=bare,
            ratio=bare / median,
            unit="s",
            measured=f"{posted}; peer: the same before the backlog, {len(idle)} tasks",
            rounds=len(samples),
        ),
        row(
            "urgent task under a backlog, submit to start, p95",
            percentile(whole, 95),
            posted,
            Target(of="ours", sign="<=", value=2.5),
        ),
        row("of that, admission to start, p50", percentile(admitted, 50), inner),
        row("of that, admission to start, p95", percentile(admitted, 95), inner),
    ]


def percentile(values: Sequence[float], which: int) -> float:
    """A percentile of measured values, itself between two of them where it falls there."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[which - 1]


@contextmanager
def _backlog(settings: BenchSettings, console: Console) -> Iterator[list[int]]:
    """The bulk tasks, for the length of the block; what is left of them then is cancelled."""
    backends = backends_of(settings)
    # No two runs of the benchmark submit equal tasks: those of the last one may hold their keys for a day. A run takes
    # longer than the 50 s in which these numbers move on by a backlog.
    first = int(time.time()) * (BACKLOG // 50) % 3_000_000_000
    with Stopwatch() as watch:
        ids = fill(backends, lane_rules(), BACKLOG, priority=BULK_PRIORITY, first=first)
    console.print(f"  {BACKLOG:,} bulk tasks admitted in {watch.seconds:.1f} s", highlight=False)
    try:
        yield ids
    finally:
        cancelled = cancel_all(backends, ids)
        console.print(f"  {cancelled:,} bulk tasks cancelled", highlight=False)


def backends_of(settings: BenchSettings) -> Backends:
    """The stack's own services."""
    return Backends(
        postgres_dsn=settings.dsn,
        redis_url=settings.stack.redis_url,
        amqp_url=settings.stack.amqp_url,
        rabbitmq_api_url=settings.stack.rabbitmq_api_url,
    )


def cancel_all(backends: Backends, ids: Sequence[int]) -> int:
    """Cancel those of some tasks that have not ended; returns how many.

    Raises:
        PeerFailed: some are open still after two minutes.
    """
    cancelled = 0
    deadline = time.monotonic() + CANCEL_TIMEOUT_S
    with psycopg.connect(backends.postgres_dsn, autocommit=True) as database:
        while time.monotonic() < deadline:
            left = [row[0] for row in database.execute(OPEN_SQL, (list(ids), CANCEL_BLOCK)).fetchall()]
            if not left:
                return cancelled
            done = cancel(left, backends, lane_rules(), actor="benchmark", reason="the benchmark is over")
            cancelled += len(done.moved)
    raise PeerFailed(peer="the backlog", reason=f"{len(left)} tasks or more could not be cancelled")


def _await_first_start(database: psycopg.Connection, ids: Sequence[int]) -> None:
    """The lane is at work: what is measured after this competes with bulk tasks that run."""
    started_sql = "select exists (select from collect.task where id = any(%s) and started_at is not null)"
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        row = database.execute(started_sql, (list(ids),)).fetchone()
        if row and row[0]:
            return
        time.sleep(POLL_S)
    raise PeerFailed(peer="the backlog", reason=f"no bulk task started within {START_TIMEOUT_S:.0f} s")


def _once(
    settings: BenchSettings,
    database: psycopg.Connection,
    number: int,
    count: int,
    console: Console,
    *,
    of: str,
) -> Sample:
    time.sleep(PAUSE_S)
    moment = URGENT_DAY.replace(microsecond=0).timestamp() + time.time_ns() % 10**9
    more = {
        "priority": URGENT_PRIORITY,
        "params": {"since": datetime.fromtimestamp(moment, UTC).isoformat()},
    }
    began = _moment(database)
    submission = submit(settings.airflow, SOURCE, force=False, more=more)
    created, started = _await_start(database, submission.task_id)
    sample = {
        "seconds": (started - began).total_seconds(),
        "from_admission_s": (started - created).total_seconds(),
    }
    console.print(
        f"  {of} {number}/{count}  submit to start {sample['seconds']:5.2f} s, "
        f"of that from admission {sample['from_admission_s']:5.2f} s",
        highlight=False,
    )
    return sample


def _moment(database: psycopg.Connection) -> datetime:
    row = database.execute(NOW_SQL).fetchone()
    if row is None:
        raise LookupError("PostgreSQL told no time")
    moment: datetime = row[0]
    return moment


def _await_start(database: psycopg.Connection, task_id: int) -> tuple[datetime, datetime]:
    """When a task was admitted and when it started, by the database's clock.

    Raises:
        PeerFailed: it did not start in time.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        row = database.execute(STARTED_SQL, (task_id,)).fetchone()
        if row is not None and row[1] is not None:
            return row[0], row[1]
        time.sleep(POLL_S)
    raise PeerFailed(
        peer="collect-ops", reason=f"urgent task {task_id} did not start in {START_TIMEOUT_S:.0f} s"
    )
