"""Benchmark `due`: how long what a crash has left lies about once a pass of the sweep is due for it.

Each round brings about, on the running stack, what a crash leaves: a task that the broker never confirmed, a retry
whose message is lost, a waiting task whose message is lost, a claimed task whose run was never started. Counted is the
time from the moment at which its pass is due until it is done. With a sweep each minute, and nothing that looks for
what is due, it would be half a minute in the middle and a minute at most.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg
from rich.console import Console

from benchmarks.errors import PeerFailed
from benchmarks.latency import connection_to, serve_one_row
from benchmarks.measure import Sample, circumstances
from benchmarks.report import Result, Row, Target
from benchmarks.settings import BenchSettings
from benchmarks.urgent import backends_of, cancel_all
from collect_ops.admission.model import Admission, Submission
from collect_ops.admission.service import AdmissionService
from collect_ops.broker.consumer import Consumer
from collect_ops.delivery import outbox, repair
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import lane_rules
from collect_ops.orchestrator.client import AirflowClient
from demo.run import unpause_needed

DEFAULT_ROUNDS: Final = 5
SOURCE: Final = "example_offset"
LANE: Final = "bulk"
PRIORITY: Final = 1
#: A sweep every minute finds what is due after this, in the middle and at most.
MIDDLE_S, MOST_S = 30.0, 60.0
TIMEOUT_S: Final = 200.0
POLL_S: Final = 0.1
#: Nobody listens here.
CLOSED_PORT: Final = 9

CLAIMED_SQL: Final = """
    update collect.task set status = 'CLAIMED', attempt = attempt + 1, dag_id = 'collect_bulk', moved_by = 'benchmark',
        run_id = 'benchmark-' || id || '-attempt-' || attempt + 1, progress_at = now() - make_interval(secs => %s)
    where id = %s
"""
RETRYING_SQL: Final = """
    update collect.task set status = 'RETRYING', reason = 'benchmark', moved_by = 'benchmark',
        due_at = now() - make_interval(secs => %(s)s), queued_at = now() - make_interval(secs => %(s)s + 1)
    where id = %(id)s
"""
OLD_SQL: Final = "update collect.task set queued_at = now() - make_interval(secs => %s) where id = %s"
CONFIRMED_SQL: Final = "select confirmed_generation = generation from collect.task where id = %s"
AGAIN_SQL: Final = (
    "select generation > 1 and confirmed_generation = generation from collect.task where id = %s"
)
STATUS_SQL: Final = "select status <> %s from collect.task where id = %s"


@dataclass(slots=True)
class Bench:
    """What the rounds share."""

    settings: BenchSettings
    backends: Backends
    database: psycopg.Connection
    made: list[int]

    def admit(self, backends: Backends | None = None) -> int:
        """Admit a task of the bulk lane, whose DAG is paused; returns its id."""
        submission = Submission(
            source=SOURCE,
            params={"since": f"1991-01-01T00:00:00.{time.time_ns() // 1000 % 1_000_000:06d}Z"},
            priority=PRIORITY,
            request_id=f"due:{os.getpid()}:{time.time_ns()}",
            identity={"at": time.time_ns()},
            submitted_by="benchmark",
            submitted_via="cli",
        )
        with AdmissionService(backends or self.backends, lane_rules(), None) as service:
            (answer,) = service.admit_batch([submission])
        if not isinstance(answer, Admission) or answer.duplicate_of is not None:
            raise PeerFailed(peer="collect-ops", reason=f"a task was not admitted: {answer}")
        self.made.append(answer.task_id)
        return answer.task_id

    def is_true(self, statement: str, *values: object) -> bool:
        """What a statement of one value finds."""
        row = self.database.execute(statement.encode(), values).fetchone()
        return bool(row and row[0])

    def execute(self, statement: str, values: Any) -> None:
        """Run a statement."""
        self.database.execute(statement.encode(), values)


#: Whether it is done; `due_in_s` seconds after it was brought about it is due.
Done = Callable[[], bool]


def unconfirmed(bench: Bench) -> tuple[float, Done]:
    """A task that was stored while the broker was away."""
    without_broker = replace(bench.backends, amqp_url=f"amqp://nobody:x@127.0.0.1:{CLOSED_PORT}/%2F")
    task_id = bench.admit(without_broker)
    return outbox.OVERDUE_S, lambda: bench.is_true(CONFIRMED_SQL, task_id)


def lost_retry(bench: Bench) -> tuple[float, Done]:
    """A retry whose message is lost, a minute past due."""
    task_id = bench.admit()
    bench.execute(CLAIMED_SQL, (0, task_id))
    bench.execute(RETRYING_SQL, {"s": repair.GRACE_S, "id": task_id})
    return 0.0, lambda: bench.is_true(AGAIN_SQL, task_id)


def lost_message(bench: Bench) -> tuple[float, Done]:
    """A task that has waited for a minute in a queue that is empty."""
    task_id, queue = bench.admit(), lane_rules().queue(LANE)
    with Consumer(bench.backends.amqp_url) as consumer:
        while taken := consumer.take(queue, 1000):
            consumer.ack([each.tag for each in taken])
    bench.execute(OLD_SQL, (repair.GRACE_S, task_id))

    def there_again() -> bool:
        with Consumer(bench.backends.amqp_url) as consumer:
            return consumer.depth(queue) > 0

    return 0.0, there_again


def lost_run(bench: Bench) -> tuple[float, Done]:
    """A claimed task whose claim died before it started the run that it had named."""
    task_id = bench.admit()
    bench.execute(CLAIMED_SQL, (repair.QUIET_S, task_id))
    return 0.0, lambda: bench.is_true(STATUS_SQL, "CLAIMED", task_id)


KINDS: Final[Mapping[str, Callable[[Bench], tuple[float, Done]]]] = {
    "a task that the broker never confirmed": unconfirmed,
    "a retry whose message is lost": lost_retry,
    "a waiting task whose message is lost": lost_message,
    "a claimed task whose run was never started": lost_run,
}


def run(settings: BenchSettings, count: int | None, console: Console) -> Result:
    """Bring each kind about, round after round.

    Args:
        settings: the running stack.
        count: rounds a kind; `DEFAULT_ROUNDS` when None.
        console: where progress is shown.
    """
    count = count or DEFAULT_ROUNDS
    before = circumstances()
    unpause_needed(settings.airflow)
    samples: dict[str, list[Sample]] = {kind: [] for kind in KINDS}
    with serve_one_row() as server, connection_to(settings.airflow, server), paused_lane(settings) as bench:
        for kind, bring_about in KINDS.items():
            for number in range(1, count + 1):
                # At another moment between two runs of the sweep each time.
                time.sleep(3 + number * MIDDLE_S / count)
                seconds = once(bench, bring_about)
                samples[kind].append({"seconds": seconds})
                console.print(f"  {kind} {number}/{count}  done after {seconds:5.1f} s", highlight=False)
    return Result(name="due", rows=rows(samples), samples=samples, circumstances=before)


def once(bench: Bench, bring_about: Callable[[Bench], tuple[float, Done]]) -> float:
    """One round; returns the seconds from due to done."""
    due_in_s, is_done = bring_about(bench)
    due_at = time.monotonic() + due_in_s
    while not is_done():
        if time.monotonic() > due_at + TIMEOUT_S:
            raise PeerFailed(peer="the sweep", reason=f"not done {TIMEOUT_S:.0f} s after it was due")
        time.sleep(POLL_S)
    done_at = time.monotonic()
    cancel_all(bench.backends, bench.made)
    bench.made.clear()
    return max(0.0, done_at - due_at)


@contextmanager
def paused_lane(settings: BenchSettings) -> Iterator[Bench]:
    """The bulk lane claims nothing, so that nothing but the sweep touches what is brought about."""
    backends, path, stack = backends_of(settings), f"/dags/lane_{LANE}", settings.stack
    airflow = AirflowClient(stack.airflow_url, stack.airflow_user, stack.airflow_password)
    airflow.demand("PATCH", path, {"is_paused": True}, action="pause the lane")
    try:
        with psycopg.connect(settings.dsn, autocommit=True) as database:
            bench = Bench(settings, backends, database, [])
            try:
                yield bench
            finally:
                cancel_all(backends, bench.made)
    finally:
        airflow.demand("PATCH", path, {"is_paused": False}, action="let the lane go on")


def rows(samples: Mapping[str, list[Sample]]) -> list[Row]:
    """Two claims a kind, each beside what a sweep every minute would come to."""
    found = []
    for kind, taken in samples.items():
        seconds = [float(sample["seconds"]) for sample in taken]
        for word, value, peer in (
            ("p50", statistics.median(seconds), MIDDLE_S),
            ("max", max(seconds), MOST_S),
        ):
            found.append(
                Row(
                    claim=f"{kind}: from due to done, {word}",
                    ours=value,
                    peer=peer,
                    ratio=peer / max(value, POLL_S),
                    target=Target(of="ratio", sign=">=", value=1.0),
                    unit="s",
                    measured="beside a sweep every minute, by arithmetic",
                    rounds=len(taken),
                )
            )
    return found
