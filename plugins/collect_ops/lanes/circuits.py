"""The circuits of a host and of its endpoints, together: pure. An endpoint is what one source asks of a connection.

An endpoint's failures open its own circuit. The host's opens when no connection can be made, and when most of its
endpoints fail without an answer. While it is open nothing is counted against endpoints; once it is closed by an answer
they are tried at once, and the time that it was open is not taken from their patience.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from collect_ops.lanes.breaker import (
    Breaker,
    Outcomes,
    Permit,
    Phase,
    let_through,
    opened,
    permit,
    probe_ended,
    probe_undecided,
    report,
)
from collect_ops.lanes.rules import HostRule

#: So many endpoints that fail without an answer open their host's circuit, if they are this share of those asked.
SILENT_ENDPOINTS = 3
SILENT_OF = (2, 3)


class Failure(StrEnum):
    """How a request failed by the fault of what it asked.

    UNCONNECTED: no connection, which is the host's fault. SILENT: no answer, or a gateway's that there is none.
    SICK: an answer that it cannot.
    """

    UNCONNECTED = "UNCONNECTED"
    SILENT = "SILENT"
    SICK = "SICK"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointCircuit:
    """An endpoint's circuit.

    Args:
        breaker: Its breaker.
        unanswered_at: When a request last got no answer; None once one has been answered.
    """

    breaker: Breaker = field(default_factory=Breaker)
    unanswered_at: float | None = None

    def is_asked(self, now: float, rule: HostRule) -> bool:
        """Whether it was asked lately, as far as anybody said so: it is open, or its window has requests."""
        breaker = self.breaker
        if breaker.until is not None:
            # Long past its time: nobody has a task that would try it.
            return now <= breaker.until + rule.probe_s + rule.window_s
        requests, _ = breaker.window.at(now, rule.window_s).estimated(now, rule.window_s)
        return requests > 0

    def is_silent(self, answered_at: float | None, now: float, rule: HostRule) -> bool:
        """Whether it is open for want of answers, the last one after the host was known to answer."""
        return (
            self.breaker.until is not None
            and self.unanswered_at is not None
            and (answered_at is None or self.unanswered_at > answered_at)
            and self.is_asked(now, rule)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuits:
    """The circuits of a host.

    Args:
        host: The host's breaker.
        answered_at: When it was last closed by an answer.
        endpoints: Those of its endpoints, by source; one that never failed has none.
    """

    host: Breaker = field(default_factory=Breaker)
    answered_at: float | None = None
    endpoints: Mapping[str, EndpointCircuit] = field(default_factory=dict)

    def endpoint(self, source: str) -> EndpointCircuit:
        """The circuit of a source's endpoint."""
        return self.endpoints.get(source, EndpointCircuit())

    def changed(self, source: str, endpoint: EndpointCircuit) -> Circuits:
        """The same with another circuit of one endpoint."""
        if endpoint == self.endpoint(source):
            return self
        return replace(self, endpoints={**self.endpoints, source: endpoint})

    def is_closed(self, source: str) -> bool:
        """Whether requests of a source are sent as they come."""
        return self.host.phase is Phase.CLOSED and self.endpoint(source).breaker.phase is Phase.CLOSED

    def is_due(self, source: str, now: float) -> bool:
        """Whether a source's task may be let through to try what is not closed."""
        open_ones = [each for each in (self.host, self.endpoint(source).breaker) if each.until is not None]
        return bool(open_ones) and all(each.due(now) for each in open_ones)

    def is_refused(self, source: str, now: float) -> bool:
        """Whether nothing of a source may be sent now, not even a probe."""
        return any(
            each.phase is Phase.OPEN and not each.due(now)
            for each in (self.host, self.endpoint(source).breaker)
        )

    @property
    def endpoints_fail(self) -> bool:
        """Whether an endpoint has failed lately: then answers of the others count, as of those that are asked."""
        return any(not each.breaker.quiet for each in self.endpoints.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointReport:
    """What became of requests of one endpoint that were sent while nothing was held.

    Args:
        endpoint: All but those for which no connection could be made.
        host: All; the errors are those for which none could be made.
        silent: Whether the last one got no answer.
    """

    endpoint: Outcomes
    host: Outcomes
    silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a request was let through to try: `holds` of the half-open phases that it is of, None of what is closed."""

    host: int | None = None
    endpoint: int | None = None


def apply_report(
    circuits: Circuits,
    source: str,
    outcomes: EndpointReport,
    active_sources: Collection[str],
    now: float,
    rule: HostRule,
) -> Circuits:
    """Outcomes of requests that were sent while nothing was held.

    Args:
        circuits: The circuits.
        source: Whose requests they were.
        outcomes: What became of them.
        active_sources: Sources that have tasks under way at the host.
        now: The time.
        rule: The rule.
    """
    host = report(circuits.host, outcomes.host, now, rule) if outcomes.host.requests else circuits.host
    after = replace(circuits, host=host)
    if after.host.phase is not Phase.CLOSED or not outcomes.endpoint.requests:
        return after
    before = circuits.endpoint(source)
    breaker = report(before.breaker, outcomes.endpoint, now, rule)
    if breaker is before.breaker:  # under way when it opened
        return after
    unanswered_at = now if outcomes.silent else None if outcomes.endpoint.answered else before.unanswered_at
    after = after.changed(source, EndpointCircuit(breaker=breaker, unanswered_at=unanswered_at))
    return _open_host_if_silent(after, active_sources, now, rule) if breaker.phase is Phase.OPEN else after


def grant_permit(
    circuits: Circuits, source: str, now: float, rule: HostRule
) -> tuple[Circuits, Permit, Probe | None]:
    """Whether a request of a source may be sent now; of one that is a probe, what it tries.

    Both circuits have to allow it: a place of the host's that the endpoint's would refuse is not taken.
    """
    host, by_host = permit(circuits.host, now, rule)
    if by_host in (Permit.WAIT, Permit.REFUSED):
        return circuits, by_host, None
    endpoint = circuits.endpoint(source)
    breaker, by_endpoint = permit(endpoint.breaker, now, rule)
    if by_endpoint in (Permit.WAIT, Permit.REFUSED):
        return circuits, by_endpoint, None
    if by_host is Permit.FREE and by_endpoint is Permit.FREE:
        return circuits, Permit.FREE, None
    probe = Probe(
        host=host.holds if by_host is Permit.PROBE else None,
        endpoint=breaker.holds if by_endpoint is Permit.PROBE else None,
    )
    after = replace(circuits, host=host).changed(source, replace(endpoint, breaker=breaker))
    return after, Permit.PROBE, probe


def let_task_through(circuits: Circuits, source: str, now: float, rule: HostRule) -> Circuits:
    """A task of a source is let through to try what is not closed."""
    if not circuits.is_due(source, now):
        return circuits
    endpoint = circuits.endpoint(source)
    breaker = let_through(endpoint.breaker, now, rule)
    after = replace(circuits, host=let_through(circuits.host, now, rule))
    return after.changed(source, replace(endpoint, breaker=breaker))


def end_probe(
    circuits: Circuits,
    source: str,
    probe: Probe,
    failure: Failure | None,
    active_sources: Collection[str],
    now: float,
    rule: HostRule,
) -> Circuits:
    """A probe has ended.

    Args:
        circuits: The circuits.
        source: Whose request it was.
        probe: What it was let through to try.
        failure: How it failed; None: it was answered in order.
        active_sources: Sources that have tasks under way at the host.
        now: The time.
        rule: The rule.
    """
    after = _host_probed(circuits, probe, failure, now, rule)
    endpoint = after.endpoint(source)
    if probe.endpoint is None:
        if failure is Failure.SICK and after.host.phase is Phase.CLOSED:
            sick = Outcomes(requests=1, errors=1, answered=True)
            return after.changed(source, replace(endpoint, breaker=report(endpoint.breaker, sick, now, rule)))
        return after
    # Another probe may have been answered meanwhile: then it is the endpoint that does not answer.
    by_host = failure is Failure.UNCONNECTED or (
        failure is Failure.SILENT and after.host.phase is not Phase.CLOSED
    )
    if by_host:
        breaker = probe_undecided(endpoint.breaker, holds=probe.endpoint, now=now, rule=rule)
        return after.changed(source, replace(endpoint, breaker=breaker))
    breaker = probe_ended(
        endpoint.breaker, answered=failure is None, holds=probe.endpoint, now=now, rule=rule
    )
    if breaker is endpoint.breaker:  # of an earlier phase
        return after
    unanswered_at = now if failure is Failure.SILENT else None
    after = after.changed(source, EndpointCircuit(breaker=breaker, unanswered_at=unanswered_at))
    return _open_host_if_silent(after, active_sources, now, rule) if failure is Failure.SILENT else after


def _host_probed(
    circuits: Circuits, probe: Probe, failure: Failure | None, now: float, rule: HostRule
) -> Circuits:
    """What a probe says of the host: it answers, if only that it cannot; or it does not."""
    if probe.host is None:
        if failure is not Failure.UNCONNECTED:
            return circuits
        outcome = Outcomes(requests=1, errors=1, in_a_row=1)
        return replace(circuits, host=report(circuits.host, outcome, now, rule))
    answered = failure is None or failure is Failure.SICK
    host = probe_ended(circuits.host, answered=answered, holds=probe.host, now=now, rule=rule)
    if host.phase is not Phase.CLOSED or circuits.host.since is None:
        return replace(circuits, host=host)
    held_since = circuits.host.since
    tried = {name: _made_due(each, held_since, now) for name, each in circuits.endpoints.items()}
    return Circuits(host=host, answered_at=now, endpoints=tried)


def _made_due(endpoint: EndpointCircuit, held_since: float, now: float) -> EndpointCircuit:
    """An endpoint whose host is in order again: due at once, and its patience without the time the host was held."""
    breaker = endpoint.breaker
    if breaker.since is None or breaker.until is None:
        return endpoint
    since = breaker.since + (now - max(breaker.since, held_since))
    until = min(breaker.until, now) if breaker.phase is Phase.OPEN else breaker.until
    return replace(endpoint, breaker=replace(breaker, since=since, until=until))


def _open_host_if_silent(
    circuits: Circuits, active_sources: Collection[str], now: float, rule: HostRule
) -> Circuits:
    """The host's circuit is opened when so many endpoints are silent, and so many of those asked."""
    endpoints = circuits.endpoints.items()
    silent = {name for name, each in endpoints if each.is_silent(circuits.answered_at, now, rule)}
    asked = silent | {name for name, each in endpoints if each.is_asked(now, rule)} | set(active_sources)
    part, whole = SILENT_OF
    if len(silent) < SILENT_ENDPOINTS or len(silent) * whole < part * len(asked):
        return circuits
    return replace(circuits, host=opened(circuits.host, now, rule))
