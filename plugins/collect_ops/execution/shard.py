"""Running one shard: under its lease and fencing token, page by page, rows and progress in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from collect_ops.collectors.errors import CollectorError, EqualPage, HostHeld, ResumeRefused
from collect_ops.collectors.http import HttpCollector
from collect_ops.collectors.page import Page, Span
from collect_ops.collectors.paging import named_parameter
from collect_ops.collectors.totals import is_at_least
from collect_ops.coordination.lease import Lease
from collect_ops.execution.endpoint_gate import EndpointGate
from collect_ops.execution.stealing import handed_over
from collect_ops.journal.trace import Stage, TraceRow, describe_failure, write_traces_async
from collect_ops.kernel.errors import CollectOpsError, OwnOutage, Permanent
from collect_ops.landing.errors import LandingCollision
from collect_ops.landing.lander import Lander
from collect_ops.landing.memory import Epoch, PageMemory
from collect_ops.landing.model import Landed, LandingPage, Origin
from collect_ops.sources.model import Source
from collect_ops.sources.request import RenderedRequest, render_admitted
from collect_ops.storage import AsyncConnection, DatabaseUnavailable, Jsonb, errors, query

log = logging.getLogger(__name__)

#: Tries of a page whose keys collide with those of pages that land beside it.
LANDING_ATTEMPTS = 5
#: Seconds that a page may still take once its node drains, however long its request would wait: for its turn, between
#: two tries, or for a slow host.
LAST_PAGE_S = 5.0
#: How often a page that is waited for looks whether its node drains, in seconds.
_LOOK_S = 0.5
#: How often a shard begins to ask conditionally again, when what was remembered of a page does not hold any more.
RECALL_ATTEMPTS = 3


class ShardEnd(StrEnum):
    """How a run of a shard ended."""

    DONE = "DONE"
    FAILED = "FAILED"
    FENCED = "FENCED"
    HANDED_OVER = "HANDED_OVER"
    DEFERRED = "DEFERRED"
    HANDED_BACK = "HANDED_BACK"


class TooManyBadRows(CollectOpsError, Permanent):
    """More rows of a shard did not fit than the source allows."""

    def __init__(self, source: str, bad_rows: int, allowed: int) -> None:
        super().__init__(
            f"source {source}: {bad_rows} rows do not fit their columns, max_bad_rows is {allowed} a shard; "
            f"collect.bad_row holds them with their reasons"
        )


class _Leaving(Exception):
    """The node drains: what has landed stays, the rest is for others."""


class _Forgotten(Exception):
    """A page is unchanged, but its rows are not all there any more: it has to be fetched."""


class _Repeated(Exception):
    """A page holds the rows of the one before, by which the source says that there are no more."""


class _Fenced(Exception):
    """Somebody took a newer token, or the task was settled, cancelled or repaired: nothing more may land."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """A shard that a group has to run.

    Args:
        run_id: Of the group whose it is.
        group_no: Likewise.
        params: What it asks for beside its task's parameters, None for nothing.
    """

    task_id: int
    attempt: int
    shard_no: int
    span: Span
    run_id: str
    group_no: int
    params: Mapping[str, Any] | None = None


@dataclass(slots=True, kw_only=True)
class TaskKit:
    """What the shards of one task share: declaration, gate to its endpoint, client, lander.

    Args:
        params: The task's parameters.
        path: Instead of the source's path.
        memory: Of pages that have landed; None for a source that has none.
        announced: Whether the task has been said to run.
    """

    source: Source
    gate: EndpointGate
    collector: HttpCollector
    lander: Lander
    params: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None
    memory: PageMemory | None = None
    announced: bool = field(default=False)

    def request_of(self, shard: ShardTask) -> RenderedRequest | None:
        """The request of a shard with parameters of its own; None for the task's.

        Raises:
            ValidationFailed: They do not fit the declaration.
        """
        if shard.params is None:
            return None
        return render_admitted(self.source, {**self.params, **shard.params}, self.path)


class DatabaseClock:
    """Database time for moments of this process's monotonic clock: no two machines' clocks are compared."""

    def __init__(self, now: datetime, monotonic: float) -> None:
        self._now = now
        self._monotonic = monotonic

    @classmethod
    async def read(cls, connection: AsyncConnection) -> DatabaseClock:
        """Ask the database for its time."""
        row = await (await connection.execute("SELECT clock_timestamp() AS now")).fetchone()
        if row is None:
            raise LookupError("the database did not tell its time")
        return cls(row["now"], time.monotonic())

    def at(self, monotonic: float) -> datetime:
        """Database time at a moment of `time.monotonic()`."""
        return self._now + timedelta(seconds=monotonic - self._monotonic)


class ShardRun:
    """One run of one shard on one connection.

    Args:
        connection: Autocommit connection, used by nobody else meanwhile.
        kit: What the task's shards share.
        shard: Which shard.
        clock: Database time.
        lease: Told of every page, so that it is renewed.
        actor: For the task log.
        on_page: Told of every page that has landed.
        leaving: Whether the node drains: then the shard is put back after its page.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        kit: TaskKit,
        shard: ShardTask,
        clock: DatabaseClock,
        lease: Lease,
        *,
        actor: str,
        on_page: Callable[[Page], None] = lambda _page: None,
        leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connection = connection
        self._kit = kit
        self._leaving = leaving
        self._shard = shard
        self._clock = clock
        self._lease = lease
        self._actor = actor
        self._on_page = on_page
        self._key = {"task_id": shard.task_id, "shard_no": shard.shard_no}
        self._token = 0
        self._pages = 0
        self._position: dict[str, Any] | None = None
        self._landed_since: datetime | None = None
        self._epoch: Epoch | None = None
        self._may_start_over = False

    async def run(self) -> ShardEnd:
        """Run the shard to its end.

        Raises:
            psycopg.OperationalError: The database went away; the shard resumes from its last committed page.
            DatabaseUnavailable: Likewise.
        """
        taken = await self._take()
        if taken is None:
            gone = await handed_over(
                self._connection, **self._key, run_id=self._shard.run_id, group_no=self._shard.group_no
            )
            return ShardEnd.HANDED_OVER if gone else ShardEnd.FENCED
        try:
            await self._collect(taken)
        except _Fenced:
            log.warning(
                "shard %s of task %s: fenced off, nothing more lands",
                self._shard.shard_no,
                self._shard.task_id,
            )
            return ShardEnd.FENCED
        except _Leaving:
            await self._fetchone(
                "execution/release_shard", {**self._key, "token": self._token, "error": None}
            )
            return ShardEnd.HANDED_BACK
        except Exception as error:
            # The database went away or broke a deadlock: neither the source's fault nor the rows'.
            if isinstance(error, errors.OperationalError | errors.InterfaceError | DatabaseUnavailable):
                raise
            # What landing says may quote a row, and a row what the server was sent.
            self._kit.collector.mask_error(error)
            return await self._ended_by(error)
        return ShardEnd.DONE

    async def _ended_by(self, error: Exception) -> ShardEnd:
        if isinstance(error, HostHeld | OwnOutage):
            await self._put_back(error)
            return ShardEnd.DEFERRED
        await self._fail(error)
        return ShardEnd.FAILED

    async def _take(self) -> dict[str, Any] | None:
        attempt = {"task_id": self._shard.task_id, "attempt": self._shard.attempt, "actor": self._actor}
        if not self._kit.announced:
            await self._connection.execute(query("execution/start_task"), attempt)
            self._kit.announced = True
        shard = self._shard
        owner = {"run_id": shard.run_id, "group_no": shard.group_no}
        row = await self._fetchone("execution/take_shard", {**self._key, **owner, "attempt": shard.attempt})
        if row is not None:
            self._token = row["fencing_token"]
        return row

    async def _collect(self, taken: dict[str, Any]) -> None:
        self._pages, self._position = taken["pages"], taken["position"]
        self._landed_since = taken["landed_since"]
        if self._pages > 0 and self._position is None:
            await self._judge_again()
            return
        fresh = self._token == 1 and self._pages == 0
        self._may_start_over = taken["restarts"] == 0
        try:
            finished = await self._walk_surely(fresh=fresh)
        except ResumeRefused as gone:
            await self._start_over(gone)
            finished = await self._walk_surely(fresh=False)
        if not finished:
            await self._finish_empty()

    async def _start_over(self, gone: ResumeRefused) -> None:
        """Begin anew, once: the first page that lands now clears what the shard has landed so far."""
        shard = self._shard
        log.warning("shard %s of task %s begins anew: %s", shard.shard_no, shard.task_id, gone)
        async with self._connection.transaction():
            values = {**self._key, "token": self._token}
            if await self._fetchone("execution/start_shard_over", values) is None:
                raise _Fenced
            trace = TraceRow(
                task_id=shard.task_id,
                shard_no=shard.shard_no,
                attempt=shard.attempt,
                stage=Stage.FETCH,
                duration_s=self._lease.stalled_s(),
                response={"begins_anew": True},
                error=describe_failure(gone),
            )
            await write_traces_async(self._connection, [trace])
        self._pages, self._position, self._may_start_over = 0, None, False

    async def _walk_surely(self, *, fresh: bool) -> bool:
        """Walk on from the last committed page when what was remembered of the next one does not hold any more."""
        memory = self._kit.memory
        for _ in range(RECALL_ATTEMPTS):
            self._epoch = None if memory is None else await memory.begin(self._connection)
            try:
                return await self._walk(fresh=fresh, conditional=memory is not None)
            except _Forgotten:
                log.info(
                    "shard %s of task %s: rows of page %s are gone since they landed; it is fetched again",
                    self._shard.shard_no, self._shard.task_id, self._pages,
                )  # fmt: skip
        return await self._walk(fresh=fresh, conditional=False)

    async def _walk(self, *, fresh: bool, conditional: bool) -> bool:
        """Land page after page; returns whether one of them said that it was the last."""
        asked = time.perf_counter()
        finished = False
        request = self._kit.request_of(self._shard)
        recall = self._epoch.recall if self._epoch is not None and conditional else None
        walk = self._kit.collector.pages(
            self._shard.span,
            self._position,
            request,
            recall=recall,
            start_over=self._may_start_over,
            scope=self._scope,
        )
        async with contextlib.aclosing(walk) as found:
            while (page := await self._next_page(found)) is not None:
                fetch_s = time.perf_counter() - asked
                self._lease.progressed()
                if self._pages == 0 and not fresh:
                    self._landed_since = self._clock.at(page.sent_at)
                origin = Origin(
                    task_id=self._shard.task_id,
                    shard_no=self._shard.shard_no,
                    first_page=self._pages == 0,
                    fresh=fresh,
                    landed_since=self._landed_since,
                )
                try:
                    await self._land_surely(page, origin, fetch_s)
                except _Repeated:
                    break
                self._on_page(page)
                self._pages += 1
                self._position = page.next_position
                finished = page.next_position is None
                if not finished and self._leaving():
                    raise _Leaving
                asked = time.perf_counter()
        return finished

    @property
    def _scope(self) -> bytes:
        """Of whom a page is that is all of its shard: shards that ask for different things may get equal rows."""
        return b"%d" % self._shard.shard_no if self._shard.params else b""

    async def _next_page(self, walk: AsyncGenerator[Page]) -> Page | None:
        """The next page, None after the last one.

        Raises:
            _Leaving: The node drains, and the page has not come for `LAST_PAGE_S` since.
        """
        fetching = asyncio.ensure_future(anext(walk, None))
        ends_at: float | None = None
        try:
            while not (await asyncio.wait({fetching}, timeout=_LOOK_S))[0]:
                if ends_at is None and self._leaving():
                    ends_at = time.monotonic() + LAST_PAGE_S
                if ends_at is not None and time.monotonic() >= ends_at:
                    raise _Leaving
        finally:
            if not fetching.done():
                fetching.cancel()
                await asyncio.wait({fetching})
        return fetching.result()

    async def _land_surely(self, page: Page, origin: Origin, fetch_s: float) -> None:
        """Land a page; one that collided with another page's keys lands in its next transaction."""
        for attempt in range(LANDING_ATTEMPTS):
            try:
                await self._land(page, origin, fetch_s)
            except LandingCollision:
                if attempt == LANDING_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(random.uniform(0, 0.1 * 2**attempt))
            else:
                return

    async def _land(self, page: Page, origin: Origin, fetch_s: float) -> None:
        began = time.perf_counter()
        async with self._connection.transaction():
            await self._fence(page)
            landed = await self._kit.lander.land(
                self._connection,
                LandingPage(
                    records=page.records,
                    fetched_at=self._clock.at(page.sent_at),
                    page=page.number,
                    plain=b"\\" not in page.raw and b"\0" not in page.raw,
                    size_bytes=len(page.raw),
                ),
                origin,
            )
            too_many = await self._too_many_bad_rows(landed.bad_rows) if landed.bad_rows else None
            await self._remember(page, landed)
            land_s = time.perf_counter() - began
            memory = self._kit.memory
            await self._connection.execute(
                query("execution/advance_shard"),
                {
                    **self._key,
                    "token": self._token,
                    "position": None if page.next_position is None else Jsonb(page.next_position),
                    "fetched": page.rows,
                    "landed": landed.rows_landed,
                    "bad": landed.bad_rows,
                    "repeated": landed.rows_repeated,
                    "landed_since": self._landed_since,
                    "unchanged_pages": int(page.unchanged),
                    "unchanged_rows": page.unchanged_rows or 0,
                    "table_name": self._kit.source.target.table,
                    "version": None if memory is None else memory.version,
                    "bytes": page.wire_bytes,
                    "http_retries": page.attempts - 1,
                    "fetch_s": fetch_s,
                    "land_s": land_s,
                    "source_total": page.evident_total,
                    # A shard with too many bad rows fails, so its last page must not make it DONE.
                    "last": page.next_position is None and too_many is None,
                },
            )
            await write_traces_async(self._connection, self._page_traces(page, landed, fetch_s, land_s))
        if too_many is not None:
            raise too_many

    async def _fence(self, page: Page) -> None:
        """Begin a landing transaction: the shard is still this run's, and no page of its task had these rows before.

        Raises:
            _Fenced: It is not.
            EqualPage: One had, and the source does not say that it may.
            _Repeated: It was the one before, which the source calls the end.
        """
        values = {**self._key, "token": self._token}
        if page.fingerprint is None:
            if await self._fetchone("execution/fence_shard", values) is None:
                raise _Fenced
            return
        fenced = await self._fetchone("execution/fence_page", {**values, "fingerprint": page.fingerprint})
        if fenced is None:
            raise _Fenced
        if fenced["first"]:
            return
        earlier = await self._fetchone(
            "execution/select_equal_page", {"task_id": self._shard.task_id, "fingerprint": page.fingerprint}
        )
        raise self._repeated(page, earlier or {})

    def _repeated(self, page: Page, earlier: Mapping[str, Any]) -> Exception:
        paging, shard_no = self._kit.source.paging, self._shard.shard_no
        same_shard = earlier.get("shard_no") == shard_no
        before = same_shard and earlier["page"] == page.number - 1
        if before and getattr(paging, "equal_pages", "") == "end" and not self._knows_its_end(page):
            return _Repeated()
        parameter = named_parameter(paging)
        if not same_shard and self._shard.params:
            parameter += f", or {', '.join(self._shard.params)}"
        if not earlier:
            where = "another page"
        else:
            where = f"page {earlier['page'] + 1}" + ("" if same_shard else f" of shard {earlier['shard_no']}")
        return EqualPage(page.request.get("url", ""), parameter, page.number, where)

    def _knows_its_end(self, page: Page) -> bool:
        """Whether the number of rows is known, so that a page that repeats before they have come is no end."""
        named = page.total is not None and not is_at_least(self._kit.source.total, page.total)
        return named or self._shard.span.size is not None

    async def _remember(self, page: Page, landed: Landed) -> None:
        """Keep what a landed page is known by, or make sure that the rows of an unchanged one are there.

        Raises:
            _Forgotten: They are not.
        """
        if self._epoch is None or page.known is None:
            return
        if not page.unchanged:
            whole = landed.rows_landed == len(page.records)
            fetched_at = self._clock.at(page.sent_at)
            await self._epoch.remember(self._connection, page.known, fetched_at, whole=whole)
        elif not await self._epoch.vouch(self._connection, page.known):
            raise _Forgotten

    def _page_traces(self, page: Page, landed: Landed, fetch_s: float, land_s: float) -> list[TraceRow]:
        shard = self._shard
        response = {**page.response, "page": page.number, "attempts": page.attempts}
        fetched = TraceRow(
            task_id=shard.task_id,
            shard_no=shard.shard_no,
            attempt=shard.attempt,
            stage=Stage.FETCH,
            duration_s=fetch_s,
            rows=page.rows,
            bytes=page.wire_bytes,
            request=page.request,
            response={**response, "unchanged": True} if page.unchanged else response,
        )
        if page.unchanged:
            return [fetched]
        return [
            fetched,
            TraceRow(
                task_id=shard.task_id,
                shard_no=shard.shard_no,
                attempt=shard.attempt,
                stage=Stage.LAND,
                duration_s=land_s,
                rows=landed.rows_landed,
                bytes=len(page.raw),
                response={"bad_rows": landed.bad_rows, "fence": self._token},
            ),
        ]

    async def _too_many_bad_rows(self, added: int) -> TooManyBadRows | None:
        allowed = self._kit.source.max_bad_rows
        if allowed is None:
            return None
        row = await self._fetchone("execution/count_bad_rows", self._key)
        bad_rows = added + (row["bad_rows"] if row is not None else 0)
        return TooManyBadRows(self._kit.source.name, bad_rows, allowed) if bad_rows > allowed else None

    async def _judge_again(self) -> None:
        """A shard that failed at its last page, for its bad rows: all of it has landed, and must not land twice."""
        if (too_many := await self._too_many_bad_rows(0)) is not None:
            raise too_many
        await self._finish_empty()

    async def _finish_empty(self) -> None:
        """A shard whose pages ended without a last one to say so: it held no (more) rows."""
        row = await self._fetchone("execution/finish_shard", {**self._key, "token": self._token})
        if row is None:
            raise _Fenced

    async def _put_back(self, held: Exception) -> None:
        """Nothing has failed: the shard waits, and goes on from its last committed page."""
        log.info("shard %s of task %s is put back: %s", self._shard.shard_no, self._shard.task_id, held)
        values = {**self._key, "token": self._token, "error": Jsonb(describe_failure(held))}
        await self._fetchone("execution/release_shard", values)

    async def _fail(self, error: Exception) -> None:
        shard = self._shard
        described = describe_failure(error)
        log.error("shard %s of task %s failed: %s", shard.shard_no, shard.task_id, error, exc_info=error)
        async with self._connection.transaction():
            await self._fetchone(
                "execution/fail_shard", {**self._key, "token": self._token, "error": Jsonb(described)}
            )
            trace = TraceRow(
                task_id=shard.task_id,
                shard_no=shard.shard_no,
                attempt=shard.attempt,
                stage=Stage.FETCH if isinstance(error, CollectorError) else Stage.LAND,
                duration_s=self._lease.stalled_s(),
                error=described,
            )
            await write_traces_async(self._connection, [trace])

    async def _fetchone(self, name: str, values: dict[str, Any]) -> dict[str, Any] | None:
        return await (await self._connection.execute(query(name), values)).fetchone()
