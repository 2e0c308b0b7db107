"""Planning: the first act of a collect run. Counts, splits into shards, deals the shards to groups."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.http import HttpCollector
from collect_ops.execution.policy import PlannedGroup, ShardSpan, group, split
from collect_ops.journal.trace import Stage, TraceRow, describe_error, write_traces
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import CollectOpsError, Transient
from collect_ops.landing.table import ensure_aside, ensure_target
from collect_ops.lanes.capacity import used_slots
from collect_ops.lanes.rules import LaneRules
from collect_ops.sources.model import Disposition, Source
from collect_ops.sources.request import render
from collect_ops.storage import Connection, Jsonb, connect, query

log = logging.getLogger(__name__)

EndpointOf = Callable[[str], Endpoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAttempt:
    """A collect task and the attempt that a run is for."""

    task_id: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRef:
    """A planned shard group, as the mapped task gets it."""

    run_id: str
    group_no: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run has to do.

    Args:
        groups: The shard groups.
        skipped: Tasks that were not this run's any more, with the reason for people.
    """

    groups: tuple[GroupRef, ...]
    skipped: tuple[str, ...]


def plan(
    tasks: Sequence[TaskAttempt], run_id: str, backends: Backends, rules: LaneRules, endpoint_of: EndpointOf, *, actor: str
) -> Plan:
    """Plan a run's tasks.

    A task that cannot be planned (its host is down, its credentials are refused) keeps the reason: settling then
    decides on retry or dead letter, as for any other failure.

    Args:
        tasks: The tasks of the run.
        run_id: The Airflow run.
        backends: Where the services are.
        rules: Lane rules.
        endpoint_of: The endpoint of an Airflow connection, by its id.
        actor: Who plans, for the task log.
    """
    groups: list[GroupRef] = []
    skipped: list[str] = []
    with connect(backends.postgres_dsn, application_name="collect-ops plan") as connection:
        for each in tasks:
            row = connection.execute(
                query("execution/dispatch_task"), {"task_id": each.task_id, "attempt": each.attempt, "actor": actor}
            ).fetchone()
            if row is None:
                skipped.append(_why_not(connection, each))
                continue
            groups.extend(_plan_task(connection, row, run_id, rules, endpoint_of, start=len(groups)))
    for reason in skipped:
        log.info("skipped: %s", reason)
    return Plan(groups=tuple(groups), skipped=tuple(skipped))


def _why_not(connection: Connection, wanted: TaskAttempt) -> str:
    row = connection.execute(query("execution/select_task_state"), {"task_id": wanted.task_id}).fetchone()
    if row is None:
        return f"task {wanted.task_id} does not exist"
    return (
        f"task {wanted.task_id} attempt {wanted.attempt} is not CLAIMED any more: it is {row['status']}, "
        f"attempt {row['attempt']}, run {row['run_id']}"
    )


def _plan_task(
    connection: Connection,
    row: dict[str, Any],
    run_id: str,
    rules: LaneRules,
    endpoint_of: EndpointOf,
    *,
    start: int,
) -> list[GroupRef]:
    began = time.perf_counter()
    source = Source.model_validate(row["definition"])
    try:
        total = row["total_rows"]
        if row["shards_total"] is None:
            total = asyncio.run(_count(source, row, endpoint_of))
        _ensure_tables(connection, source, row["id"])
    except Exception as error:  # noqa: BLE001 - recorded with its stack; settling decides what becomes of the task
        _record_failure(connection, row, error, time.perf_counter() - began)
        return []
    planned = _write(connection, row, source, total, run_id, rules, start)
    trace = TraceRow(
        task_id=row["id"],
        stage=Stage.PLAN,
        attempt=row["attempt"],
        duration_s=time.perf_counter() - began,
        rows=total,
        response={"groups": [ref.label for ref in planned], "total": total},
    )
    write_traces(connection, [trace])
    return planned


async def _count(source: Source, row: dict[str, Any], endpoint_of: EndpointOf) -> int | None:
    request = render(source, row["params"], row["path"])
    async with HttpCollector(source, request, endpoint_of(source.connection)) as collector:
        return await collector.total()


def _ensure_tables(connection: Connection, source: Source, task_id: int) -> None:
    with connection.transaction():
        ensure_target(connection, source.target)
        if source.target.disposition is Disposition.REPLACE:
            ensure_aside(connection, source.target, task_id)


def _write(
    connection: Connection,
    row: dict[str, Any],
    source: Source,
    total: int | None,
    run_id: str,
    rules: LaneRules,
    start: int,
) -> list[GroupRef]:
    """Shards and groups, in one transaction under the task's lock."""
    task_id = row["id"]
    with connection.transaction():
        locked = connection.execute(
            query("execution/lock_planned"), {"task_id": task_id, "attempt": row["attempt"]}
        ).fetchone()
        if locked is None:
            log.warning("task %s attempt %s was taken away while it was planned", task_id, row["attempt"])
            return []
        shards_total = locked["shards_total"]
        if shards_total is None:
            shards = split(source, total)
            shards_total = len(shards)
            _insert_shards(connection, task_id, shards)
        unfinished = _unfinished(connection, task_id)
        width = _width(connection, row["lane"], rules)
        groups = group(source, unfinished, width) if unfinished else []
        for each in groups:
            _open_group(connection, row, run_id, start, each)
        connection.execute(
            query("execution/record_plan"),
            {"task_id": task_id, "shards_total": shards_total, "total_rows": total},
        )
    return [GroupRef(run_id=run_id, group_no=start + each.number, label=each.label) for each in groups]


def _insert_shards(connection: Connection, task_id: int, shards: Sequence[ShardSpan]) -> None:
    connection.execute(
        query("execution/insert_shards"),
        {
            "task_id": task_id,
            "shard_nos": [shard.number for shard in shards],
            "offsets": [shard.offset for shard in shards],
            "sizes": [shard.size for shard in shards],
        },
    )


def _unfinished(connection: Connection, task_id: int) -> list[ShardSpan]:
    rows = connection.execute(query("execution/select_unfinished"), {"task_id": task_id}).fetchall()
    return [ShardSpan(number=row["shard_no"], offset=row["span_offset"], size=row["span_size"]) for row in rows]


def _width(connection: Connection, lane: str, rules: LaneRules) -> int:
    """Groups this task may have: what the lane has free, its own reservation included, within the rule's width."""
    own = 1
    free = rules.lanes[lane].slots - used_slots(connection, lane) + own
    return max(1, min(rules.lanes[lane].groups_per_task, free))


def _open_group(connection: Connection, row: dict[str, Any], run_id: str, start: int, each: PlannedGroup) -> None:
    group_no = start + each.number
    connection.execute(
        query("execution/insert_group"),
        {
            "run_id": run_id,
            "group_no": group_no,
            "lane": row["lane"],
            "label": each.label,
            "concurrency": each.concurrency,
            "requests_per_s": each.requests_per_s,
        },
    )
    connection.execute(
        query("execution/assign_shards"),
        {
            "task_id": row["id"],
            "run_id": run_id,
            "shard_nos": [shard.number for shard in each.shards],
            "group_nos": [group_no] * len(each.shards),
        },
    )


def _record_failure(connection: Connection, row: dict[str, Any], error: Exception, duration_s: float) -> None:
    described = describe_error(error)
    described["transient"] = isinstance(error, Transient) or not isinstance(error, CollectOpsError)
    described["retry_after_s"] = getattr(error, "retry_after_s", None)
    log.error("task %s cannot be planned: %s", row["id"], error, exc_info=error)
    connection.execute(
        query("execution/fail_planning"),
        {"task_id": row["id"], "attempt": row["attempt"], "error": Jsonb(described)},
    )
    write_traces(
        connection,
        [TraceRow(task_id=row["id"], stage=Stage.PLAN, attempt=row["attempt"], duration_s=duration_s, error=described)],
    )
