"""Running a shard group: what one mapped Airflow task instance does.

Shards run concurrently, each worker on a connection of its own. A shard whose lease somebody else holds is put back
and tried again later; a database that goes away is waited for. A group that has nothing left takes over what other
groups of its run have not started (`stealing`). What ends the group early is the death of its process: the run's
settle task and the repair pass see to that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import HostHeld
from collect_ops.collectors.http import HttpCollector
from collect_ops.collectors.page import Page, Span
from collect_ops.coordination.lease import LEASE_S, WAIT_S, Leases
from collect_ops.execution.endpoint_gate import EndpointGate
from collect_ops.execution.host_gate import HostGate
from collect_ops.execution.rules import ShardingRules, sharding_rules
from collect_ops.execution.settle import Settled, settle_on
from collect_ops.execution.shard import DatabaseClock, ShardEnd, ShardRun, ShardTask, TaskKit
from collect_ops.execution.stealing import Stealing, handed_over
from collect_ops.journal.trace import Stage, TraceRow, describe_failure, write_traces_async
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import OwnOutage
from collect_ops.landing.lander import Lander
from collect_ops.landing.memory import PageMemory
from collect_ops.lanes.held import let_go
from collect_ops.lanes.hosts import read_host_async
from collect_ops.lanes.rules import LaneRules
from collect_ops.sources.model import Source
from collect_ops.sources.request import render_admitted
from collect_ops.sources.stored import NewerDefinition, load_definition
from collect_ops.storage import (
    AsyncConnection,
    DatabaseUnavailable,
    Jsonb,
    KeptConnections,
    connect_async,
    errors,
    query,
)
from collect_ops.tasks.lifecycle import UNDER_WAY, TaskStatus

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How often a group says that it lives, in seconds: the pass that looks for silent ones allows for several.
ALIVE_EVERY_S = 4.0
#: How long a group waits for a database that went away, in seconds, before it gives up and is run again elsewhere.
DATABASE_PATIENCE_S = 120.0


@dataclass(slots=True, kw_only=True)
class GroupResult:
    """What a shard group did.

    Args:
        stolen: Shards that it took over from other groups of its run.
        handed_over: Shards of its own that it found taken over by others.
    """

    run_id: str
    group_no: int
    label: str = ""
    skipped: str | None = None
    done: int = 0
    failed: int = 0
    fenced: int = 0
    stolen: int = 0
    handed_over: int = 0
    deferred: int = 0
    handed_back: int = 0
    rows: int = 0
    unchanged_rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    settled: list[Settled] = field(default_factory=list)


async def run_group(
    run_id: str,
    group_no: int,
    backends: Backends,
    rules: LaneRules,
    endpoint_of: Callable[[str], Endpoint],
    *,
    node: str,
    actor: str,
    lease_s: float = LEASE_S,
    wait_s: float = WAIT_S,
    sharding: ShardingRules | None = None,
) -> GroupResult:
    """Run a shard group to its end, settle the tasks whose last shard it finished, and free its slot.

    Args:
        run_id: The Airflow run.
        group_no: The group in it.
        backends: Where the services are.
        rules: Lane rules.
        endpoint_of: The endpoint of an Airflow connection, by its id.
        node: Where this runs, for people.
        actor: For the task log.
        lease_s: Life of a shard's lease, in seconds.
        wait_s: How long to wait for a lease that is held, in seconds.
        sharding: Rules of sharding; the installation's when not given.
    """
    began = time.monotonic()
    result = GroupResult(run_id=run_id, group_no=group_no)
    steal = (sharding or sharding_rules()).steal
    run = _GroupRun(result, backends, rules, endpoint_of, node=node, actor=actor, steal=steal)
    async with Leases(backends.redis_url, lease_s=lease_s, wait_s=wait_s) as leases:
        await run.run(leases)
    result.seconds = round(time.monotonic() - began, 3)
    log.info(
        "%s: %d shards done, %d failed, %d fenced off, %d taken over, %d handed over, %d put back, %d rows in %.1f s",
        result.label or f"{run_id}/{group_no}", result.done, result.failed, result.fenced, result.stolen,
        result.handed_over, result.deferred, result.rows, result.seconds,
    )  # fmt: skip
    return result


class _Outage:
    """Waits out a database that went away, with growing pauses, up to `DATABASE_PATIENCE_S`."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._pause_s = 0.25

    async def wait(self, error: Exception) -> None:
        """Pause after a failure.

        Raises:
            Exception: The failure itself, when the outage has lasted too long.
        """
        self._began = self._began if self._began is not None else time.monotonic()
        if time.monotonic() - self._began > DATABASE_PATIENCE_S:
            raise error
        log.warning("the database went away, trying again in %.2f s: %s", self._pause_s, error)
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(5.0, self._pause_s * 2)

    def over(self) -> None:
        """The database answered."""
        self._began, self._pause_s = None, 0.25


# A holder that is frozen, with its machine or by SIGSTOP, keeps its shard's lock for no longer than this: whoever
# settles the task waits for the lock a minute. COPY is not idle; the time of a statement bounds it.
_SESSION = {"idle_in_transaction_session_timeout": "20s", "statement_timeout": "10min"}
_GONE = (errors.OperationalError, errors.InterfaceError, DatabaseUnavailable)


@dataclass(frozen=True, slots=True)
class _Crew:
    """What the workers of a group have in common."""

    tasks: asyncio.TaskGroup
    leases: Leases
    stack: contextlib.AsyncExitStack
    started: dict[str, Any]


class _GroupRun:
    def __init__(
        self,
        result: GroupResult,
        backends: Backends,
        rules: LaneRules,
        endpoint_of: Callable[[str], Endpoint],
        *,
        node: str,
        actor: str,
        steal: bool,
    ) -> None:
        self._result = result
        self._backends = backends
        self._rules = rules
        self._endpoint_of = endpoint_of
        self._node = node
        self._actor = actor
        self._key: dict[str, Any] = {"run_id": result.run_id, "group_no": result.group_no}
        self._waiting: deque[ShardTask] = deque()
        self._kits: dict[int, TaskKit] = {}
        self._gates: dict[str, HostGate] = {}
        self._held_once: set[tuple[int, int]] = set()
        self._unfit: set[int] = set()
        self._newer: dict[
            int, tuple[ShardTask, NewerDefinition]
        ] = {}  # by task: only a newer release can read it
        self._concurrency = 1
        self._workers = 0
        self._leaving = False
        self._stealing = Stealing(result.run_id, result.group_no, enabled=steal)
        self._left: list[ShardTask] = []  # not begun with: their host is held
        self._settling = KeptConnections(backends.postgres_dsn, application_name="collect-ops settle")

    async def run(self, leases: Leases) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._settling)
            started = await self._with_database(self._start)
            if started is None:
                self._result.skipped = (
                    "the group is closed: its run was repaired or settled, or it had ended before"
                )
                return
            self._result.label = started["label"]
            self._concurrency = started["concurrency"]
            self._stealing.enabled &= started["others"]
            await self._with_database(lambda connection: self._load(connection, stack, started))
            if started["draining"]:
                self._heed(started)
            saying = asyncio.create_task(self._say_alive())
            try:
                async with asyncio.TaskGroup() as group:
                    crew = _Crew(group, leases, stack, started)
                    self._hire(crew)
                    if not self._workers and self._stealing.enabled:
                        self._hire_one(crew)
            finally:
                saying.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await saying
            await self._with_database(self._defer_rest)
        await self._with_database(self._close)

    async def _say_alive(self) -> None:
        """Say every few seconds that this process lives: one that is dead, frozen or cut off does not.

        Whoever finds the group silent takes its shards away; nothing here depends on it, so a database that is away is
        no failure.
        """
        connection: AsyncConnection | None = None
        try:
            while True:
                await asyncio.sleep(ALIVE_EVERY_S)
                try:
                    connection = connection or await self._connect()
                    found = await connection.execute(query("execution/renew_group"), self._key)
                    self._heed(await found.fetchone())
                except _GONE as error:
                    log.warning("the group could not say that it lives: %s", error)
                    if connection is not None:
                        await connection.close()
                    connection = None
        finally:
            if connection is not None:
                await connection.close()

    def _heed(self, answer: dict[str, Any] | None) -> None:
        """What the group learns when it says that it lives: that it is closed, or that its node drains."""
        if answer is not None and not answer["draining"]:
            return
        if answer is None:
            log.warning("the group was closed by somebody else: what it has not begun is left to others")
        elif not self._leaving:
            log.warning("node %s drains, or its worker ends: what has not landed is handed back", self._node)
            self._leaving = True
        self._stealing.enabled = False
        self._result.handed_back += len(self._waiting) if self._leaving else 0
        self._waiting.clear()

    async def _start(self, connection: AsyncConnection) -> dict[str, Any] | None:
        values = {**self._key, "node": self._node, "pid": os.getpid()}
        return await (await connection.execute(query("execution/start_group"), values)).fetchone()

    async def _close(self, connection: AsyncConnection) -> None:
        # Handed back, so that a task which only a newer release can read is placed on another node the next time.
        values = {**self._key, "handed_back": self._leaving or bool(self._newer)}
        await connection.execute(query("execution/close_group"), values)

    async def _load(
        self, connection: AsyncConnection, stack: contextlib.AsyncExitStack, started: dict[str, Any]
    ) -> None:
        rows = await (await connection.execute(query("execution/select_group_shards"), self._key)).fetchall()
        self._waiting.clear()
        await self._take_in(connection, stack, started, rows)

    async def _take_in(
        self,
        connection: AsyncConnection,
        stack: contextlib.AsyncExitStack,
        started: dict[str, Any],
        rows: Sequence[dict[str, Any]],
    ) -> None:
        """Queue shards; those of a task that cannot be run fail."""
        versions = sorted({row["version"] for row in rows})
        found = await (
            await connection.execute(query("execution/select_definitions"), {"versions": versions})
        ).fetchall()
        definitions = {row["version"]: row for row in found}
        unfit: dict[int, ShardTask] = {}
        for row in rows:
            task_id = row["task_id"]
            shard = ShardTask(
                task_id=task_id,
                attempt=row["attempt"],
                shard_no=row["shard_no"],
                span=Span(offset=row["span_offset"], size=row["span_size"]),
                run_id=self._result.run_id,
                group_no=self._result.group_no,
                params=row["shard_params"],
            )
            if task_id in unfit or task_id in self._newer:
                continue
            try:
                if task_id not in self._kits:
                    kit = await self._kit(connection, stack, definitions[row["version"]], row, started)
                    self._kits[task_id] = kit
            except _GONE:
                raise  # waited for
            except NewerDefinition as newer:
                self._unfit.add(task_id)
                self._newer[task_id] = (shard, newer)
            except Exception as error:  # noqa: BLE001 - recorded with its stack; settling decides on retry or dead letter
                unfit[task_id] = shard
                self._unfit.add(task_id)
                if isinstance(error, OwnOutage):
                    await self._put_task_back(connection, shard, error)
                else:
                    await self._fail_task(connection, shard, error)
            else:
                self._waiting.append(shard)
        for shard in unfit.values():
            await self._settle_if_final(connection, shard)

    async def _put_task_back(self, connection: AsyncConnection, shard: ShardTask, error: Exception) -> None:
        """Put back what this group has of a task that it cannot run now: nothing of it has failed."""
        log.warning("task %s cannot be run now, it is put back: %s", shard.task_id, error)
        described = describe_failure(error)
        values = {**self._key, "task_id": shard.task_id, "attempt": shard.attempt, "error": Jsonb(described)}
        put_back = await connection.execute(query("execution/defer_group_shards"), values)
        self._result.deferred += put_back.rowcount

    async def _fail_task(self, connection: AsyncConnection, shard: ShardTask, error: Exception) -> None:
        """Fail what this group has of a task it cannot run: its connection was deleted, its declaration is too old.

        Raised instead, it would count as a lost attempt, which runs again at once and never says why; and it would take
        along the tasks that share the group.
        """
        log.error("task %s cannot be run: %s", shard.task_id, error, exc_info=error)
        described = describe_failure(error)
        values = {**self._key, "task_id": shard.task_id, "attempt": shard.attempt, "error": Jsonb(described)}
        async with connection.transaction():
            failed = await connection.execute(query("execution/fail_group_shards"), values)
            trace = TraceRow(
                task_id=shard.task_id,
                attempt=shard.attempt,
                stage=Stage.FETCH,
                duration_s=0.0,
                error=described,
            )
            await write_traces_async(connection, [trace])
        self._result.failed += failed.rowcount

    async def _kit(
        self,
        connection: AsyncConnection,
        stack: contextlib.AsyncExitStack,
        stored: dict[str, Any],
        row: dict[str, Any],
        started: dict[str, Any],
    ) -> TaskKit:
        source = load_definition(stored["version"], stored["format"], stored["definition"])
        gate = await self._gate(connection, stack, source, started)
        # The collector reads pages as the lander's rows, and is made after it.
        lander = Lander(source, masked=lambda text: collector.masked(text))  # noqa: PLW0108
        collector = HttpCollector(
            source,
            render_admitted(source, row["params"], row["path"]),
            self._endpoint_of(source.connection),
            concurrency=started["concurrency"],
            requests_per_s=started["requests_per_s"],
            on_retry=lambda notice: log.warning("asking again: %s", notice),
            gate=gate,
            row_type=lander.row_type,
        )
        return TaskKit(
            source=source,
            gate=gate,
            collector=await stack.enter_async_context(collector),
            lander=lander,
            params=row["params"],
            path=row["path"],
            memory=await self._memory(stack, source, row["version"]),
        )

    async def _memory(
        self, stack: contextlib.AsyncExitStack, source: Source, version: str
    ) -> PageMemory | None:
        if source.conditional is None:
            return None
        return await stack.enter_async_context(PageMemory(source, bytes.fromhex(version), self._connect))

    def _hire(self, crew: _Crew) -> None:
        """As many workers as there is work for, within the group's share of the host's concurrency."""
        for _ in range(min(self._concurrency - self._workers, len(self._waiting))):
            self._hire_one(crew)

    def _hire_one(self, crew: _Crew) -> None:
        self._workers += 1
        crew.tasks.create_task(self._work(crew))

    async def _next(self, crew: _Crew) -> ShardTask | None:
        """The next shard; when none is left, of what could be taken over from the run's other groups."""
        # What others hold asks the same hosts: while one is held, taking over brings nothing.
        if not self._waiting and not self._left and self._stealing.enabled:
            async with self._stealing.turn() as ours:
                if ours and not self._waiting:
                    await self._with_database(lambda connection: self._steal(connection, crew))
        return self._waiting.popleft() if self._waiting else None

    async def _steal(self, connection: AsyncConnection, crew: _Crew) -> None:
        rows = await self._stealing.steal(connection, self._unfit)
        queued = {(each.task_id, each.shard_no) for each in self._waiting}
        rows = [row for row in rows if (row["task_id"], row["shard_no"]) not in queued]
        self._result.stolen += len(rows)
        await self._take_in(connection, crew.stack, crew.started, rows)
        self._stealing.settled()
        # Beside the worker that asked, and takes the first of them.
        for _ in range(min(self._concurrency - self._workers, len(self._waiting) - 1)):
            self._hire_one(crew)

    async def _drop_handed_over(self, connection: AsyncConnection, shard: ShardTask) -> None:
        """A shard is another group's now: so may be others that wait here."""
        self._result.handed_over += 1
        async with self._stealing.lock:
            owned = await self._stealing.owned(connection)
            kept = [each for each in self._waiting if (each.task_id, each.shard_no) in owned]
            self._result.handed_over += len(self._waiting) - len(kept)
            self._waiting = deque(kept)
        log.info(
            "shard %s of task %s and what follows it was taken over by another group",
            shard.shard_no,
            shard.task_id,
        )

    async def _gate(
        self,
        connection: AsyncConnection,
        stack: contextlib.AsyncExitStack,
        source: Source,
        started: dict[str, Any],
    ) -> EndpointGate:
        """The gate to a source's endpoint; of its host there is one a group."""
        gate = self._gates.get(source.connection)
        if gate is not None:
            return gate.endpoint(source)
        gate = HostGate(
            source,
            self._backends,
            self._rules.host,
            await read_host_async(connection, source.connection),
            concurrency=started["concurrency"],
            requests_per_s=started["requests_per_s"],
            on_closed=lambda name: asyncio.to_thread(
                let_go, self._backends, self._rules, name, source.connection, actor=self._actor
            ),
        )
        self._gates[source.connection] = await stack.enter_async_context(gate)
        return gate.endpoint(source)

    async def _defer_rest(self, connection: AsyncConnection) -> None:
        """Mark what was not begun with, because its host is held or its declaration is newer than this process.

        Settling then sees that nothing was lost.
        """
        deferred: list[tuple[ShardTask, Exception]] = list(self._newer.values())
        for shard in {shard.task_id: shard for shard in self._left}.values():
            reason = self._kits[shard.task_id].gate.held or "its host was held"
            deferred.append((shard, HostHeld(self._kits[shard.task_id].source.name, reason)))
        for shard, error in deferred:
            described = describe_failure(error)
            values = {
                **self._key,
                "task_id": shard.task_id,
                "attempt": shard.attempt,
                "error": Jsonb(described),
            }
            await connection.execute(query("execution/defer_group_shards"), values)

    async def _work(self, crew: _Crew) -> None:
        """One worker: shards one after the other, on a connection of its own."""
        outage = _Outage()
        connection: AsyncConnection | None = None
        try:
            while (shard := await self._next(crew)) is not None:
                if self._kits[shard.task_id].gate.held:
                    self._left.append(shard)
                    continue
                try:
                    connection = connection or await self._connect()
                    end = await self._run_shard(connection, crew.leases, shard)
                    if end is ShardEnd.HANDED_OVER:
                        await self._drop_handed_over(connection, shard)
                    elif end is not None:
                        if end is ShardEnd.FENCED:
                            await self._drop_if_over(connection, shard)
                        await self._settle_if_final(connection, shard)
                except _GONE as error:
                    self._waiting.appendleft(shard)
                    if connection is not None:
                        await connection.close()
                    connection = None
                    await outage.wait(error)
                else:
                    outage.over()
        finally:
            self._workers -= 1
            if connection is not None:
                await connection.close()

    async def _run_shard(
        self, connection: AsyncConnection, leases: Leases, shard: ShardTask
    ) -> ShardEnd | None:
        """Run a shard; None when somebody else holds its lease: it is put back, and waited for the next time."""
        key = (shard.task_id, shard.shard_no)
        async with leases.hold(*key, wait=key in self._held_once) as lease:
            if lease is None:
                if await handed_over(connection, *key, **self._key):
                    return ShardEnd.HANDED_OVER
                self._held_once.add(key)
                self._waiting.append(shard)
                return None
            clock = await DatabaseClock.read(connection)
            end = await ShardRun(
                connection,
                self._kits[shard.task_id],
                shard,
                clock,
                lease,
                actor=self._actor,
                on_page=self._count_page,
                leaving=lambda: self._leaving,
            ).run()
        self._count(end)
        return end

    async def _settle_if_final(self, connection: AsyncConnection, shard: ShardTask) -> None:
        """The last shard of a task settles it at once: that saves the wait for the run's settle task.

        So does one that has failed for good, where the others cannot save the task any more.
        """
        cursor = await connection.execute(query("execution/count_open_shards"), {"task_id": shard.task_id})
        row = await cursor.fetchone()
        if row is None:
            return
        if row["open"] > 0:
            kit = self._kits.get(shard.task_id)
            allowed = 0 if kit is None else kit.source.max_failed_shards
            # Settling decides; this only spares it the shards' sums after each of many failures.
            if row["permanent"] <= allowed and (row["permanent"] == 0 or row["answered"] > 0):
                return
        settled = await asyncio.to_thread(self._settle, shard)
        if settled is not None:
            self._result.settled.append(settled)
            if row["open"] > 0:
                self._drop(shard.task_id)

    def _settle(self, shard: ShardTask) -> Settled | None:
        with self._settling.use() as connection:
            return settle_on(
                connection,
                shard.task_id,
                shard.attempt,
                self._backends,
                self._rules,
                actor=self._actor,
                run_over=False,
            )

    async def _drop_if_over(self, connection: AsyncConnection, shard: ShardTask) -> None:
        """A shard was fenced off: where its task is not under way any more, neither are the others of it."""
        named = {"task_id": shard.task_id}
        row = await (await connection.execute(query("execution/select_task_state"), named)).fetchone()
        if row is None or row["attempt"] != shard.attempt or TaskStatus(row["status"]) not in UNDER_WAY:
            self._drop(shard.task_id)

    def _drop(self, task_id: int) -> None:
        """Nobody needs what has not been begun of a task."""
        kept = deque(each for each in self._waiting if each.task_id != task_id)
        if dropped := len(self._waiting) - len(kept):
            log.info("%d shards of task %s are not begun: it has ended", dropped, task_id)
        self._result.fenced += dropped
        self._waiting = kept

    def _count_page(self, page: Page) -> None:
        self._result.rows += page.rows
        self._result.unchanged_rows += page.unchanged_rows or 0
        self._result.bytes += page.wire_bytes

    def _count(self, end: ShardEnd) -> None:
        self._result.done += end is ShardEnd.DONE
        self._result.failed += end is ShardEnd.FAILED
        self._result.fenced += end is ShardEnd.FENCED
        self._result.deferred += end is ShardEnd.DEFERRED
        self._result.handed_back += end is ShardEnd.HANDED_BACK

    async def _connect(self) -> AsyncConnection:
        return await connect_async(
            self._backends.postgres_dsn,
            application_name=f"collect-ops {self._result.run_id}/{self._result.group_no}",
            settings=_SESSION,
        )

    async def _with_database(self, act: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Do something short on a connection of its own; a database that went away is waited for."""
        outage = _Outage()
        while True:
            try:
                async with await self._connect() as connection:
                    return await act(connection)
            except _GONE as error:
                await outage.wait(error)
