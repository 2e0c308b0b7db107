"""The gate to a host that all nodes share: its limits in Redis, its circuits, pauses and quota in PostgreSQL.

A request waits for its turn at its endpoint's gate (`endpoint_gate`), which asks here for everything that the endpoints
of a host share; what becomes of it is told to the circuits. Without Redis the group keeps to its own share of the
limits; without PostgreSQL the circuits are as they were, and no quota beyond the block at hand is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TypeVar

from collect_ops.collectors.errors import HostHeld
from collect_ops.collectors.pacing import Pacer
from collect_ops.collectors.quota_headers import allowance
from collect_ops.coordination.limiter import Answer, HostLimiter, HostLimits, LimiterAway, Verdict
from collect_ops.execution.endpoint_gate import EndpointGate
from collect_ops.execution.tally import Tally
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.breaker import Outcomes, Permit, Phase
from collect_ops.lanes.circuits import EndpointReport, Failure, Probe
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
    """What the endpoints of one host share; an async context manager.

    Args:
        source: Its limits, and how long a request waits for a host that is paused (`retries.http_max_backoff_s`).
        backends: Where the services are.
        rule: The breaker's.
        host: As it was read last.
        concurrency: This group's share of the requests at once.
        requests_per_s: This group's share of the rate, which holds while Redis is away; None for any number.
        watch: Whether to look at the host's record all the time; not worth it for a single request.
        on_closed: Called when a request of this gate has closed a circuit, with the source that asked: what was held by
            it may go on.
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
        on_closed: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self.connection = source.connection
        self._backends = backends
        self._rule = rule
        self._host = host
        self._watches = watch
        self._quota_declared = source.limits.daily_quota
        self._patience_s = source.retries.http_max_backoff_s
        self.slots = asyncio.Semaphore(concurrency)
        self._on_closed = on_closed
        self._endpoints: dict[str, EndpointGate] = {}
        self._pacer = Pacer(requests_per_s)
        self._limiter = HostLimiter(backends.redis_url, source.connection, _limits(source))
        self._asking = asyncio.Lock()
        self._away_until = 0.0
        self._away = False
        self._database: AsyncConnection | None = None
        self._database_lock = asyncio.Lock()
        self._tally = Tally(rule.window_s)
        self._quota = _Quota()
        self._watching: asyncio.Task[None] | None = None
        self._advised_at = 0.0
        self._notes: set[asyncio.Task[None]] = set()

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
        try:
            await asyncio.gather(*self._notes)
            await self._report_answers()
            await self._give_quota_back()
            # A report may have closed a circuit.
            await asyncio.gather(*self._notes)
        finally:
            await self._limiter.__aexit__(kind, error, trace)
            if self._database is not None:
                await self._database.close()

    def endpoint(self, source: Source) -> EndpointGate:
        """The gate of a source's requests to this host. Of the sources that share it the stricter limits hold."""
        self._limiter.tighten(_limits(source))
        if source.limits.daily_quota is not None:
            self._quota_declared = min(
                source.limits.daily_quota, self._quota_declared or source.limits.daily_quota
            )
        gate = self._endpoints.get(source.name)
        if gate is None:
            gate = self._endpoints[source.name] = EndpointGate(self, source.name, self._rule.window_s)
            gate.see(self._host)
        return gate

    def see(self, host: Host) -> None:
        """The host's record was read again."""
        self._host = host
        for endpoint in self._endpoints.values():
            endpoint.see(host)

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

    # What a turn asks for.

    async def permit(self, source: str) -> tuple[Permit, Probe | None]:
        """Whether a request may be sent now; of a probe, what it tries.

        Raises:
            psycopg.OperationalError, DatabaseUnavailable: PostgreSQL is away.
        """
        if self._host.circuits.is_closed(source):
            return Permit.FREE, None
        host, permit, probe = await self._with_database(
            lambda db: take_permit(db, self.connection, source, self._rule)
        )
        self.see(host)
        return permit, probe

    async def take_place(self, endpoint: EndpointGate, shown: str) -> str | None:
        """Wait for a place and a time at the shared limits; None when Redis is away and the group's own share holds."""
        async with self._asking:  # one asks for all: the others of this group would only ask in vain
            answer = await self._ask_until_granted(endpoint, shown)
        if answer is None:
            return None
        try:
            if answer.wait_s > _MIN_STEP_S:
                await asyncio.sleep(answer.wait_s)
        except BaseException:
            self.give_place_back(answer.place)
            raise
        return answer.place

    async def _ask_until_granted(self, endpoint: EndpointGate, shown: str) -> Answer | None:
        place = ""
        unconfirmed_since: float | None = None
        while True:
            endpoint.refuse_if_held(shown)
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
                unconfirmed_since = await self._confirm_pause(endpoint, shown, answer, unconfirmed_since)
            elif answer.verdict is Verdict.HELD and answer.wait_s > self._patience_s:
                await self._pause(answer.reason, answer.wait_s)
                endpoint.refuse_if_held(shown)
            # Jitter: nodes that were told the same time do not all come at it.
            await endpoint.rest(min(answer.wait_s, LOOK_S) * random.uniform(1.0, 1.05))

    async def _confirm_pause(
        self, endpoint: EndpointGate, shown: str, answer: Answer, since: float | None
    ) -> float | None:
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
        endpoint.refuse_if_held(shown)
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

    async def use_quota(self, endpoint: EndpointGate, shown: str, wanted: int = 1) -> bool:
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
                await self._next_block(endpoint, shown, wanted)
            if quota.none_declared:
                return False
            quota.left -= 1
            return True

    def unuse_quota(self) -> None:
        """A request that was not sent after all."""
        if time.monotonic() < self._quota.until:
            self._quota.left += 1

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

    def record_answer(self) -> None:
        """A request was answered, if only that it cannot be."""
        self._tally.add_answer()

    async def record_failure(self, endpoint: EndpointGate, failure: Failure, text: str) -> None:
        """A request failed by the fault of what it asked; the endpoint has counted it already if it is its own."""
        if failure is Failure.UNCONNECTED:
            self._tally.add_error(unanswered=True)
        elif failure is Failure.SICK:
            self._tally.add_answer()
        await self._report(endpoint, error=text, silent=failure is Failure.SILENT)

    async def record_probe(
        self, source: str, probe: Probe, failure: Failure | None, error: str | None = None
    ) -> None:
        """A probe has ended."""
        host = await self._ask_database(
            lambda db: report_probe(
                db, self.connection, source, probe, failure=failure, error=error, rule=self._rule
            )
        )
        if host is None:
            return
        self.see(host)
        tried = [
            *([host.breaker] if probe.host is not None else []),
            *([host.circuits.endpoint(source).breaker] if probe.endpoint is not None else []),
        ]
        if self._on_closed is not None and any(each.phase is Phase.CLOSED for each in tried):
            self._note(self._on_closed(source))

    # Its own state.

    async def _report(
        self, endpoint: EndpointGate, *, error: str | None = None, silent: bool = False
    ) -> None:
        outcomes = EndpointReport(
            endpoint=self._outcomes_of(endpoint),
            host=self._tally.take()
            if self._tally.errors or not self._host.breaker.quiet
            else Outcomes(requests=0),
            silent=silent,
        )
        host = await self._ask_database(
            lambda db: report_outcomes(db, self.connection, endpoint.source, outcomes, error, self._rule)
        )
        if host is not None:
            self.see(host)

    def _outcomes_of(self, endpoint: EndpointGate) -> Outcomes:
        """An endpoint's own; answers alone are kept for later while no endpoint fails."""
        counts = endpoint.tally.errors or self._host.circuits.endpoints_fail
        return endpoint.tally.take() if counts else Outcomes(requests=0)

    async def _report_answers(self) -> None:
        """Somebody has seen errors: what was answered here counts as well.

        Answers of an endpoint in order, beside others that fail, say only that it is asked: now and then is enough.
        """
        for endpoint in self._endpoints.values():
            circuits = self._host.circuits
            if not endpoint.tally.has_answer or not circuits.is_closed(endpoint.source):
                continue
            concerned = not circuits.host.quiet or not circuits.endpoint(endpoint.source).breaker.quiet
            beside = circuits.endpoints_fail and endpoint.is_unreported_for(self._rule.window_s / 2)
            if concerned or beside:
                endpoint.reported_at = time.monotonic()
                await self._report(endpoint)

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

    async def _next_block(self, endpoint: EndpointGate, shown: str, wanted: int) -> None:
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
            endpoint.refuse_if_held(shown)
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


def _limits(source: Source) -> HostLimits:
    return HostLimits(concurrency=source.limits.concurrency, requests_per_s=source.limits.requests_per_s)
