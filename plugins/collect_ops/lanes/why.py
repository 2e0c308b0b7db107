"""Why a task is where it is: what it waits for, what stands before it, what somebody may do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import CollectOpsError, Permanent
from collect_ops.lanes.capacity import effective, used_slots
from collect_ops.lanes.placing import nodes_for
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import collect_dag_id, lane_dag_id
from collect_ops.sources.stored import FORMAT
from collect_ops.storage import Connection, query
from collect_ops.tasks.lifecycle import TaskStatus

#: Seconds without a sign of life from which it is worth saying.
QUIET_S = 30.0
_SWEEP = "collect_sweep"


class UnknownTask(CollectOpsError, Permanent):
    """There is no collect task of this number."""

    def __init__(self, task_id: int) -> None:
        self.task_id = task_id
        super().__init__(f"task {task_id} does not exist")


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """What a task waits for.

    Args:
        ahead: Tasks of its lane that are claimed before it; None when it does not wait in a queue.
        sentences: For people, the most important first.
    """

    task_id: int
    status: TaskStatus
    ahead: int | None
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lane:
    slots: int
    used: int
    on_nodes: int | None = None
    nodes_reason: str = ""
    pauses_known: bool = False


def needed_dags(lane: str) -> tuple[str, ...]:
    """The DAGs without which a task of a lane does not go on."""
    return (lane_dag_id(lane), collect_dag_id(lane), _SWEEP)


def lane_of(connection: Connection, task_id: int) -> str:
    """The lane of a task.

    Raises:
        UnknownTask: There is no such task.
    """
    row = connection.execute(query("lanes/select_why"), {"task_id": task_id}).fetchone()
    if row is None:
        raise UnknownTask(task_id)
    lane: str = row["lane"]
    return lane


def why(
    connection: Connection,
    rules: LaneRules,
    task_id: int,
    backends: Backends | None = None,
    paused: Mapping[str, bool] | None = None,
) -> Why:
    """Why a task is where it is.

    Args:
        connection: Any.
        rules: Lane rules.
        task_id: The task.
        backends: Tell whether shard groups are sent to nodes.
        paused: Which of `needed_dags` are paused; None where nobody has asked Airflow.

    Raises:
        UnknownTask: There is no such task.
    """
    row = connection.execute(query("lanes/select_why"), {"task_id": task_id}).fetchone()
    if row is None:
        raise UnknownTask(task_id)
    slots = effective(connection, row["lane"], rules).slots
    used = used_slots(connection, row["lane"])
    on_nodes, nodes_reason = nodes_for(connection, row, backends) if backends else (None, "")
    known = paused is not None
    lane = _Lane(slots=slots, used=used, on_nodes=on_nodes, nodes_reason=nodes_reason, pauses_known=known)
    status = TaskStatus(row["status"])
    sentences = (
        *_paused(row["lane"], status, paused or {}),
        *_format(row, status),
        *_TELLERS[status](row, lane),
        *_always(row),
    )
    ahead = row["ahead"] if status in (TaskStatus.QUEUED, TaskStatus.RETRYING) else None
    return Why(task_id=task_id, status=status, ahead=ahead, sentences=tuple(sentences))


def _paused(lane: str, status: TaskStatus, paused: Mapping[str, bool]) -> Iterator[str]:
    """The paused DAGs that keep a task where it is."""
    if status.final or status is TaskStatus.MERGED:
        return
    claims, collects = lane_dag_id(lane), collect_dag_id(lane)
    waits = status not in (TaskStatus.DISPATCHED, TaskStatus.RUNNING)
    if paused.get(claims) and waits and status is not TaskStatus.CLAIMED:
        yield f"DAG {claims} is paused: nothing of lane {lane} is claimed until somebody resumes it in Airflow"
    if paused.get(collects):
        stops = "does not begin" if waits else "goes no further than its open shard groups"
        yield f"DAG {collects} is paused: what is claimed in lane {lane} {stops} until somebody resumes it"
    if paused.get(_SWEEP):
        yield f"DAG {_SWEEP} is paused: what was lost or held is not found again"


def _newer(row: Mapping[str, Any]) -> bool:
    return bool(row["format"] > FORMAT)


def _format(row: Mapping[str, Any], status: TaskStatus) -> Iterator[str]:
    """What keeps a task that a newer release admitted; a held one says so itself."""
    if status.final or status in (TaskStatus.MERGED, TaskStatus.HELD) or not _newer(row):
        return
    yield (
        f"it waits for a process of a newer release: the declaration that it was admitted with has format "
        f"{row['format']}, this release reads up to {FORMAT}, and a process of it holds the task until then"
    )


def _queued(row: Mapping[str, Any], lane: _Lane) -> Iterator[str]:
    if row["confirmed_generation"] < row["generation"]:
        yield "RabbitMQ has not confirmed its message yet: the sweep publishes it again within a minute"
    if _host_stands_in_the_way(row):
        yield from _host(row)
    yield (
        f"it waits in lane {row['lane']} at priority {row['priority']} for {_seconds(row['queued_s'])}, "
        f"{_tasks(row['ahead'])} before it"
    )
    if lane.used >= lane.slots:
        yield f"all {lane.slots} slots of the lane are taken"
    elif lane.on_nodes == 0:
        yield f"no node takes more work now: {lane.nodes_reason}"
    elif not _newer(row):
        unless = "" if lane.pauses_known else f", unless the DAG {lane_dag_id(row['lane'])} is paused"
        yield f"{lane.slots - lane.used} of {lane.slots} slots are free: the lane's next claim takes it{unless}"


def _held(row: Mapping[str, Any], _lane: _Lane) -> Iterator[str]:
    yield f"it is held: {row['reason']}"
    if _newer(row):
        yield "it goes on within a minute of a process of the newer release being there"
    elif row["held_for"] == "node":
        yield "it goes on within a minute of a node being able to take it: collect-ops nodes"
    elif _host_stands_in_the_way(row):
        yield from _host(row)
    elif row["max_active_tasks"] is not None and row["active"] >= row["max_active_tasks"]:
        yield (
            f"source {row['source']} has {row['active']} tasks queued or under way, max_active_tasks is "
            f"{row['max_active_tasks']}: it goes on when one of them ends"
        )
    elif row["held_before"] is not None:
        before = row["held_before"]
        yield f"task {before} of source {row['source']} goes on before it: collect-ops why {before}"
    else:
        yield "what held it is gone: the sweep lets it go within a minute"


def _host_stands_in_the_way(row: Mapping[str, Any]) -> bool:
    held = row["host_held_s"] is not None or row["endpoint_held_s"] is not None
    return held or (row["host_paused_s"] or 0) > 0


def _host(row: Mapping[str, Any]) -> Iterator[str]:
    if (row["host_paused_s"] or 0) > 0:
        yield (
            f"the host of connection {row['connection']} is paused ({row['host_pause_reason']}); it goes on at "
            f"{row['host_paused_until']} UTC, in {_seconds(row['host_paused_s'])}"
        )
    if row["host_held_s"] is not None:
        what = f"the circuit of the host of connection {row['connection']} is open ({row['host_error']})"
        yield _tried(what, row["host_held_s"], probing=row["host_probing"])
    if row["endpoint_held_s"] is not None:
        what = (
            f"the circuit of source {row['source']} at connection {row['connection']} is open "
            f"({row['endpoint_error']}), for {_seconds(row['endpoint_failing_s'])} now"
        )
        yield _tried(what, row["endpoint_held_s"], probing=row["endpoint_probing"])


def _tried(what: str, left_s: float, *, probing: bool) -> str:
    if probing and left_s > 0:
        return f"{what}; it is being tried: when it answers, its tasks go on"
    when = f"in {_seconds(left_s)}" if left_s > 0 else "with the lane's next claim"
    return f"{what}; it is tried again {when}"


def _retrying(row: Mapping[str, Any], lane: _Lane) -> Iterator[str]:
    yield f"attempt {row['attempt']} failed: {row['error'] or row['reason']}"
    number = f"retry {row['retry_count']} of {row['max_retries']}"
    if row["due_in_s"] is not None and row["due_in_s"] > 0:
        yield f"{number} is due in {_seconds(row['due_in_s'])}"
    else:
        yield f"{number} is due"
        yield from _queued(row, lane)


def _merged(row: Mapping[str, Any], _lane: _Lane) -> Iterator[str]:
    survivor = row["merged_into"]
    yield f"it is merged into task {survivor}, which collects for it: collect-ops why {survivor}"


def _claimed(row: Mapping[str, Any], _lane: _Lane) -> Iterator[str]:
    yield (
        f"it was claimed {_seconds(row['claimed_s'])} ago for run {row['run_id']} of {row['dag_id']}, which has not "
        "begun with it"
    )
    yield from _placed(row)
    yield "a run that was never started is started again by the sweep"


def _under_way(row: Mapping[str, Any], _lane: _Lane) -> Iterator[str]:
    total = "an unknown number of" if row["total_rows"] is None else f"{row['total_rows']:,}"
    yield (
        f"it runs in {row['run_id']} of {row['dag_id']}: {row['rows_fetched']:,} of {total} rows, "
        f"{row['shards_done']} of {row['shards_total'] if row['shards_total'] is not None else '?'} shards"
    )
    yield from _placed(row)
    if row["quiet_s"] > QUIET_S:
        yield f"nothing has landed for {_seconds(row['quiet_s'])}: collect-ops trace {row['id']}"


def _undispatched(row: Mapping[str, Any], _lane: _Lane) -> Iterator[str]:
    yield f"no node took it: {row['reason']}"
    due_in_s = row["due_in_s"]
    when = f"in {_seconds(due_in_s)}" if due_in_s is not None and due_in_s > 0 else "with the next sweep"
    yield f"it is tried again on all nodes {when}"


def _placed(row: Mapping[str, Any]) -> Iterator[str]:
    """Where it was sent, and why there."""
    placed = row["placed"]
    if placed is None:
        if row["nodes"]:
            yield f"it runs on {', '.join(row['nodes'])}"
        return
    chosen = ", ".join(dict.fromkeys(placed["nodes"]))
    ranked = sorted(placed["scores"].items(), key=lambda each: (each[1], each[0]))
    scores = ", ".join(f"{node} {score:g}" for node, score in ranked)
    yield f"it was placed on {chosen}; scores, the lowest wins: {scores}"
    for node, why in placed["refusals"].items():
        yield f"not on {node}: it {why}"


def _dead(row: Mapping[str, Any], _lane: _Lane) -> Iterator[str]:
    yield f"it is dead: {row['reason']}"
    if row["dead_letter_id"] is not None:
        letter = row["dead_letter_id"]
        yield f"see collect-ops dead show {letter}; when it is mended, collect-ops dead redrive {letter}"


def _ended(row: Mapping[str, Any], _lane: _Lane) -> Iterator[str]:
    yield f"it has ended {row['status']}" + (f": {row['reason']}" if row["reason"] else "")
    if row["status"] == TaskStatus.CANCELLED:
        yield f"cancelled by {row['moved_by']}"


def _always(row: Mapping[str, Any]) -> Iterator[str]:
    if row["merged_task_ids"] and not TaskStatus(row["status"]).final:
        yield f"it collects for tasks {', '.join(map(str, row['merged_task_ids']))} as well"
    if row["withdrawn_at"] is not None and not TaskStatus(row["status"]).final:
        yield "its own caller has cancelled; it goes on for the others"
    if row["lost_count"]:
        yield f"{row['lost_count']} of its attempts were lost by no fault of its own"


_TELLERS: dict[TaskStatus, Callable[[Mapping[str, Any], _Lane], Iterator[str]]] = {
    TaskStatus.CREATED: _queued,
    TaskStatus.QUEUED: _queued,
    TaskStatus.HELD: _held,
    TaskStatus.RETRYING: _retrying,
    TaskStatus.MERGED: _merged,
    TaskStatus.CLAIMED: _claimed,
    TaskStatus.DISPATCHED: _under_way,
    TaskStatus.RUNNING: _under_way,
    TaskStatus.DISPATCH_FAILED: _undispatched,
    TaskStatus.DEAD: _dead,
    TaskStatus.COMPLETED: _ended,
    TaskStatus.PARTIAL: _ended,
    TaskStatus.CANCELLED: _ended,
}


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _tasks(count: int) -> str:
    return "no task" if count == 0 else f"{count:,} task{'s' if count > 1 else ''}"
