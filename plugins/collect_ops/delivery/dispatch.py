"""Shard groups that their node did not start, and those that have fallen silent: taken back, and placed elsewhere.

It decides by the database's clock alone. A group says every few seconds that it lives; one that is silent is doubted
first and lost only when it has been doubted for a while, so that a machine or a database that slept does not look dead.
Safe to run twice and at the same time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from collect_ops.broker.publisher import Publisher
from collect_ops.execution.policy import Loss
from collect_ops.execution.settle import settle
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.placing import NodeNeeds, Placing
from collect_ops.lanes.publication import publication_of, publish
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import Runs, RunState, RunsUnavailable
from collect_ops.nodes.placement import Obstacle
from collect_ops.nodes.rules import DispatchRule, PlacementRules
from collect_ops.storage import Connection, Jsonb, connect, query
from collect_ops.tasks.lifecycle import TaskStatus

log = logging.getLogger(__name__)

#: The sweep among the wake-up marks, beside the lanes.
WAKE_NAME = "sweep"
#: Of the time after which a silent group is lost: when it is doubted.
DOUBT_AFTER = 0.66
#: Seconds for which a group is doubted before it is lost: two times that it would have said that it lives.
DOUBTED_S = 9.0
#: More doublings than any time needs to reach its longest.
MOST_DOUBLINGS = 30
#: Seconds after its start for which PostgreSQL lets nobody be judged.
SETTLED_S = 20.0


class Verdict(StrEnum):
    """What a quiet group is taken for."""

    WAITS = "waits"
    DOUBTED = "doubted"
    LOST = "lost"
    NOT_STARTED = "not started"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietGroup:
    """An open shard group that has not said for a while that it lives.

    Args:
        started: Its process has begun.
        placed: It was sent to a node's queue.
        quiet_s: Since it last said that it lives, or since it was opened.
        doubted_s: Since it is doubted; None when it is not.
        node_gone: Its node is LOST or LEFT.
    """

    started: bool
    placed: bool
    quiet_s: float
    doubted_s: float | None
    node_gone: bool


def verdict(group: QuietGroup, rule: DispatchRule, *, sent: bool | None) -> Verdict:
    """What a quiet group is taken for. Pure.

    Args:
        group: The group.
        rule: After how long it is what.
        sent: Whether Airflow has handed it to the executor; None while nobody has asked.
    """
    if group.started:
        return _verdict_on_silence(group, rule)
    if not group.placed or sent is False:
        return Verdict.WAITS
    if group.node_gone:
        return Verdict.NOT_STARTED
    if group.doubted_s is None:
        return Verdict.DOUBTED if group.quiet_s >= rule.start_within_s / 3 else Verdict.WAITS
    return Verdict.NOT_STARTED if group.doubted_s >= rule.start_within_s * 2 / 3 else Verdict.WAITS


def _verdict_on_silence(group: QuietGroup, rule: DispatchRule) -> Verdict:
    if group.quiet_s < DOUBT_AFTER * rule.lost_after_s:
        return Verdict.WAITS
    if group.doubted_s is None:
        return Verdict.DOUBTED
    ripe = group.quiet_s >= rule.lost_after_s and group.doubted_s >= min(DOUBTED_S, rule.lost_after_s / 3)
    return Verdict.LOST if ripe else Verdict.WAITS


@dataclass(slots=True, kw_only=True)
class Dispatched:
    """What a pass did.

    Args:
        doubted: Groups that are silent for the first time.
        lost: Runs whose tasks were taken from them, since a group of theirs is lost.
        not_started: Runs whose tasks were taken back, since a node did not start a group.
        failed: Tasks that no node takes: they are DISPATCH_FAILED.
        requeued: Tasks that are tried again.
        released: Tasks that a node can take now.
        lanes: Lanes that got work.
    """

    doubted: int = 0
    lost: int = 0
    not_started: int = 0
    failed: int = 0
    requeued: int = 0
    released: int = 0
    lanes: set[str] = field(default_factory=set)

    def as_counts(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "lanes": sorted(self.lanes)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Shard groups for which a pass is needed now, as `run/group`.

    Args:
        lost: Silent, or not started by their node, for so long that they are taken back.
        unstarted: Have not started yet, of which only Airflow knows whether they were handed out.
    """

    lost: frozenset[str] = frozenset()
    unstarted: frozenset[str] = frozenset()


def look(connection: Connection, backends: Backends, rules: PlacementRules) -> Attention:
    """Doubt the groups that have fallen silent; returns those for which a pass is needed now.

    What the watcher does every few seconds: two short statements, and none to Airflow.
    """
    quiet = _quiet(connection, rules, backends)
    by_verdict: dict[Verdict, list[dict[str, Any]]] = {}
    for row in quiet:
        by_verdict.setdefault(verdict(_of(row), rules.dispatch, sent=None), []).append(row)
    doubted = by_verdict.get(Verdict.DOUBTED, [])
    _doubt(connection, [row for row in doubted if row["started"]])
    lost = [*by_verdict.get(Verdict.LOST, []), *by_verdict.get(Verdict.NOT_STARTED, [])]
    return Attention(
        lost=frozenset(map(_group_name, lost)),
        unstarted=frozenset(_group_name(row) for row in doubted if not row["started"]),
    )


def _group_name(row: Mapping[str, Any]) -> str:
    return f"{row['run_id']}/{row['group_no']}"


def run_once(
    backends: Backends, rules: LaneRules, placement: PlacementRules, runs: Runs, *, actor: str
) -> Dispatched:
    """Take back what is lost or was not started, and let go what can be placed now.

    Args:
        backends: Where the services are.
        rules: Lane rules.
        placement: After how long a group is lost.
        runs: Airflow's runs.
        actor: Who does it, for the task log.

    Raises:
        ExceptionGroup: Some runs could not be taken back; everything else was done.
    """
    done = Dispatched()
    failures: list[Exception] = []
    with connect(backends.postgres_dsn, application_name="collect-ops dispatch") as connection:
        troubled = _judge(connection, backends, placement, runs, done)
        for run_id, groups in troubled.items():
            try:
                _take_back(connection, run_id, groups, backends, rules, placement, runs, done, actor=actor)
            except Exception as error:
                log.exception("run %s could not be taken back", run_id)
                failures.append(error)
        _let_go(connection, backends, rules, placement, done, actor)
    if failures:
        raise ExceptionGroup(f"{len(failures)} runs could not be taken back", failures)
    return done


@dataclass(frozen=True, slots=True)
class _Troubled:
    row: dict[str, Any]
    found: Verdict

    @property
    def cause(self) -> str:
        row = self.row
        if self.found is Verdict.LOST:
            return f"shard group {row['label']!r} on node {row['node']} has been silent for {row['quiet_s']:.0f} s"
        if row["node_gone"]:
            return f"node {row['node']} is gone and has not started shard group {row['label']!r}"
        return f"node {row['node']} did not start shard group {row['label']!r} in {row['quiet_s']:.0f} s"


def _quiet(connection: Connection, rules: PlacementRules, backends: Backends) -> list[dict[str, Any]]:
    rule = rules.dispatch
    values = {
        "quiet_s": min(DOUBT_AFTER * rule.lost_after_s, rule.start_within_s / 3),
        "settled_s": SETTLED_S,
    }
    rows = connection.execute(query("delivery/select_quiet_groups"), values).fetchall()
    # Without queues of nodes, one that has not started waits for Airflow, which sees to that by itself.
    return [row for row in rows if row["started"] or backends.node_queues]


def _of(row: Mapping[str, Any]) -> QuietGroup:
    return QuietGroup(
        started=row["started"],
        placed=row["placed"],
        quiet_s=row["quiet_s"],
        doubted_s=row["doubted_s"],
        node_gone=row["node_gone"],
    )


def _judge(
    connection: Connection, backends: Backends, rules: PlacementRules, runs: Runs, done: Dispatched
) -> dict[str, list[_Troubled]]:
    """Quiet groups that are lost or were not started, by run; those that are silent for the first time are doubted."""
    quiet = _quiet(connection, rules, backends)
    sent = _sent(quiet, runs)
    doubted: list[dict[str, Any]] = []
    troubled: dict[str, list[_Troubled]] = {}
    for row in quiet:
        group = _of(row)
        found = verdict(group, rules.dispatch, sent=sent.get((row["run_id"], row["group_no"])))
        if found is Verdict.DOUBTED:
            doubted.append(row)
        elif found is not Verdict.WAITS:
            troubled.setdefault(row["run_id"], []).append(_Troubled(row, found))
    done.doubted = _doubt(connection, doubted)
    return troubled


def _sent(quiet: Sequence[Mapping[str, Any]], runs: Runs) -> dict[tuple[str, int], bool]:
    """Whether Airflow has handed out those that have not started; one call a run. Not known counts as not sent."""
    found: dict[tuple[str, int], bool] = {}
    waiting = [row for row in quiet if not row["started"] and row["dag_id"] is not None]
    for dag_id, run_id in sorted({(row["dag_id"], row["run_id"]) for row in waiting}):
        try:
            states = runs.group_states(dag_id, run_id)
        except RunsUnavailable as error:
            log.error("groups of run %s not judged, Airflow did not answer: %s", run_id, error)
            states = {}
        for row in waiting:
            if row["run_id"] == run_id:
                found[run_id, row["group_no"]] = row["map_index"] in states
    return found


def _doubt(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
    if not rows:
        return 0
    values = {
        "run_ids": [row["run_id"] for row in rows],
        "group_nos": [row["group_no"] for row in rows],
    }
    return connection.execute(query("delivery/doubt_groups"), values).rowcount


def _take_back(
    connection: Connection,
    run_id: str,
    groups: Sequence[_Troubled],
    backends: Backends,
    rules: LaneRules,
    placement: PlacementRules,
    runs: Runs,
    done: Dispatched,
    *,
    actor: str,
) -> None:
    """Take a run's tasks from it. All of them: the run is ended, since what it has queued holds slots of the lane."""
    nodes = tuple(sorted({group.row["node"] for group in groups if group.row["node"]}))
    cause = "; ".join(group.cause for group in groups)
    # What has started and fell silent counts, whatever else the run did not start.
    lost = any(group.found is Verdict.LOST for group in groups)
    tasks = connection.execute(query("delivery/select_run_attempts"), {"run_ids": [run_id]}).fetchall()
    placing = Placing.of(connection, backends, placement)
    events: list[dict[str, Any]] = []
    failures: list[Exception] = []
    for task in tasks:
        loss = Loss(cause=cause, nodes=nodes, started=lost)
        if not lost:
            loss = _not_started(task, cause, nodes, placing, placement)
        try:
            settled = settle(
                task["id"], task["attempt"], backends, rules,
                actor=actor, run_over=True, run_id=run_id, loss=loss,
            )  # fmt: skip
        except Exception as error:
            # The first one that is settled closes the run's groups, and no later pass looks at it again: the others
            # must not wait for this one. The repair finds it, once its run has ended.
            log.exception("task %s could not be taken back from run %s", task["id"], run_id)
            failures.append(error)
            continue
        if settled is None:
            continue
        done.lanes |= settled.lanes
        if settled.status is TaskStatus.DISPATCH_FAILED:
            done.failed += 1
            events.append(_event(task["id"], settled.reason or ""))
    done.lost += lost
    done.not_started += not lost
    if not lost:
        _mark(connection, nodes, placement)
    if events:
        connection.execute(query("delivery/insert_events"), {"events": Jsonb(events)})
    # Nothing of it is open when its tasks were settled before: others have stolen what this group did not begin.
    connection.execute(query("execution/close_groups"), {"run_id": run_id})
    log.warning("run %s taken back: %s", run_id, cause)
    dag_ids = {row["dag_id"] for row in (*tasks, *(group.row for group in groups))}
    _end(run_id, [dag_id for dag_id in dag_ids if dag_id], runs)
    if failures:
        raise ExceptionGroup(f"{len(failures)} tasks of run {run_id} could not be taken back", failures)


def _end(run_id: str, dag_ids: Iterable[str], runs: Runs) -> None:
    """End a run, if it has not ended. Airflow ends it by itself, only later: its groups are closed and do nothing."""
    for dag_id in sorted(dag_ids):
        try:
            if runs.state(dag_id, run_id) is RunState.ACTIVE:
                runs.end(dag_id, run_id)
        except RunsUnavailable as error:
            log.error("run %s not ended: %s", run_id, error)


def _not_started(
    task: Mapping[str, Any],
    cause: str,
    nodes: Sequence[str],
    placing: Placing | None,
    rules: PlacementRules,
) -> Loss:
    """Whether another node can take what these did not start."""
    rule = rules.dispatch
    retry_s = min(rule.max_retry_s, rule.retry_s * 2.0 ** min(task["dispatch_failures"], MOST_DOUBLINGS))
    needs = NodeNeeds.of({**task, "refused_nodes": [*task["refused_nodes"], *nodes]})
    found = None if placing is None else placing.elsewhere(needs, task["priority"])
    nowhere = None
    if found is not None and not found.nodes and found.obstacle is not Obstacle.BUSY:
        nowhere = found.reason
    return Loss(cause=cause, nodes=tuple(nodes), started=False, nowhere=nowhere, retry_s=retry_s)


def _mark(connection: Connection, nodes: Iterable[str], rules: PlacementRules) -> None:
    values = {
        "node_ids": list(nodes),
        "failures": rules.failures.failures,
        "hold_s": rules.failures.hold_s,
        "factor": rules.failures.factor,
        "max_hold_s": rules.failures.max_hold_s,
    }
    for row in connection.execute(query("delivery/note_dispatch_failures"), values).fetchall():
        log.warning(
            "node %s is held back until %s: it does not take what it is sent", row["id"], row["held_until"]
        )


def _event(task_id: int, reason: str) -> dict[str, Any]:
    return {
        "kind": "dispatch_failed",
        "severity": "error",
        "subject": f"task {task_id}",
        "message": reason,
        "details": {"task_id": task_id},
    }


def _let_go(
    connection: Connection,
    backends: Backends,
    rules: LaneRules,
    placement: PlacementRules,
    done: Dispatched,
    actor: str,
) -> None:
    """Publish what is due again, and what a node can take now."""
    again = connection.execute(query("delivery/requeue_undispatched"), {"actor": actor}).fetchall()
    placeable = _placeable(connection, backends, placement)
    released = connection.execute(
        query("delivery/release_placeless"), {"task_ids": placeable, "actor": actor}
    ).fetchall()
    done.requeued, done.released = len(again), len(released)
    rows = [*again, *released]
    done.lanes |= {row["lane"] for row in rows}
    if rows:
        with Publisher(backends.amqp_url) as publisher:
            publish(connection, publisher, rules, [publication_of(row) for row in rows])


def _placeable(connection: Connection, backends: Backends, rules: PlacementRules) -> list[int]:
    """Tasks that wait for a node and could be placed now, as many as there is room for."""
    waiting = connection.execute(query("delivery/select_placeless")).fetchall()
    if not waiting:
        return []
    placing = Placing.of(connection, backends, rules)
    if placing is None:
        return [row["id"] for row in waiting]
    return [row["id"] for row in waiting if placing.place(NodeNeeds.of(row), row["priority"], 1).nodes]
