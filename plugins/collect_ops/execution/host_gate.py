"""The gate to a host that all nodes share: its limits in Redis, its breaker, pauses and quota in PostgreSQL.

A request waits for its turn here; what becomes of it is told to the breaker. When the host turns out to be held,
requests that wait or are under way end with `HostHeld`: their shards are put back, their worker does something else.
Without Redis the group keeps to its own share of the limits; without PostgreSQL the breaker is as it was, and no quota
beyond the block at hand is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TypeVar

from collect_ops.collectors.errors import CollectorError, HostFault, HostHeld
from collect_ops.collectors.gate import Turn
from collect_ops.collectors.pacing import Pacer
from collect_ops.collectors.quota_headers import allowance
from collect_ops.coordination.limiter import Answer, HostLimiter, HostLimits, LimiterAway, Verdict
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import Unanswered
from collect_ops.lanes.breaker import Outcomes, Permit, Phase
from collect_ops.lanes.hosts import (
    Host,
    QuotaBlock,
    pause,
    read_host_async,
    report_outcomes,
    report_probe,
    return_quota,
    take_permit,
    take_quota,
)
from collect_ops.lanes.rules import HostRule
from collect_ops.sources.model import Source
from collect_ops.storage import AsyncConnection, DatabaseUnavailable, connect_async, errors

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How often a gate looks at its host's record, in seconds: it goes on so long after another has opened the breaker.
LOOK_S = 1.0
#: How often a request that waits for what becomes of a probe asks again, in seconds.
PROBE_LOOK_S = 0.2
#: A pause that is longer, in seconds, is written down by whoever learned of it, however patient its source is.
PATIENT_S = 600.0
#: How long such a one is believed that Redis alone knows of, in seconds.
UNCONFIRMED_S = 5.0
#: How often a source without a quota asks whether another one of its connection has declared one, in seconds.
QUOTA_LOOK_S = 10.0
#: After Redis did not answer it is left alone for so long, in seconds: each try may cost its time-out.
AWAY_S = 2.0
#: A part of a shorter answer's pause is not worth a step: it is waited out in place.
_MIN_STEP_S = 0.001
_GONE = (errors.OperationalError, errors.InterfaceError, DatabaseUnavailable)


class _Answers:
    """Answers that were not reported yet, of the last window: they are the other half of an error rate."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._seconds: deque[tuple[int, int]] = deque()

    def add(self) -> None:
        second = int(time.monotonic())
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1] = (second, self._seconds[-1][1] + 1)
        else:
            self._seconds.append((second, 1))
            self._forget(second)

    def take(self) -> int:
        self._forget(int(time.monotonic()))
        taken = sum(count for _, count in self._seconds)
        self._seconds.clear()
        return taken

    def _forget(self, now: int) -> None:
        while self._seconds and self._seconds[0][0] < now - self._window_s:
            self._seconds.popleft()


@dataclass(slots=True)
class _Unreported:
    """Errors that were not reported yet."""

    errors: int = 0
    in_a_row: int = 0
    answered: bool = False
    text: str | None = None


@dataclass(slots=True, kw_only=True)
class _Quota:
    """The block of quota at hand."""

    block: QuotaBlock | None = None
    left: int = 0
    until: float = 0.0
    none_declared: bool = False
    asked_at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class HostGate:
    """Gives out turns at one host; an async context manager.

    Args:
        source: Its limits, and how long a request waits for a host that is paused (`retries.http_max_backoff_s`).
        backends: Where the services are.
        rule: The breaker's.
        host: As it was read last.
        concurrency: This group's share of the requests at once.
        requests_per_s: This group's share of the rate, which holds while Redis is away; None for any number.
        watch: Whether to look at the host's record all the time; not worth it for a single request.
    """

    def __init__(
        self,
        source: Source,
        backends: Backends,
        rule: HostRule,
        host: Host,
        *,
        concurrency: int,
        requests_per_s: float | None,
        watch: bool = True,
    ) -> None:
        self.connection = source.connection
        self._backends = backends
        self._rule = rule
        self._host = host
        self._watches = watch
        self._quota_declared = source.limits.daily_quota
        self._patience_s = source.retries.http_max_backoff_s
        self._slots = asyncio.Semaphore(concurrency)
        self._pacer = Pacer(requests_per_s)
        self._limiter = HostLimiter(backends.redis_url, source.connection, _limits(source))
        self._asking = asyncio.Lock()
        self._away_until = 0.0
        self._away = False
        self._database: AsyncConnection | None = None
        self._database_lock = asyncio.Lock()
        self._answers = _Answers(rule.window_s)
        self._unreported = _Unreported()
        self._quota = _Quota()
        self._under_way: dict[int, asyncio.Timeout] = {}
        self._turned_held = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._advised_at = 0.0
        self._notes: set[asyncio.Task[None]] = set()
        self.see(host)

    async def __aenter__(self) -> Self:
        if self._watches:
            self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await asyncio.gather(*self._notes)
        try:
            await self._report_answers()
            await self._give_quota_back()
        finally:
            await self._limiter.__aexit__(kind, error, trace)
            if self._database is not None:
                await self._database.close()

    def share_with(self, source: Source) -> None:
        """Another source of the same connection asks through this gate as well: the stricter limits hold."""
        self._limiter.tighten(_limits(source))
        if source.limits.daily_quota is not None:
            self._quota_declared = min(
                source.limits.daily_quota, self._quota_declared or source.limits.daily_quota
            )

    def see(self, host: Host) -> None:
        """The host's record was read again."""
        self._host = host
        if not host.refused:
            self._turned_held.clear()
            return
        if not self._turned_held.is_set():
            log.warning("%s: what is under way there is put back", host.reason)
        self._turned_held.set()
        if host.breaker.phase is Phase.OPEN:
            self._cut_off()

    @property
    def held(self) -> str | None:
        """Why nothing may be sent to the host; None while something may."""
        return self._host.reason if self._turned_held.is_set() else None

    @contextlib.asynccontextmanager
    async def turn(self, shown: str) -> AsyncIterator[Turn]:
        """Wait for a turn, and have it.

        Raises:
            HostHeld: The host is out of order, or paused for longer than a request waits.
            DatabaseUnavailable: A block of quota is needed, and PostgreSQL is away.
        """
        async with self._slots:
            turn = _HostTurn(self, shown)
            await turn.begin()
            try:
                yield turn
                await turn.succeeded()
            finally:
                turn.end()

    async def hold(self, seconds: float, reason: str) -> None:
        """The host asked for patience: no node sends anything for so long.

        A pause that is longer than a request waits is written down, so that the host's tasks are held. A host that asks
        for years (a time of day in `Retry-After`, say) is asked again after `max_pause_s`.
        """
        seconds = min(seconds, self._rule.max_pause_s)
        self._pacer.hold(seconds)
        with contextlib.suppress(LimiterAway):  # the next turn says so
            await self._limiter.hold(seconds, reason[:200])
        if seconds > min(self._patience_s, PATIENT_S):
            await self._pause(reason, seconds)

    async def rest(self, seconds: float) -> None:
        """Wait before a request is sent again, or until the host is held."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._turned_held.wait(), seconds)

    # What a turn asks for.

    def refuse_if_held(self, shown: str) -> None:
        """Raise what ends a request at a host that is held."""
        if (reason := self.held) is not None:
            raise HostHeld(shown, reason)

    async def permit(self, shown: str) -> int | None:
        """Whether the request is a probe: `holds` of the half-open phase that it is of; None when the host is in order.

        Raises:
            HostHeld: Probes have failed.
            psycopg.OperationalError, DatabaseUnavailable: PostgreSQL is away.
        """
        while True:
            self.refuse_if_held(shown)
            if self._host.breaker.until is None:
                return None
            host, permit = await self._with_database(lambda db: take_permit(db, self.connection, self._rule))
            self.see(host)
            if permit is Permit.PROBE:
                return host.breaker.holds
            if permit is Permit.FREE:
                return None
            self.refuse_if_held(shown)
            await self.rest(PROBE_LOOK_S)

    async def take_place(self, shown: str) -> str | None:
        """Wait for a place and a time at the shared limits; None when Redis is away and the group's own share holds."""
        async with self._asking:  # one asks for all: the others of this group would only ask in vain
            answer = await self._ask_until_granted(shown)
        if answer is None:
            return None
        try:
            if answer.wait_s > _MIN_STEP_S:
                await asyncio.sleep(answer.wait_s)
        except BaseException:
            self.give_place_back(answer.place)
            raise
        return answer.place

    async def _ask_until_granted(self, shown: str) -> Answer | None:
        place = ""
        unconfirmed_since: float | None = None
        while True:
            self.refuse_if_held(shown)
            if time.monotonic() < self._away_until:
                await self._pacer.turn()
                return None
            try:
                answer = await self._limiter.ask(place)
            except LimiterAway as error:
                self._redis_is_away(error)
                continue
            if self._away:
                self._away = False
                log.info("Redis is back: the limits of connection %s are shared again", self.connection)
            if answer.verdict is Verdict.GRANTED:
                return answer
            place = answer.place
            if answer.verdict is Verdict.HELD and answer.wait_s > PATIENT_S:
                unconfirmed_since = await self._confirm_pause(shown, answer, unconfirmed_since)
            elif answer.verdict is Verdict.HELD and answer.wait_s > self._patience_s:
                await self._pause(answer.reason, answer.wait_s)
                self.refuse_if_held(shown)
            # Jitter: nodes that were told the same time do not all come at it.
            await self.rest(min(answer.wait_s, LOOK_S) * random.uniform(1.0, 1.05))

    async def _confirm_pause(self, shown: str, answer: Answer, since: float | None) -> float | None:
        """See whether PostgreSQL knows of a long pause that Redis tells of: whoever was asked for it wrote it down.

        One that it does not know of after `UNCONFIRMED_S` is ignored: its process died before it wrote, and the host
        will ask for it again; or no process of ours has written it.

        Returns:
            Since when it is not confirmed.

        Raises:
            HostHeld: PostgreSQL knows of it.
        """
        host = await self._ask_database(lambda db: read_host_async(db, self.connection))
        if host is None:
            return None
        self.see(host)
        self.refuse_if_held(shown)
        now = time.monotonic()
        if since is None or now - since < UNCONFIRMED_S:
            return since or now
        log.warning(
            "Redis tells of a pause of %.0f s at connection %s that nobody has written down, it is ignored: %s",
            answer.wait_s,
            self.connection,
            answer.reason,
        )
        try:
            await self._limiter.forget()
        except LimiterAway as error:
            self._redis_is_away(error)
        return None

    def give_place_back(self, place: str) -> None:
        """A request has ended."""
        self._limiter.give_back(place)

    async def use_quota(self, shown: str, wanted: int = 1) -> bool:
        """Take one request of the day's quota; False when nobody has declared one.

        Raises:
            HostHeld: It is used up.
            DatabaseUnavailable: A block is needed, and PostgreSQL is away.
        """
        quota = self._quota
        if quota.none_declared and self._quota_declared is None:
            return False
        async with quota.lock:
            if quota.left <= 0 or time.monotonic() >= quota.until:
                await self._next_block(shown, wanted)
            if quota.none_declared:
                return False
            quota.left -= 1
            return True

    def unuse_quota(self) -> None:
        """A request that was not sent after all."""
        if time.monotonic() < self._quota.until:
            self._quota.left += 1

    def watch_request(self, turn: object, timer: asyncio.Timeout) -> None:
        """The request is cut off when the host turns out to be held."""
        self._under_way[id(turn)] = timer

    def forget_request(self, turn: object) -> None:
        """The request has ended."""
        self._under_way.pop(id(turn), None)

    def note_allowance(self, headers: Mapping[str, str]) -> None:
        """What the host says it has left, told to all nodes when it is little."""
        left = allowance(headers, datetime.now(UTC))
        if left is None:
            return
        if left.hold_s > 0:
            self._note(self.hold(left.hold_s, f"it has no request left for {left.hold_s:.0f} s"))
        elif (rate := left.requests_per_s) is not None and time.monotonic() - self._advised_at > 0.1:
            self._advised_at = time.monotonic()
            self._note(self._slow_down(rate, min(left.reset_s, self._rule.max_pause_s)))

    async def note_answer(self, probe: int | None) -> None:
        """A request was answered by a host in order."""
        if probe is not None:
            await self._report_probe(probe, error=None)
            return
        self._answers.add()
        self._unreported.in_a_row = 0
        self._unreported.answered = True

    async def note_error(self, error: CollectorError, probe: int | None) -> None:
        """A request failed by the host's fault."""
        if probe is not None:
            await self._report_probe(probe, error=str(error))
            return
        self._unreported.errors += 1
        if isinstance(error, Unanswered):
            self._unreported.in_a_row += 1
        else:
            self._unreported.in_a_row, self._unreported.answered = 0, True
        self._unreported.text = str(error)
        await self._report()

    # Its own state.

    async def _report_probe(self, holds: int, *, error: str | None) -> None:
        host = await self._ask_database(
            lambda db: report_probe(
                db, self.connection, answered=error is None, holds=holds, error=error, rule=self._rule
            )
        )
        if host is not None:
            self.see(host)

    async def _report(self) -> None:
        unreported, self._unreported = self._unreported, _Unreported()
        outcomes = Outcomes(
            requests=self._answers.take() + unreported.errors,
            errors=unreported.errors,
            in_a_row=unreported.in_a_row,
            answered=unreported.answered,
        )
        host = await self._ask_database(
            lambda db: report_outcomes(db, self.connection, outcomes, unreported.text, self._rule)
        )
        if host is not None:
            self.see(host)

    async def _report_answers(self) -> None:
        """Somebody has seen errors: what was answered here counts as well."""
        breaker = self._host.breaker
        if not breaker.quiet and breaker.until is None and self._unreported.answered:
            await self._report()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            host = await self._ask_database(lambda db: read_host_async(db, self.connection))
            if host is None:
                continue
            self.see(host)
            if time.monotonic() - self._quota.asked_at > QUOTA_LOOK_S:
                self._quota.none_declared = False
            await self._report_answers()

    def _cut_off(self) -> None:
        """What is under way at a host that is out of order would hold its worker until it times out."""
        now = asyncio.get_running_loop().time()
        for timer in self._under_way.values():
            if not timer.expired():
                timer.reschedule(now)
        self._under_way.clear()

    async def _pause(self, reason: str, seconds: float | None) -> None:
        async def paused(db: AsyncConnection) -> Host:
            await pause(db, self.connection, reason, seconds)
            return await read_host_async(db, self.connection)

        host = await self._ask_database(paused)
        if host is not None:
            self.see(host)

    async def _slow_down(self, requests_per_s: float, for_s: float) -> None:
        with contextlib.suppress(LimiterAway):  # the next turn says so
            await self._limiter.slow_down(requests_per_s, for_s)

    def _note(self, told: Awaitable[None]) -> None:
        async def tell() -> None:
            await told

        task = asyncio.create_task(tell())
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _next_block(self, shown: str, wanted: int) -> None:
        asked_at = time.monotonic()
        block = await self._with_database(
            lambda db: take_quota(db, self.connection, self._quota_declared, wanted)
        )
        quota = self._quota
        quota.none_declared, quota.asked_at = block is None, asked_at
        if block is None:
            return
        quota.block, quota.left, quota.until = block, block.granted, asked_at + block.left_s
        if block.granted <= 0:
            reason = f"its quota of {block.quota} requests a day is used up"
            await self._pause(reason, None)
            self.refuse_if_held(shown)
            raise HostHeld(shown, f"host of connection {self.connection}: {reason}, it goes on at 00:00 UTC")

    async def _give_quota_back(self) -> None:
        quota = self._quota
        block, unused = quota.block, quota.left
        if block is None or unused <= 0:
            return
        quota.left = 0
        await self._ask_database(lambda db: return_quota(db, self.connection, block, unused))

    def _redis_is_away(self, error: LimiterAway) -> None:
        if not self._away:
            log.warning(
                "connection %s: %s; this group keeps to its own share of the limits", self.connection, error
            )
        self._away = True
        self._away_until = time.monotonic() + AWAY_S

    async def _ask_database(self, act: Callable[[AsyncConnection], Awaitable[T]]) -> T | None:
        """Do something short on the gate's own connection; None when PostgreSQL is away: the group waits for it."""
        try:
            return await self._with_database(act)
        except _GONE as error:
            log.warning("the record of connection %s is out of reach: %s", self.connection, error)
            return None

    async def _with_database(self, act: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._database_lock:
            try:
                return await act(await self._connected())
            except _GONE:
                if self._database is not None:
                    await self._database.close()
                    self._database = None
                raise

    async def _connected(self) -> AsyncConnection:
        if self._database is None or self._database.closed:
            self._database = await connect_async(
                self._backends.postgres_dsn, application_name=f"collect-ops host {self.connection}"[:63]
            )
        return self._database


class _HostTurn:
    """A turn at a host that all nodes share."""

    def __init__(self, gate: HostGate, shown: str) -> None:
        self._gate = gate
        self._shown = shown
        self._probe: int | None = None
        self._place: str | None = None
        self._answered = False
        self._told = False
        self._timer: asyncio.Timeout | None = None

    async def begin(self) -> None:
        """Wait for everything that the request needs."""
        self._probe = await self._gate.permit(self._shown)
        await self._take()

    async def _take(self) -> None:
        counted = await self._gate.use_quota(self._shown)
        try:
            self._place = await self._gate.take_place(self._shown)
            self._gate.refuse_if_held(self._shown)
        except BaseException:
            if counted:
                self._gate.unuse_quota()
            self._give_back()
            raise

    def may_be_cut(self, timer: asyncio.Timeout) -> None:
        """The request is under this timer."""
        self._timer = timer
        self._gate.watch_request(self, timer)

    async def again(self) -> None:
        """One more request, after a redirect: in a place anew, since it has to wait for its time."""
        self._give_back()
        await self._take()

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """The host has answered."""
        self._answered = True
        if status < 300 or status >= 400:
            self._gate.note_allowance(headers)

    async def failed(self, error: CollectorError) -> HostHeld | None:
        """The request has failed: by the host's fault, or answered in order."""
        self._told = True
        self._gate.forget_request(self)
        if self._gate.held is None or self._probe is not None:
            if error.host_fault is not None:
                await self._gate.note_error(error, self._probe)
            elif self._answered:
                await self._gate.note_answer(self._probe)
        # Whoever fails while the host is held ends because of that; but a probe's own answer may be its own fault.
        reason = self._gate.held
        own = error.host_fault is None or (self._probe is not None and error.host_fault is HostFault.SICK)
        return None if reason is None or own else HostHeld(self._shown, reason)

    async def succeeded(self) -> None:
        """The request has been answered to its end."""
        self._gate.forget_request(self)
        if not self._told:
            await self._gate.note_answer(self._probe)

    def end(self) -> None:
        """Give back what it had."""
        self._gate.forget_request(self)
        self._give_back()

    def _give_back(self) -> None:
        if self._place is not None:
            self._gate.give_place_back(self._place)
            self._place = None


def _limits(source: Source) -> HostLimits:
    return HostLimits(concurrency=source.limits.concurrency, requests_per_s=source.limits.requests_per_s)
