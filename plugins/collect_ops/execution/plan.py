"""Planning: the first act of a collect run. Counts, splits into shards, deals the shards to groups."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.http import HttpCollector
from collect_ops.execution.cutting import Cut, CutTask, cut, pace_unit
from collect_ops.execution.endpoint_gate import EndpointGate
from collect_ops.execution.host_gate import HostGate
from collect_ops.execution.policy import PlannedGroup, ShardSpan, group, shared_group
from collect_ops.execution.rules import sharding_rules
from collect_ops.execution.sizing import History
from collect_ops.journal.trace import Stage, TraceRow, describe_failure, write_traces
from collect_ops.kernel.backends import Backends
from collect_ops.landing.table import ensure_aside, ensure_target
from collect_ops.lanes.capacity import effective, used_slots
from collect_ops.lanes.held import let_go
from collect_ops.lanes.hosts import read_host
from collect_ops.lanes.rules import LaneRules
from collect_ops.sources.model import Disposition, Source
from collect_ops.sources.request import render_admitted
from collect_ops.sources.stored import load_definition
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
    tasks: Sequence[TaskAttempt],
    run_id: str,
    backends: Backends,
    rules: LaneRules,
    endpoint_of: EndpointOf,
    *,
    actor: str,
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
    with (
        connect(backends.postgres_dsn, application_name="collect-ops plan") as connection,
        asyncio.Runner() as loop,
        _Planning(
            connection, loop, run_id, backends, rules, endpoint_of, shared=len(tasks), actor=actor
        ) as planning,
    ):
        for each in tasks:
            row = connection.execute(
                query("execution/dispatch_task"),
                {"task_id": each.task_id, "attempt": each.attempt, "run_id": run_id, "actor": actor},
            ).fetchone()
            if row is None:
                planning.skipped.append(_why_not(connection, each))
            else:
                planning.plan_task(row)
    for reason in planning.skipped:
        log.info("skipped: %s", reason)
    return Plan(groups=tuple(planning.groups.values()), skipped=tuple(planning.skipped))


def _why_not(connection: Connection, wanted: TaskAttempt) -> str:
    row = connection.execute(query("execution/select_task_state"), {"task_id": wanted.task_id}).fetchone()
    if row is None:
        return f"task {wanted.task_id} does not exist"
    return (
        f"task {wanted.task_id} attempt {wanted.attempt} is not CLAIMED any more: it is {row['status']}, "
        f"attempt {row['attempt']}, run {row['run_id']}"
    )


class _Planning:
    """The planning of one run.

    In a run of several tasks those of one shard share group 0: a mapped instance a task would cost more than the work.
    """

    def __init__(
        self,
        connection: Connection,
        loop: asyncio.Runner,
        run_id: str,
        backends: Backends,
        rules: LaneRules,
        endpoint_of: EndpointOf,
        *,
        shared: int,
        actor: str,
    ) -> None:
        self._actor = actor
        self._connection = connection
        self._loop = loop
        self._gates: dict[str, HostGate] = {}
        self._open_gates = AsyncExitStack()
        self._run_id = run_id
        self._backends = backends
        self._rules = rules
        self._endpoint_of = endpoint_of
        self._shared = shared
        self.groups: dict[int, GroupRef] = {}
        self.skipped: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run(self._open_gates.aclose())

    def plan_task(self, row: dict[str, Any]) -> None:
        """Count, split and store one task, which has just been dispatched."""
        began = time.perf_counter()
        try:
            source = load_definition(row["version"], row["format"], row["definition"])
            parts = Cut(shards=(), total=row["total_rows"], why="as an earlier attempt was cut")
            if row["shards_total"] is None:
                parts = self._cut(source, row)
            _ensure_tables(self._connection, source, row)
        except Exception as error:  # noqa: BLE001 - recorded with its stack; settling decides what becomes of the task
            _record_failure(self._connection, row, error, time.perf_counter() - began)
            return
        planned = self._store(row, source, parts.total, parts.shards)
        trace = TraceRow(
            task_id=row["id"],
            stage=Stage.PLAN,
            attempt=row["attempt"],
            duration_s=time.perf_counter() - began,
            rows=parts.total,
            response={
                "groups": [group.label for group in planned],
                "total": parts.total,
                "sharding": parts.why,
            },
        )
        write_traces(self._connection, [trace])

    def _store(
        self, row: dict[str, Any], source: Source, total: int | None, shards: Sequence[ShardSpan]
    ) -> list[GroupRef]:
        """Shards (none when an earlier attempt stored them) and groups, in one transaction under the task's lock."""
        with self._connection.transaction():
            locked = self._connection.execute(
                query("execution/lock_planned"), {"task_id": row["id"], "attempt": row["attempt"]}
            ).fetchone()
            if locked is None:
                log.warning(
                    "task %s attempt %s was taken away while it was planned", row["id"], row["attempt"]
                )
                return []
            shards_total = locked["shards_total"]
            if shards_total is None:
                shards_total = len(shards)
                _insert_shards(self._connection, row["id"], shards)
            groups = self._deal(row, source, _unfinished(self._connection, row["id"]))
            self._connection.execute(
                query("execution/record_plan"),
                {"task_id": row["id"], "shards_total": shards_total, "total_rows": total},
            )
        return groups

    def _deal(self, row: dict[str, Any], source: Source, unfinished: Sequence[ShardSpan]) -> list[GroupRef]:
        if not unfinished:
            return []
        if self._shared > 1 and len(unfinished) == 1:
            dealt = [shared_group(source, unfinished, self._shared)]
            first = 0
        else:
            dealt = group(source, unfinished, self._width(row["lane"]))
            first = max(self.groups, default=0 if self._shared > 1 else -1) + 1
        refs = [GroupRef(run_id=self._run_id, group_no=first + g.number, label=g.label) for g in dealt]
        for ref, planned in zip(refs, dealt, strict=True):
            # Airflow maps over the groups in this order, and the cluster policy deals the nodes by it.
            place = list(self.groups).index(ref.group_no) if ref.group_no in self.groups else len(self.groups)
            _open_group(self._connection, row, ref, planned, place)
            self.groups[ref.group_no] = ref
        return refs

    def _cut(self, source: Source, row: dict[str, Any]) -> Cut:
        """Cut a task that has no shards yet, by what its source did before; says what the next one goes by."""
        unit = pace_unit(source)
        task = CutTask(
            source=source,
            params=row["params"],
            history=_history(self._connection, source.name, unit),
            target_s=sharding_rules().target_s,
            task_id=row["id"],
            attempt=row["attempt"],
        )
        parts = self._loop.run(self._ask_and_cut(task, row["path"]))
        if unit is not None and parts.aimed is not None:
            values = {"source": source.name, "unit": unit, "shard_size": parts.aimed}
            self._connection.execute(query("execution/note_shard_size"), values)
        return parts

    async def _ask_and_cut(self, task: CutTask, path: str | None) -> Cut:
        source = task.source
        request = render_admitted(source, task.params, path)
        gate = await self._gate(source)
        async with HttpCollector(source, request, self._endpoint_of(source.connection), gate=gate) as host:
            return await cut(task, host)

    async def _gate(self, source: Source) -> EndpointGate:
        """The gate to a source's endpoint; of its host there is one, which knows what tasks before have met there."""
        host = read_host(self._connection, source.connection)
        gate = self._gates.get(source.connection)
        if gate is not None:
            gate.see(host)
            return gate.endpoint(source)
        gate = HostGate(
            source,
            self._backends,
            self._rules.host,
            host,
            concurrency=1,
            requests_per_s=None,
            watch=False,
            on_closed=lambda name: asyncio.to_thread(
                let_go, self._backends, self._rules, name, source.connection, actor=self._actor
            ),
        )
        self._gates[source.connection] = await self._open_gates.enter_async_context(gate)
        return gate.endpoint(source)

    def _width(self, lane: str) -> int:
        """Groups a task may have: what the lane has free, its own reservation included, within the rule's width."""
        own = 1
        now = effective(self._connection, lane, self._rules)
        free = now.slots - used_slots(self._connection, lane) + own
        return max(1, min(now.groups_per_task, free))


def _history(connection: Connection, source: str, unit: str | None) -> History:
    row = None
    if unit is not None:
        row = connection.execute(query("execution/select_pace"), {"source": source}).fetchone()
    if row is None or row["unit"] != unit:
        return History()
    return History(size=row["shard_size"], rates=row["rates"])


def _ensure_tables(connection: Connection, source: Source, row: dict[str, Any]) -> None:
    ensure_target(
        connection,
        source.target,
        by_task=source.merge is not None,
        watched=source.conditional is not None,
        source=source.name,
    )
    if source.target.disposition is Disposition.REPLACE:
        _ensure_aside(connection, source, row["id"], row["attempt"])


def _ensure_aside(connection: Connection, source: Source, task_id: int, attempt: int) -> None:
    """The table aside, under the task's lock: a cancel comes before it and nothing is made, or after it and drops it.

    Where it had to be made anew, what shards of an earlier attempt had landed is gone, and all of them start over.
    """
    named = {"task_id": task_id, "attempt": attempt}
    with connection.transaction():
        locked = connection.execute(query("execution/lock_planned"), named).fetchone()
        if locked is None or not ensure_aside(connection, source.target, task_id):
            return
        restarted = connection.execute(query("execution/restart_shards"), {"task_id": task_id}).fetchone()
    if restarted is not None and restarted["begun"]:
        log.warning(
            "task %s: its rows aside are gone, so its shards start over, %d of which had landed rows",
            task_id,
            restarted["begun"],
        )


def _insert_shards(connection: Connection, task_id: int, shards: Sequence[ShardSpan]) -> None:
    connection.execute(
        query("execution/insert_shards"),
        {
            "task_id": task_id,
            "shard_nos": [shard.number for shard in shards],
            "offsets": [shard.offset for shard in shards],
            "sizes": [shard.size for shard in shards],
            "params": [None if shard.params is None else Jsonb(shard.params) for shard in shards],
            "labels": [shard.label or None for shard in shards],
            "units": [shard.units for shard in shards],
        },
    )


def _unfinished(connection: Connection, task_id: int) -> list[ShardSpan]:
    rows = connection.execute(query("execution/select_unfinished"), {"task_id": task_id}).fetchall()
    return [
        ShardSpan(
            number=row["shard_no"],
            offset=row["span_offset"],
            size=row["span_size"],
            params=row["params"],
            label=row["label"],
        )
        for row in rows
    ]


def _open_group(
    connection: Connection, row: dict[str, Any], ref: GroupRef, planned: PlannedGroup, map_index: int
) -> None:
    connection.execute(
        query("execution/insert_group"),
        {
            "run_id": ref.run_id,
            "group_no": ref.group_no,
            "lane": row["lane"],
            "label": ref.label,
            "concurrency": planned.concurrency,
            "requests_per_s": planned.requests_per_s,
            "placed_node": row["nodes"][map_index % len(row["nodes"])] if row["nodes"] else None,
            "map_index": map_index,
        },
    )
    connection.execute(
        query("execution/assign_shards"),
        {
            "task_id": row["id"],
            "run_id": ref.run_id,
            "shard_nos": [shard.number for shard in planned.shards],
            "group_nos": [ref.group_no] * len(planned.shards),
        },
    )


def _record_failure(connection: Connection, row: dict[str, Any], error: Exception, duration_s: float) -> None:
    described = describe_failure(error)
    if described["deferred"] or described["outage"]:
        log.info("task %s is not planned now: %s", row["id"], error)
    else:
        log.error("task %s cannot be planned: %s", row["id"], error, exc_info=error)
    connection.execute(
        query("execution/fail_planning"),
        {"task_id": row["id"], "attempt": row["attempt"], "error": Jsonb(described)},
    )
    write_traces(
        connection,
        [
            TraceRow(
                task_id=row["id"],
                stage=Stage.PLAN,
                attempt=row["attempt"],
                duration_s=duration_s,
                error=described,
            )
        ],
    )
