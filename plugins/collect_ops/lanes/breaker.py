"""A circuit breaker, of a host or of an endpoint: a state machine, pure. Time is seconds of one clock, the database's.

CLOSED: everything is sent, and outcomes are counted in a sliding window. OPEN: nothing is sent. HALF_OPEN: a few
requests are let through to see; one that is answered closes it, one that fails opens it for longer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from collect_ops.lanes.rules import HostRule

#: Doubling more often than this changes nothing: every hold is at its longest by then.
_MAX_DOUBLINGS = 60


class Phase(StrEnum):
    """Where a breaker stands."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """What became of requests.

    Args:
        requests: That ended.
        errors: Of them those that failed by the fault of what is asked; of a host's those without a connection.
        in_a_row: Errors without any answer since the last answer.
        answered: Whether there was an answer among them.
    """

    requests: int
    errors: int = 0
    in_a_row: int = 0
    answered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Counts of the current window and of the one before, from which a sliding one is estimated.

    Args:
        since: When the current one began.
    """

    since: float = 0.0
    requests: int = 0
    errors: int = 0
    requests_before: int = 0
    errors_before: int = 0

    def at(self, now: float, length_s: float) -> Window:
        """The same, moved on to `now`; a clock that was set back moves nothing."""
        passed = (now - self.since) / length_s
        if passed < 1:
            return self
        if passed < 2:
            return Window(
                since=self.since + length_s, requests_before=self.requests, errors_before=self.errors
            )
        return Window(since=now)

    def estimated(self, now: float, length_s: float) -> tuple[float, float]:
        """Requests and errors of the last `length_s` seconds: the window before counts as far as it overlaps."""
        share = min(1.0, max(0.0, 1 - (now - self.since) / length_s))
        return (
            self.requests + self.requests_before * share,
            self.errors + self.errors_before * share,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """A breaker.

    Args:
        phase: Where it stands.
        in_a_row: Requests in a row that got no answer.
        holds: Openings in a row; each lasts longer than the one before. Names the half-open phase that a probe is of.
        until: OPEN: until when nothing is sent. HALF_OPEN: until when its probes are waited for.
        probes: Requests let through in this half-open phase.
        since: When it left CLOSED.
        window: Outcomes, counted while it is CLOSED.
    """

    phase: Phase = Phase.CLOSED
    in_a_row: int = 0
    holds: int = 0
    until: float | None = None
    probes: int = 0
    since: float | None = None
    window: Window = Window()

    @property
    def quiet(self) -> bool:
        """Closed, with nothing that could open it: answers need not be reported."""
        window = self.window
        return self.phase is Phase.CLOSED and not (self.in_a_row or window.errors or window.errors_before)

    def due(self, now: float) -> bool:
        """Whether probes may be let through anew: the hold has passed, or those let through were not heard of."""
        return self.until is not None and self.until <= now


class Permit(StrEnum):
    """Whether a request may be sent."""

    FREE = "FREE"
    PROBE = "PROBE"
    WAIT = "WAIT"
    REFUSED = "REFUSED"


def hold_s(rule: HostRule, holds: int) -> float:
    """Seconds that opening number `holds` (1, 2, …) lasts."""
    doublings = min(_MAX_DOUBLINGS, holds - 1)
    try:
        return min(rule.max_hold_s, rule.hold_s * rule.factor**doublings)
    except OverflowError:
        return rule.max_hold_s


def report(breaker: Breaker, outcomes: Outcomes, now: float, rule: HostRule) -> Breaker:
    """Outcomes of requests that were sent while it was closed.

    Those that arrive when it is not closed any more change nothing: they were under way when it opened.
    """
    if breaker.phase is not Phase.CLOSED:
        return breaker
    window = breaker.window.at(now, rule.window_s)
    window = replace(
        window, requests=window.requests + outcomes.requests, errors=window.errors + outcomes.errors
    )
    in_a_row = outcomes.in_a_row if outcomes.answered else breaker.in_a_row + outcomes.in_a_row
    counted = replace(breaker, window=window, in_a_row=in_a_row)
    return _opened(counted, now, rule) if _too_bad(counted, outcomes, now, rule) else counted


def let_through(breaker: Breaker, now: float, rule: HostRule) -> Breaker:
    """A task is let through to send the probes; it has `probe_s` seconds for it."""
    if not breaker.due(now):
        return breaker
    return replace(breaker, phase=Phase.HALF_OPEN, probes=0, until=now + rule.probe_s)


def permit(breaker: Breaker, now: float, rule: HostRule) -> tuple[Breaker, Permit]:
    """Whether a request may be sent now.

    WAIT: probes are under way, what becomes of them is known soon. REFUSED: not before `until`.
    """
    if breaker.phase is Phase.CLOSED:
        return breaker, Permit.FREE
    if breaker.due(now):
        return replace(let_through(breaker, now, rule), probes=1), Permit.PROBE
    if breaker.phase is Phase.OPEN:
        return breaker, Permit.REFUSED
    if breaker.probes < rule.probes:
        return replace(breaker, probes=breaker.probes + 1), Permit.PROBE
    return breaker, Permit.WAIT


def probe_ended(breaker: Breaker, *, answered: bool, holds: int, now: float, rule: HostRule) -> Breaker:
    """A probe has ended.

    Args:
        breaker: The breaker.
        answered: Whether the host was in order.
        holds: `holds` of the breaker when the probe was let through: one of an earlier phase decides nothing.
        now: The time.
        rule: The rule.
    """
    if breaker.phase is not Phase.HALF_OPEN or breaker.holds != holds:
        return breaker
    return Breaker() if answered else _opened(breaker, now, rule)


def probe_undecided(breaker: Breaker, *, holds: int, now: float, rule: HostRule) -> Breaker:
    """A probe has ended and says nothing of what it was to try: open for as long as before, and no longer.

    Args:
        breaker: The breaker.
        holds: Of the phase that the probe was let through in.
        now: The time.
        rule: The rule.
    """
    if breaker.phase is not Phase.HALF_OPEN or breaker.holds != holds:
        return breaker
    return replace(breaker, phase=Phase.OPEN, probes=0, until=now + hold_s(rule, holds))


def opened(breaker: Breaker, now: float, rule: HostRule) -> Breaker:
    """Opened by what others have met; one that is not closed stays as it is."""
    return _opened(breaker, now, rule) if breaker.phase is Phase.CLOSED else breaker


def _too_bad(breaker: Breaker, outcomes: Outcomes, now: float, rule: HostRule) -> bool:
    if not outcomes.errors:  # answers alone open nothing
        return False
    if breaker.in_a_row >= rule.failures:
        return True
    requests, errors = breaker.window.estimated(now, rule.window_s)
    return requests >= rule.min_requests and errors >= rule.error_rate * requests


def _opened(breaker: Breaker, now: float, rule: HostRule) -> Breaker:
    holds = breaker.holds + 1
    return Breaker(
        phase=Phase.OPEN,
        in_a_row=breaker.in_a_row,
        holds=holds,
        until=now + hold_s(rule, holds),
        since=breaker.since if breaker.since is not None else now,
    )
