"""The gate to an endpoint: what one source asks of a host. Its turns, and what becomes of them.

When the endpoint, or its host, turns out to be held, requests that wait or are under way end with `HostHeld`: their
shards are put back, their worker does something else. Other endpoints of the host are not touched by that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from collect_ops.collectors.errors import CollectorError, HostFault, HostHeld
from collect_ops.collectors.gate import Turn
from collect_ops.execution.tally import Tally
from collect_ops.lanes.breaker import Permit
from collect_ops.lanes.circuits import Failure, Probe
from collect_ops.lanes.hosts import Host

if TYPE_CHECKING:
    from collect_ops.execution.host_gate import HostGate

log = logging.getLogger(__name__)

#: How often a request that waits for what becomes of a probe asks again, in seconds.
PROBE_LOOK_S = 0.2


class EndpointGate:
    """Gives out turns at one endpoint.

    Args:
        host: What it shares with the other endpoints of its host.
        source: The source.
        window_s: Length of the window that outcomes are counted in, in seconds.
    """

    def __init__(self, host: HostGate, source: str, window_s: float) -> None:
        self._shared = host
        self.source = source
        self.tally = Tally(window_s)
        self.reported_at: float | None = None
        self._held: str | None = None
        self._turned_held = asyncio.Event()
        self._under_way: dict[int, asyncio.Timeout] = {}

    def see(self, host: Host) -> None:
        """The host's record was read again."""
        if not host.is_refused(self.source):
            self._held = None
            self._turned_held.clear()
            return
        if self._held is None:
            log.warning("%s: what is under way there is put back", host.reason(self.source))
        self._held = host.reason(self.source)
        self._turned_held.set()
        if host.circuits.is_refused(self.source, host.now):
            self._cut_off()

    @property
    def held(self) -> str | None:
        """Why nothing may be sent; None while something may."""
        return self._held

    def is_unreported_for(self, seconds: float) -> bool:
        """Whether its answers were not reported for so long."""
        return self.reported_at is None or time.monotonic() - self.reported_at >= seconds

    @contextlib.asynccontextmanager
    async def turn(self, shown: str) -> AsyncIterator[Turn]:
        """Wait for a turn, and have it.

        Raises:
            HostHeld: A circuit is open, or the host is paused for longer than a request waits.
            DatabaseUnavailable: A block of quota is needed, and PostgreSQL is away.
        """
        probe = await self._permit(shown)
        async with self._shared.slots:
            turn = _EndpointTurn(self, self._shared, shown, probe)
            await turn.begin()
            try:
                yield turn
                await turn.succeeded()
            finally:
                turn.end()

    async def hold(self, seconds: float, reason: str) -> None:
        """The host asked for patience: no node sends anything for so long."""
        await self._shared.hold(seconds, reason)

    async def rest(self, seconds: float) -> None:
        """Wait before a request is sent again, or until nothing may be sent."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._turned_held.wait(), seconds)

    def refuse_if_held(self, shown: str) -> None:
        """Raise what ends a request that may not be sent."""
        if self._held is not None:
            raise HostHeld(shown, self._held)

    async def _permit(self, shown: str) -> Probe | None:
        """Wait until a request may be sent; returns what it tries, None where all is in order.

        Raises:
            HostHeld: Probes have failed.
            psycopg.OperationalError, DatabaseUnavailable: PostgreSQL is away.
        """
        while True:
            self.refuse_if_held(shown)
            permit, probe = await self._shared.permit(self.source)
            if permit in (Permit.FREE, Permit.PROBE):
                return probe
            self.refuse_if_held(shown)
            await self.rest(PROBE_LOOK_S)

    def watch_request(self, turn: object, timer: asyncio.Timeout) -> None:
        """The request is cut off when nothing may be sent any more."""
        self._under_way[id(turn)] = timer

    def forget_request(self, turn: object) -> None:
        """The request has ended."""
        self._under_way.pop(id(turn), None)

    def _cut_off(self) -> None:
        """What is under way where nobody answers would hold its worker until it times out."""
        now = asyncio.get_running_loop().time()
        for timer in self._under_way.values():
            if not timer.expired():
                timer.reschedule(now)
        self._under_way.clear()

    async def record_answer(self, probe: Probe | None) -> None:
        """A request was answered in order."""
        if probe is not None:
            await self._shared.record_probe(self.source, probe, None)
            return
        self.tally.add_answer()
        self._shared.record_answer()

    async def record_failure(self, failure: Failure, text: str, probe: Probe | None) -> None:
        """A request failed by the fault of what it asked."""
        if probe is not None:
            await self._shared.record_probe(self.source, probe, failure, text)
            return
        if failure is not Failure.UNCONNECTED:
            self.tally.add_error(unanswered=failure is Failure.SILENT)
        await self._shared.record_failure(self, failure, text)


class _EndpointTurn:
    """A turn at an endpoint."""

    def __init__(self, gate: EndpointGate, host: HostGate, shown: str, probe: Probe | None) -> None:
        self._gate = gate
        self._host = host
        self._shown = shown
        self._probe = probe
        self._place: str | None = None
        self._answered = False
        self._told = False

    async def begin(self) -> None:
        """Wait for everything that the request needs."""
        await self._take()

    async def _take(self) -> None:
        counted = await self._host.use_quota(self._gate, self._shown)
        try:
            self._place = await self._host.take_place(self._gate, self._shown)
            self._gate.refuse_if_held(self._shown)
        except BaseException:
            if counted:
                self._host.unuse_quota()
            self._give_back()
            raise

    def may_be_cut(self, timer: asyncio.Timeout) -> None:
        """The request is under this timer."""
        self._gate.watch_request(self, timer)

    async def again(self) -> None:
        """One more request, after a redirect: in a place anew, since it has to wait for its time."""
        self._give_back()
        await self._take()

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """The host has answered."""
        self._answered = True
        if status < 300 or status >= 400:
            self._host.note_allowance(headers)

    async def failed(self, error: CollectorError) -> HostHeld | None:
        """The request has failed: by the fault of what it asked, or answered in order."""
        self._told = True
        self._gate.forget_request(self)
        failure = failure_of(error)
        if self._gate.held is None or self._probe is not None:
            if failure is not None:
                await self._gate.record_failure(failure, str(error), self._probe)
            elif self._answered:
                await self._gate.record_answer(self._probe)
        # Whoever fails while nothing may be sent ends because of that; but a probe's own answer may be its own fault.
        reason, probe = self._gate.held, self._probe
        if reason is None or failure is None or (probe is not None and failure is Failure.SICK):
            return None
        alone = probe is not None and probe.host is None and failure is Failure.SILENT
        return HostHeld(self._shown, reason, probed=alone)

    async def succeeded(self) -> None:
        """The request has been answered to its end."""
        self._gate.forget_request(self)
        if not self._told:
            await self._gate.record_answer(self._probe)

    def end(self) -> None:
        """Give back what it had."""
        self._gate.forget_request(self)
        self._give_back()

    def _give_back(self) -> None:
        if self._place is not None:
            self._host.give_place_back(self._place)
            self._place = None


def failure_of(error: CollectorError) -> Failure | None:
    """How a request failed by the fault of what it asked; None when it did not."""
    if error.host_fault is None:
        return None
    if error.unconnected:
        return Failure.UNCONNECTED
    return Failure.SILENT if error.host_fault is HostFault.DOWN else Failure.SICK
