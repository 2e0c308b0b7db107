"""Benchmark `recovery`: how soon new work starts after a blow, while a shard group runs and tasks wait.

Each round: a group of two minutes runs, fifty tasks wait in the bulk lane; the blow; an urgent task is admitted as soon
as admission answers again, and followed until its run has begun. `RECOVERY_BLOWS=scheduler,postgres` names some of the
blows.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
import redis
from rich.console import Console

from benchmarks import slow_source
from benchmarks.errors import PeerFailed
from benchmarks.measure import Sample, circumstances
from benchmarks.report import Result, Row, Target
from benchmarks.settings import BenchSettings
from benchmarks.slow_source import CONNECTION, SOURCE, Kind
from benchmarks.urgent import backends_of, cancel_all
from collect_ops.admission.model import Admission, Submission
from collect_ops.admission.service import AdmissionService
from collect_ops.kernel.errors import CollectOpsError
from collect_ops.lanes.rest_runs import RestRuns
from collect_ops.lanes.rules import lane_rules
from demo.run import unpause_needed
from stack import health, postgres, supervisor
from stack.layout import Layout
from stack.programs import programs
from stack.settings import Stack, load

DEFAULT_ROUNDS: Final = 5
WAITING: Final = 50
BULK, NORMAL, URGENT = 1, 5, 10
PAUSE_S: Final = 20.0
#: What the long group has left at least when the blow comes.
LEFT_S: Final = 60.0
TARGET_S: Final = 30.0
TIMEOUT_S: Final = 300.0
HEALTHY_WITHIN_S: Final = 600.0
POLL_S: Final = 0.1

TASK_SQL: Final = "select status, attempt, lost_count, started_at from collect.task where id = %s"
LANDED_SQL: Final = "select rows_landed from collect.task_progress where id = %s"
WAITING_SQL: Final = "select count(*) from collect.task where id = any(%s) and status = 'QUEUED'"
TERMINATE_SQL: Final = """
    select count(pg_terminate_backend(pid)) from pg_stat_activity
    where pid <> pg_backend_pid() and backend_type = 'client backend'
"""
AWAY: Final = (psycopg.Error, redis.RedisError, CollectOpsError, OSError)

Blow = Callable[[Stack], None]


def kill(name: str) -> Blow:
    """SIGKILL to a service's process."""

    def blow(stack: Stack) -> None:
        os.kill(supervisor.states(stack.layout)[name].pid, signal.SIGKILL)

    return blow


def terminate_connections(stack: Stack) -> None:
    """Cut every connection to PostgreSQL."""
    with postgres.connect(stack) as connection:
        connection.execute(TERMINATE_SQL)


def pause_scheduler(stack: Stack) -> None:
    """SIGSTOP for 20 s; whoever waits for the urgent task waits for the rest of them as well."""
    pid = supervisor.states(stack.layout)["scheduler"].pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(PAUSE_S)
    os.kill(pid, signal.SIGCONT)


BLOWS: Final[Mapping[str, Blow]] = {
    "nothing": lambda _: None,
    "connections": terminate_connections,
    "pause": pause_scheduler,
    "scheduler": kill("scheduler"),
    "worker": kill("worker"),
    "postgres": kill("postgres"),
    "rabbitmq": kill("rabbitmq"),
    "redis": kill("redis"),
    "api-server": kill("api-server"),
    "triggerer": kill("triggerer"),
    "dag-processor": kill("dag-processor"),
}
SENTENCES: Final = {
    "nothing": "nothing struck",
    "connections": "all PostgreSQL connections terminated",
    "pause": "scheduler paused for 20 s",
}
NAMES: Final = {name: SENTENCES.get(name, f"{name} killed") for name in BLOWS}
#: A restart of PostgreSQL takes what its recovery takes.
WITHOUT_TARGET: Final = ("postgres",)


@dataclass(slots=True)
class Bench:
    """What the rounds share."""

    settings: BenchSettings
    stack: Stack
    admission: AdmissionService
    numbers: Iterator[int] = field(default_factory=slow_source.numbers)
    waiting: list[int] = field(default_factory=list)
    long: int | None = None
    long_since: float = 0.0

    def admit(self, kind: Kind, priority: int) -> int:
        """Admit a task; returns its id.

        Raises:
            PeerFailed: it was not admitted.
        """
        submission = Submission(
            source=SOURCE,
            params={"since": slow_source.since(kind, next(self.numbers))},
            priority=priority,
            request_id=f"recovery:{os.getpid()}:{time.time_ns()}",
            submitted_by="benchmark",
            submitted_via="cli",
        )
        answer = self.admission.admit(submission)
        if not isinstance(answer, Admission) or answer.duplicate_of is not None:
            raise PeerFailed(peer="collect-ops", reason=f"a task was not admitted: {answer}")
        return answer.task_id

    def row(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        """The first row that a statement finds."""
        with psycopg.connect(self.settings.dsn, autocommit=True) as connection:
            return connection.execute(statement.encode(), values).fetchone()

    def prepare(self) -> None:
        """Everything healthy, a long group at work that has time left, tasks waiting."""
        self.await_health()
        row = self.row(WAITING_SQL, self.waiting)
        missing = WAITING - (int(row[0]) if row else 0)
        self.waiting += [self.admit(Kind.WAITING, BULK) for _ in range(missing)]
        whole_s = 4 * slow_source.LONG_PAGE_S
        task = self.row(TASK_SQL, self.long)
        fresh = time.monotonic() - self.long_since <= whole_s - LEFT_S
        if not (fresh and task and task[0] == "RUNNING" and task[1] == 1):
            if self.long is not None:
                cancel_all(backends_of(self.settings), [self.long])
            self.long = self.admit(Kind.LONG, NORMAL)
            self.await_rows(self.long)
            self.long_since = time.monotonic()

    def await_rows(self, task_id: int) -> None:
        """Return when a task's first page has landed."""
        deadline = time.monotonic() + TIMEOUT_S
        while not ((row := self.row(LANDED_SQL, task_id)) and row[0]):
            if time.monotonic() > deadline:
                raise PeerFailed(peer="collect-ops", reason=f"task {task_id} landed nothing")
            time.sleep(POLL_S)

    def await_health(self) -> None:
        """Return when every service is healthy."""
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        while ill := self.ill():
            if time.monotonic() > deadline:
                raise PeerFailed(peer="the stack", reason=f"not healthy: {ill}")
            time.sleep(1)

    def ill(self) -> dict[str, str]:
        """What is wrong with which service."""
        states = supervisor.states(self.stack.layout)
        found = {
            name: health.illness(self.stack, program, states[name])
            for name, program in programs(self.stack).items()
        }
        return {name: complaint for name, complaint in found.items() if complaint is not None}

    def once(self, blow: Blow) -> Sample:
        """One round."""
        self.prepare()
        assert self.long is not None
        struck = time.time()
        blow(self.stack)
        task_id = self.admit_patiently(struck)
        admitted = time.time()
        started = self.await_start(task_id, struck)
        task = self.patiently(lambda: self.row(TASK_SQL, self.long))
        kept = bool(task and task[1] == 1 and task[2] == 0 and task[0] in ("RUNNING", "COMPLETED"))
        return {
            "seconds": started - struck,
            "admitted_s": admitted - struck,
            "from_admission_s": started - admitted,
            "long_group_kept": kept,
        }

    def admit_patiently(self, struck: float) -> int:
        """Admit the urgent task, again and again until somebody answers."""
        while True:
            try:
                return self.admit(Kind.URGENT, URGENT)
            except AWAY as error:
                if time.time() - struck > TIMEOUT_S:
                    raise PeerFailed(peer="admission", reason=str(error)) from error
                time.sleep(POLL_S)

    def await_start(self, task_id: int, struck: float) -> float:
        """When the task began, seconds since the epoch by the database's clock, which is this machine's."""
        while True:
            task = self.patiently(lambda: self.row(TASK_SQL, task_id))
            if task and task[3] is not None:
                return float(task[3].timestamp())
            if time.time() - struck > TIMEOUT_S:
                reason = f"urgent task {task_id} had not started after {TIMEOUT_S:.0f} s: {task}"
                raise PeerFailed(peer="collect-ops", reason=reason)
            time.sleep(POLL_S)

    def patiently(self, look: Callable[[], tuple[Any, ...] | None]) -> tuple[Any, ...] | None:
        """What `look` finds; None while PostgreSQL is away."""
        try:
            return look()
        except psycopg.Error:
            return None


@contextmanager
def connection_to(settings: BenchSettings, port: int) -> Iterator[None]:
    """The source's connection leads to the server; afterwards there is none again."""
    extra = '{"allow_private_networks": true}'
    host = f"http://127.0.0.1:{port}"
    settings.airflow.put_connection(CONNECTION, {"conn_type": "http", "host": host, "extra": extra})
    for circuits in ("host", "endpoint"):
        settings.execute(f"delete from collect.{circuits} where connection = '{CONNECTION}'")
    try:
        yield
    finally:
        settings.airflow.delete_connection(CONNECTION)


@contextmanager
def bench(settings: BenchSettings) -> Iterator[Bench]:
    """All that the rounds need; what they leave waiting is cancelled."""
    stack = load(Layout(home=settings.stack.home))
    runs = RestRuns(settings.stack.airflow_url, settings.stack.airflow_user, settings.stack.airflow_password)
    unpause_needed(settings.airflow)
    with slow_source.serve() as port, connection_to(settings, port):
        # Without kept connections: what was cut off is opened anew, as the command line does.
        made = Bench(settings, stack, AdmissionService(backends_of(settings), lane_rules(), runs))
        try:
            yield made
        finally:
            made.await_health()
            cancel_all(backends_of(settings), [*made.waiting, *([made.long] if made.long else [])])


def run(settings: BenchSettings, count: int | None, console: Console) -> Result:
    """Strike, round after round.

    Args:
        settings: the running stack.
        count: rounds a blow; `DEFAULT_ROUNDS` when None.
        console: where progress is shown.
    """
    count = count or DEFAULT_ROUNDS
    before = circumstances()
    chosen = [name for name in os.environ.get("RECOVERY_BLOWS", "").split(",") if name] or list(BLOWS)
    samples: dict[str, list[Sample]] = {name: [] for name in chosen}
    with bench(settings) as made:
        made.once(lambda _: None)  # the first one after a start pays for what is read for the first time
        for name in chosen:
            for number in range(1, count + 1):
                sample = made.once(BLOWS[name])
                samples[name].append(sample)
                console.print(
                    f"  {NAMES[name]} {number}/{count}  urgent task admitted after {sample['admitted_s']:5.1f} s, "
                    f"STARTED after {sample['seconds']:5.1f} s"
                    f"{'' if sample['long_group_kept'] else ', the running group was struck'}",
                    highlight=False,
                )
    return Result(
        name="recovery", rows=rows(samples), samples=samples, circumstances=before, notes=notes(samples)
    )


def rows(samples: Mapping[str, list[Sample]]) -> list[Row]:
    """Two claims a blow, from its rounds."""
    found = []
    for name, taken in samples.items():
        seconds = [float(sample["seconds"]) for sample in taken]
        target = None if name in WITHOUT_TARGET else Target(of="ours", sign="<=", value=TARGET_S)
        for word, value, wanted in (("p50", statistics.median(seconds), None), ("max", max(seconds), target)):
            claim = f"{NAMES[name]}: an urgent task has STARTED after, {word}"
            found.append(
                Row(claim=claim, ours=value, target=wanted, unit="s", measured="", rounds=len(taken))
            )
    return found


def notes(samples: Mapping[str, list[Sample]]) -> tuple[str, ...]:
    """What the seconds run from, and what became of the group that ran."""
    kept = {name: sum(bool(sample["long_group_kept"]) for sample in taken) for name, taken in samples.items()}
    told = ", ".join(f"{name} {kept[name]} of {len(taken)}" for name, taken in samples.items())
    seconds = (
        "Seconds from the blow to the first act of the urgent task's run (collect.task.started_at); the task was "
        "admitted as soon as admission answered. A group of two minutes ran, fifty tasks waited."
    )
    return (
        seconds,
        f"The running group went on in its first attempt, unharmed: {told}.",
    )
