"""Benchmark `due`: how long what a crash has left lies about once a pass of the sweep is due for it.

Each round brings about, on the running stack, what a crash leaves: a task that the broker never confirmed, a retry
whose message is lost, a waiting task whose message is lost, a claimed task whose run was never started, a task whose
run ended without settling it, a shard group that has fallen silent, a node whose liveness key is gone. Counted is the
time from the moment at which its pass is due until it is done. Beside it stands what the schedules of release 0.1.0
come to, by arithmetic: half an interval in the middle, a whole one at most.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from urllib.parse import quote

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
from collect_ops.coordination.liveness import Liveness
from collect_ops.delivery import dispatch, outbox, repair
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import lane_rules
from collect_ops.lanes.runs import collect_dag_id
from collect_ops.nodes.rules import placement_rules
from collect_ops.orchestrator.client import AirflowClient
from demo.run import unpause_needed

DEFAULT_ROUNDS: Final = 5
SOURCE: Final = "example_offset"
LANE: Final = "bulk"
PRIORITY: Final = 1
#: What noticed things in release 0.1.0: its sweep; its registry of nodes, at each heartbeat; its look at shard groups.
SWEEP_EVERY_S, HEARTBEAT_EVERY_S, LOOK_EVERY_S = 60.0, 30.0, 4.0
#: The rounds of a kind are spread over half a minute, so that they meet schedules and looks at other moments.
SPREAD_S: Final = 30.0
#: The ratio to a peer that does the same, from which on both count as equal.
SAME: Final = 0.8
TIMEOUT_S: Final = 200.0
POLL_S: Final = 0.1
#: Nobody listens here.
CLOSED_PORT: Final = 9

#: What wakes the sweep, and its DAG.
DUE_ASSET: Final = "collect.due"
SWEEP: Final = "collect_sweep"
RUN: Final = "a run of the sweep, from what wakes it to its end"

CLAIMED_SQL: Final = """
    update collect.task set status = 'CLAIMED', attempt = attempt + 1, dag_id = %(dag_id)s, moved_by = 'benchmark',
        run_id = coalesce(%(run_id)s, 'benchmark-' || id || '-attempt-' || attempt + 1),
        progress_at = now() - make_interval(secs => %(quiet_s)s)
    where id = %(id)s
"""
DISPATCHED_SQL: Final = """
    update collect.task set status = 'DISPATCHED', moved_by = 'benchmark', started_at = now(), shards_total = 1
    where id = %(id)s
"""
SHARD_SQL: Final = """
    insert into collect.shard (task_id, shard_no, attempt, run_id, group_no)
    select id, 0, attempt, run_id, 0 from collect.task where id = %(id)s
"""
GROUP_SQL: Final = """
    insert into collect.shard_group (
        run_id, group_no, lane, label, status, concurrency, node, opened_at, started_at, alive_at, closed_at)
    select
        run_id, 0, lane, source, %(group)s, 1, 'benchmark', now() - interval '1 min', now() - interval '1 min',
        now() - make_interval(secs => %(silent_s)s), case when %(group)s = 'CLOSED' then now() end
    from collect.task where id = %(id)s
"""
RUNNING_SQL: Final = """
    update collect.task set status = 'RUNNING', moved_by = 'benchmark',
        progress_at = now() - make_interval(secs => %(quiet_s)s)
    where id = %(id)s
"""
#: As the heartbeats of a machine would make it. It is full, so that nothing is placed on it.
NODE_SQL: Final = """
    insert into collect.node (
        id, machine, boot_id, started_at, seq, name, address, version, slots, cpu_percent, memory_percent,
        memory_bytes, disk_percent, disk_free_bytes, load_1, workers_bytes, groups)
    values (%s, 'benchmark', 'benchmark', now(), 1, 'benchmark', '192.0.2.1', '0', 1, 100, 100, 1, 100, 1, 1, 1, 0)
"""
LOST_SQL: Final = "select status = 'LOST' from collect.node where id = %s"
GROUPS_SQL: Final = "delete from collect.shard_group where node = 'benchmark'"
FORGOTTEN_SQL: Final = (
    "delete from collect.node_log where node_id = any(%s)",
    "delete from collect.node where id = any(%s)",
)
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
    airflow: AirflowClient
    made: list[int] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)

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

    def claim(self, task_id: int, *, quiet_s: float, run_id: str | None = None) -> None:
        """Claim a task, as if `quiet_s` seconds ago; for a run that does not exist when none is named."""
        values = {"id": task_id, "run_id": run_id, "dag_id": collect_dag_id(LANE), "quiet_s": quiet_s}
        self.execute(CLAIMED_SQL, values)

    def run_task(
        self, task_id: int, *, group: str, quiet_s: float, silent_s: float, run_id: str | None = None
    ) -> None:
        """Claim a task and have it RUNNING, with one shard group whose one shard is not done.

        Args:
            task_id: the task.
            group: status of its shard group.
            quiet_s: seconds since its last progress.
            silent_s: seconds since its group's last sign of life.
            run_id: its run; one that does not exist when none is named.
        """
        values = {"id": task_id, "group": group, "quiet_s": quiet_s, "silent_s": silent_s}
        with self.database.transaction():  # no look may see half of it
            self.claim(task_id, quiet_s=quiet_s, run_id=run_id)
            for statement in (DISPATCHED_SQL, SHARD_SQL, GROUP_SQL, RUNNING_SQL):
                self.execute(statement, values)

    def ended_run(self) -> str:
        """A run of the lane that has ended without any task: nothing was in its conf."""
        run_id = self.settings.airflow.trigger(collect_dag_id(LANE), {})
        self.runs.append(run_id)
        self.settings.airflow.wait_for_run(collect_dag_id(LANE), run_id, TIMEOUT_S)
        return run_id

    def restore(self) -> None:
        """Leave nothing of a round: its tasks are cancelled, its shard groups, nodes and runs forgotten."""
        cancel_all(self.backends, self.made)
        self.execute(GROUPS_SQL, ())
        for statement in FORGOTTEN_SQL:
            self.execute(statement, (self.nodes,))
        for run_id in self.runs:
            path = f"/dags/{collect_dag_id(LANE)}/dagRuns/{quote(run_id, safe='')}"
            self.airflow.demand("DELETE", path, action="delete a run of the benchmark")
        for each in (self.made, self.nodes, self.runs):
            each.clear()


#: Whether it is done; `due_in_s` seconds after it was brought about it is due.
Done = Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Something that a crash leaves.

    Attributes:
        bring_about: leaves it; returns in how many seconds it is due, and how to see that it is done.
        middle_s: seconds until release 0.1.0 noticed it, by arithmetic: in the middle.
        most_s: the same, at most.
        before: what noticed it in 0.1.0.
        same_look: whether 0.1.0 looked as often as today. Then a run of the sweep is added to these, since it decides,
            and the target leaves room for what rounds of the same thing differ by.
    """

    bring_about: Callable[[Bench], tuple[float, Done]]
    middle_s: float = SWEEP_EVERY_S / 2
    most_s: float = SWEEP_EVERY_S
    before: str = "a sweep every minute"
    same_look: bool = False


def unconfirmed(bench: Bench) -> tuple[float, Done]:
    """A task that was stored while the broker was away."""
    without_broker = replace(bench.backends, amqp_url=f"amqp://nobody:x@127.0.0.1:{CLOSED_PORT}/%2F")
    task_id = bench.admit(without_broker)
    return outbox.OVERDUE_S, lambda: bench.is_true(CONFIRMED_SQL, task_id)


def lost_retry(bench: Bench) -> tuple[float, Done]:
    """A retry whose message is lost, a minute past due."""
    task_id = bench.admit()
    bench.claim(task_id, quiet_s=0)
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
    bench.claim(task_id, quiet_s=repair.QUIET_S)
    return 0.0, lambda: bench.is_true(STATUS_SQL, "CLAIMED", task_id)


def unsettled(bench: Bench) -> tuple[float, Done]:
    """A task whose shard group ended with a shard not done, and whose run ended without settling it."""
    task_id, run_id = bench.admit(), bench.ended_run()
    bench.run_task(task_id, group="CLOSED", quiet_s=repair.QUIET_S, silent_s=repair.QUIET_S, run_id=run_id)
    return 0.0, lambda: bench.is_true(STATUS_SQL, "RUNNING", task_id)


def silent_group(bench: Bench) -> tuple[float, Done]:
    """A shard group that says no more that it lives, from the moment at which it can be doubted."""
    task_id, lost_after_s = bench.admit(), placement_rules().dispatch.lost_after_s
    silent_s = dispatch.DOUBT_AFTER * lost_after_s
    # It has just landed a page, so that nothing but its silence tells.
    bench.run_task(task_id, group="OPEN", quiet_s=0, silent_s=silent_s)
    return lost_after_s - silent_s, lambda: bench.is_true(STATUS_SQL, "RUNNING", task_id)


def lost_node(bench: Bench) -> tuple[float, Done]:
    """A node that died: its liveness key is gone."""
    alive_s = placement_rules().heartbeat.alive_s
    liveness = Liveness(bench.backends.redis_url, alive_s)
    deadline = time.monotonic() + 2 * alive_s
    while liveness.keys_lost():  # a Redis that has just started: no missing key tells anything
        if time.monotonic() > deadline:
            raise PeerFailed(peer="Redis", reason="it loses keys all the time")
        time.sleep(1)
    node_id = f"benchmark-{time.time_ns()}"
    bench.nodes.append(node_id)
    bench.execute(NODE_SQL, (node_id,))
    return 0.0, lambda: bench.is_true(LOST_SQL, node_id)


def silence() -> Kind:
    """A silent group; 0.1.0 had today's look at it.

    One look doubts the group, up to an interval late. The first look after it has been doubted for long enough takes it
    for lost.
    """
    lost_after_s = placement_rules().dispatch.lost_after_s
    doubted_s = math.ceil(dispatch.DOUBTED_S / LOOK_EVERY_S) * LOOK_EVERY_S
    least_s = max(0.0, doubted_s - (1 - dispatch.DOUBT_AFTER) * lost_after_s)
    return Kind(
        bring_about=silent_group,
        middle_s=least_s + LOOK_EVERY_S / 2,
        most_s=least_s + LOOK_EVERY_S,
        before="the same look every 4 s; with a run of the sweep as measured here",
        same_look=True,
    )


@cache
def kinds() -> Mapping[str, Kind]:
    """What is brought about, by what tables call it."""
    return {
        "a task that the broker never confirmed": Kind(bring_about=unconfirmed),
        "a retry whose message is lost": Kind(bring_about=lost_retry),
        "a waiting task whose message is lost": Kind(bring_about=lost_message),
        "a claimed task whose run was never started": Kind(bring_about=lost_run),
        "a task whose run ended without settling it": Kind(bring_about=unsettled),
        "a shard group that has fallen silent": silence(),
        "a node whose liveness key is gone": Kind(
            bring_about=lost_node,
            middle_s=HEARTBEAT_EVERY_S / 2,
            most_s=HEARTBEAT_EVERY_S,
            before="the registry with each heartbeat of the one node beside it, every 30 s",
        ),
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
    samples: dict[str, list[Sample]] = {kind: [] for kind in kinds()}
    with serve_one_row() as server, connection_to(settings.airflow, server), paused_lane(settings) as bench:
        sweeps: list[Sample] = []
        for number in range(1, count + 1):
            time.sleep(3)
            sweeps.append({"seconds": sweep_run_s(bench.airflow)})
            took_s = sweeps[-1]["seconds"]
            console.print(f"  {RUN} {number}/{count}  ended after {took_s:5.1f} s", highlight=False)
        for kind, of_kind in kinds().items():
            for number in range(1, count + 1):
                # At another moment between two runs of the sweep each time.
                time.sleep(3 + number * SPREAD_S / count)
                seconds = once(bench, of_kind.bring_about)
                samples[kind].append({"seconds": seconds})
                console.print(f"  {kind} {number}/{count}  done after {seconds:5.1f} s", highlight=False)
    return Result(
        name="due", rows=rows(samples, sweeps), samples={**samples, RUN: sweeps}, circumstances=before
    )


def sweep_run_s(airflow: AirflowClient) -> float:
    """Seconds that a run of the sweep takes, from the event that wakes it to its end."""
    found = airflow.demand("GET", f"/assets?name_pattern={DUE_ASSET}", action="find an asset")
    (asset,) = [each for each in found.json()["assets"] if each["name"] == DUE_ASSET]
    woken = datetime.now(UTC)
    airflow.demand("POST", "/assets/events", {"asset_id": asset["id"], "extra": {}}, action="wake the sweep")
    path = f"/dags/{SWEEP}/dagRuns?order_by=run_after&run_after_gte={quote(woken.isoformat(), safe='')}"
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        for run in airflow.demand("GET", path, action="look for a sweep").json()["dag_runs"]:
            if run["state"] == "success":
                return (datetime.fromisoformat(run["end_date"]) - woken).total_seconds()
        time.sleep(POLL_S)
    raise PeerFailed(peer="the sweep", reason=f"did not run within {TIMEOUT_S:.0f} s of being woken")


def once(bench: Bench, bring_about: Callable[[Bench], tuple[float, Done]]) -> float:
    """One round; returns the seconds from due to done."""
    due_in_s, is_done = bring_about(bench)
    due_at = time.monotonic() + due_in_s
    while not is_done():
        if time.monotonic() > due_at + TIMEOUT_S:
            raise PeerFailed(peer="the sweep", reason=f"not done {TIMEOUT_S:.0f} s after it was due")
        time.sleep(POLL_S)
    done_at = time.monotonic()
    bench.restore()
    return max(0.0, done_at - due_at)


@contextmanager
def paused_lane(settings: BenchSettings) -> Iterator[Bench]:
    """The bulk lane claims nothing, so that nothing but the sweep touches what is brought about."""
    backends, path, stack = backends_of(settings), f"/dags/lane_{LANE}", settings.stack
    airflow = AirflowClient(stack.airflow_url, stack.airflow_user, stack.airflow_password)
    airflow.demand("PATCH", path, {"is_paused": True}, action="pause the lane")
    try:
        with psycopg.connect(settings.dsn, autocommit=True) as database:
            bench = Bench(settings, backends, database, airflow)
            try:
                yield bench
            finally:
                bench.restore()
    finally:
        airflow.demand("PATCH", path, {"is_paused": False}, action="let the lane go on")


def rows(samples: Mapping[str, Sequence[Sample]], sweeps: Sequence[Sample]) -> list[Row]:
    """Two claims a kind, each beside what the schedules of 0.1.0 come to; and what a run of the sweep takes.

    Args:
        samples: seconds from due to done, by kind.
        sweeps: seconds that runs of the sweep took.
    """
    runs_s = [float(sample["seconds"]) for sample in sweeps]
    found = []
    for name, taken in samples.items():
        kind, seconds = kinds()[name], [float(sample["seconds"]) for sample in taken]
        for word, of_rounds, schedule_s in (
            ("p50", statistics.median, kind.middle_s),
            ("max", max, kind.most_s),
        ):
            value = of_rounds(seconds)
            peer = schedule_s + (of_rounds(runs_s) if kind.same_look else 0.0)
            found.append(
                Row(
                    claim=f"{name}: from due to done, {word}",
                    ours=value,
                    peer=peer,
                    ratio=peer / max(value, POLL_S),
                    target=Target(of="ratio", sign=">=", value=SAME if kind.same_look else 1.0),
                    unit="s",
                    measured=f"peer, by arithmetic: 0.1.0 had {kind.before}",
                    rounds=len(taken),
                )
            )
    found.append(
        Row(
            claim=f"{RUN}, p50",
            ours=statistics.median(runs_s),
            unit="s",
            measured="woken by REST",
            rounds=len(sweeps),
        )
    )
    return found
