"""The circuits of a host and its endpoints: whatever is reported in whatever order, they keep their promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from collect_ops.lanes.breaker import Breaker, Outcomes, Permit, Phase
from collect_ops.lanes.circuits import (
    Circuits,
    EndpointCircuit,
    EndpointReport,
    Failure,
    Probe,
    apply_report,
    end_probe,
    grant_permit,
    let_task_through,
)
from collect_ops.lanes.rules import HostRule

SOURCES = ("a", "b", "c", "d")
RULES = st.builds(
    HostRule,
    failures=st.integers(1, 4),
    window_s=st.floats(1, 100),
    min_requests=st.integers(1, 30),
    error_rate=st.floats(0.05, 1),
    hold_s=st.floats(0.5, 100),
    factor=st.floats(1, 4),
    max_hold_s=st.floats(1, 1000),
    probes=st.integers(1, 3),
    probe_s=st.floats(1, 100),
)
PASSED = st.floats(0, 500) | st.floats(0, 2)
FAILURES = st.sampled_from([None, *Failure])


def told(failure: Failure | None, count: int = 1) -> EndpointReport:
    """So many requests that ended in the same way."""
    none = Outcomes(requests=0)
    in_vain = Outcomes(requests=count, errors=count, in_a_row=count)
    answered = Outcomes(requests=count, answered=True)
    match failure:
        case None:
            return EndpointReport(endpoint=answered, host=answered)
        case Failure.UNCONNECTED:
            return EndpointReport(endpoint=none, host=in_vain)
        case Failure.SILENT:
            return EndpointReport(endpoint=in_vain, host=none, silent=True)
        case Failure.SICK:
            sick = Outcomes(requests=count, errors=count, answered=True)
            return EndpointReport(endpoint=sick, host=answered)


class CircuitsMachine(RuleBasedStateMachine):
    """Requests of four sources, told one by one, with time between; checked after each step."""

    @initialize(rule=RULES)
    def begin(self, rule: HostRule) -> None:
        self.rule = rule
        self.now = 1_000_000.0
        self.circuits = Circuits()
        self.probes: list[tuple[str, Probe]] = []

    @rule(passed=PASSED)
    def time_passes(self, passed: float) -> None:
        self.now += passed

    @rule(
        source=st.sampled_from(SOURCES),
        failure=FAILURES,
        count=st.integers(1, 5),
        asking=st.sets(st.sampled_from(SOURCES)),
    )
    def requests_end(self, source: str, failure: Failure | None, count: int, asking: set[str]) -> None:
        before = self.circuits
        self.circuits = apply_report(before, source, told(failure, count), asking, self.now, self.rule)
        self._only_these_changed(before, source)
        if before.host.phase is not Phase.CLOSED:
            assert self.circuits == before, "what was under way when the host's opened changes nothing"
        if failure is None:
            assert self._open() <= self._open_of(before), "answers open nothing"
        if self.circuits.host.phase is not before.host.phase:
            assert failure in (Failure.UNCONNECTED, Failure.SILENT)
            if failure is Failure.SILENT:
                self._opened_by_many(asking)
        if failure is Failure.UNCONNECTED:
            assert self.circuits.endpoints == before.endpoints, "no connection is no endpoint's fault"

    @rule(source=st.sampled_from(SOURCES))
    def a_task_is_let_through(self, source: str) -> None:
        before = self.circuits
        self.circuits = let_task_through(before, source, self.now, self.rule)
        self._only_these_changed(before, source)
        assert (self.circuits != before) == before.is_due(source, self.now)

    @rule(source=st.sampled_from(SOURCES))
    def a_request_asks(self, source: str) -> None:
        before = self.circuits
        self.circuits, permit, probe = grant_permit(before, source, self.now, self.rule)
        self._only_these_changed(before, source)
        assert (permit is Permit.FREE) == before.is_closed(source)
        assert (permit is Permit.REFUSED) <= before.is_refused(source, self.now)
        assert (permit is Permit.PROBE) == (probe is not None)
        if permit is Permit.PROBE and probe is not None:
            assert (probe.host is not None) == (before.host.phase is not Phase.CLOSED)
            self.probes.append((source, probe))
        else:
            assert self.circuits == before, "who is not let through takes nobody's place"

    @precondition(lambda self: self.probes)
    @rule(data=st.data(), failure=FAILURES, asking=st.sets(st.sampled_from(SOURCES)))
    def a_probe_ends(self, data: st.DataObject, failure: Failure | None, asking: set[str]) -> None:
        source, probe = self.probes.pop(data.draw(st.integers(0, len(self.probes) - 1)))
        before = self.circuits
        after = self.circuits = end_probe(before, source, probe, failure, asking, self.now, self.rule)
        host, endpoint = before.host, before.endpoint(source).breaker
        of_host = host.phase is Phase.HALF_OPEN and probe.host == host.holds
        of_endpoint = endpoint.phase is Phase.HALF_OPEN and probe.endpoint == endpoint.holds
        if of_host:
            answers = failure in (None, Failure.SICK)
            assert (after.host.phase is Phase.CLOSED) == answers
            if answers:
                assert all(
                    each.breaker.phase is not Phase.OPEN or name == source or each.breaker.due(self.now)
                    for name, each in after.endpoints.items()
                ), "what waited for the host is tried at once"
        elif probe.host is None and failure is not Failure.UNCONNECTED and host.phase is not Phase.CLOSED:
            assert after.host == host
        if of_endpoint and failure is None:
            assert after.endpoint(source) == EndpointCircuit(), "closed, and its past forgotten"
        elif of_endpoint and (
            failure is Failure.UNCONNECTED
            or (failure is Failure.SILENT and after.endpoint(source).breaker.holds == endpoint.holds)
        ):
            assert failure is Failure.UNCONNECTED or after.host.phase is not Phase.CLOSED
            assert after.endpoint(source).breaker.holds == endpoint.holds, (
                "the host's fault is none of its own"
            )
        elif of_endpoint:
            assert after.endpoint(source).breaker.holds == endpoint.holds + 1
        if host.phase is Phase.CLOSED and after.host.phase is Phase.OPEN and failure is Failure.SILENT:
            self._opened_by_many(asking)

    def _open(self) -> set[str | None]:
        return self._open_of(self.circuits)

    def _open_of(self, circuits: Circuits) -> set[str | None]:
        held: set[str | None] = {
            name for name, each in circuits.endpoints.items() if each.breaker.phase is Phase.OPEN
        }
        return held | ({None} if circuits.host.phase is Phase.OPEN else set())

    def _opened_by_many(self, asking: set[str]) -> None:
        """Three endpoints at least, and two thirds of all that may have been asked, without an answer."""
        endpoints = self.circuits.endpoints
        silent = {name for name, each in endpoints.items() if each.unanswered_at is not None}
        assert len(silent) >= 3
        assert 3 * len(silent) >= 2 * len(silent | asking)

    def _only_these_changed(self, before: Circuits, source: str) -> None:
        others = set(SOURCES) - {source}
        assert all(self.circuits.endpoint(each) == before.endpoint(each) for each in others)

    @invariant()
    def fields_belong_together(self) -> None:
        circuits = getattr(self, "circuits", None)
        if circuits is None:
            return
        for breaker in (circuits.host, *(each.breaker for each in circuits.endpoints.values())):
            assert (breaker.phase is Phase.CLOSED) == (breaker.until is None) == (breaker.since is None)
            assert breaker.since is None or breaker.since <= self.now + 1e-6

    @invariant()
    def nothing_stays_shut(self) -> None:
        """Once its time has passed a request of any source is let through, and answers close all that held it."""
        circuits = getattr(self, "circuits", None)
        if circuits is None:
            return
        later = self.now + 2 * max(self.rule.max_hold_s, self.rule.probe_s)
        for source in SOURCES:
            tried, permit, probe = grant_permit(circuits, source, later, self.rule)
            if permit is Permit.FREE:
                continue
            assert permit is Permit.PROBE
            assert probe is not None
            assert end_probe(tried, source, probe, None, (), later, self.rule).is_closed(source)


TestCircuits = CircuitsMachine.TestCase

RULE = HostRule(failures=2, window_s=60, min_requests=1000, hold_s=30, probe_s=60)
NOW = 1_000_000.0


def after(*steps: tuple[str, Failure | None], asking: set[str] | None = None) -> Circuits:
    """Circuits after requests, two at a time."""
    circuits = Circuits()
    for source, failure in steps:
        circuits = apply_report(circuits, source, told(failure, 2), asking or set(), NOW, RULE)
    return circuits


SILENT, SICK, UNCONNECTED = Failure.SILENT, Failure.SICK, Failure.UNCONNECTED


@pytest.mark.parametrize(
    ("steps", "asking", "opens"),
    [
        ([("a", SILENT)], (), False),
        ([("a", SILENT), ("b", SILENT)], (), False),
        ([("a", SILENT), ("b", SILENT), ("c", SILENT)], (), True),
        ([("d", None), ("a", SILENT), ("b", SILENT), ("c", SILENT)], (), True),
        ([("d", None), ("e", None), ("a", SILENT), ("b", SILENT), ("c", SILENT)], (), False),
        ([("a", SILENT), ("b", SILENT), ("c", SILENT)], ("a", "d"), True),
        ([("a", SILENT), ("b", SILENT), ("c", SILENT)], ("d", "e"), False),
        ([("a", SICK), ("b", SILENT), ("c", SILENT)], (), False),
        ([("a", UNCONNECTED)], (), True),
        ([("a", SICK)] * 40, (), False),
    ],
)
def test_a_host_s_circuit_opens_by_what_it_is_at_fault_for(
    steps: list[tuple[str, Failure | None]], asking: tuple[str, ...], opens: bool
) -> None:
    circuits = after(*steps, asking=set(asking))
    assert (circuits.host.phase is Phase.OPEN) == opens


def test_an_endpoint_that_fails_holds_no_other() -> None:
    circuits = after(("a", SILENT))
    assert circuits.is_refused("a", NOW)
    assert circuits.is_closed("b")


def test_a_failed_endpoint_of_long_ago_does_not_help_to_open_its_host() -> None:
    circuits = after(("a", SILENT), ("b", SILENT))
    later = NOW + RULE.hold_s + RULE.probe_s + RULE.window_s + 1
    circuits = apply_report(circuits, "c", told(SILENT, 2), (), later, RULE)
    assert circuits.endpoint("c").breaker.phase is Phase.OPEN
    assert circuits.host.phase is Phase.CLOSED


def test_a_host_that_answers_a_probe_has_its_endpoints_tried_at_once_and_their_patience_spared() -> None:
    circuits = after(("a", SILENT), ("b", SILENT), ("c", SILENT))
    held = circuits.host.until
    assert held is not None
    circuits, permit, probe = grant_permit(circuits, "d", held, RULE)
    assert (permit, probe) == (Permit.PROBE, Probe(host=1))
    circuits = end_probe(circuits, "d", Probe(host=1), None, (), held + 10, RULE)
    assert circuits.host == Breaker()
    assert circuits.answered_at == held + 10
    endpoint = circuits.endpoint("a").breaker
    assert endpoint.due(held + 10)
    assert endpoint.since == held + 10, "all the time since it failed its host was held"
    # What failed before says nothing of the host any more; what fails from now on does.
    for number, source in enumerate(("a", "b", "c")):
        assert circuits.host.phase is Phase.CLOSED, number
        circuits, _, tried = grant_permit(circuits, source, held + 20, RULE)
        assert tried is not None
        circuits = end_probe(circuits, source, tried, SILENT, (), held + 20, RULE)
    assert circuits.host.phase is Phase.OPEN


def test_a_place_to_try_the_host_is_not_taken_by_an_endpoint_that_is_held() -> None:
    circuits = after(("a", SILENT), ("a", UNCONNECTED))
    held = circuits.host.until
    assert held is not None
    endpoint = circuits.endpoint("a")
    longer = replace(endpoint, breaker=replace(endpoint.breaker, until=held + 100))
    circuits = circuits.changed("a", longer)
    assert grant_permit(circuits, "a", held, RULE) == (circuits, Permit.REFUSED, None)
    assert not circuits.is_due("a", held)
    _, permit, probe = grant_permit(circuits, "b", held, RULE)
    assert (permit, probe) == (Permit.PROBE, Probe(host=1))


@given(failure=st.sampled_from([UNCONNECTED, SILENT]))
def test_a_probe_that_finds_the_host_dead_is_not_held_against_its_endpoint(failure: Failure) -> None:
    circuits = after(("a", SILENT), ("b", UNCONNECTED))
    held = circuits.host.until
    assert held is not None
    circuits, _, probe = grant_permit(circuits, "a", held, RULE)
    assert probe == Probe(host=1, endpoint=1)
    circuits = end_probe(circuits, "a", probe, failure, (), held, RULE)
    assert circuits.host.holds == 2
    endpoint = circuits.endpoint("a").breaker
    assert (endpoint.phase, endpoint.holds) == (Phase.OPEN, 1)


def test_a_probe_that_fails_after_another_was_answered_is_its_endpoint_s_fault() -> None:
    rule = RULE.model_copy(update={"probes": 2})
    circuits = after(("a", SILENT), ("b", UNCONNECTED))
    held = circuits.host.until
    assert held is not None
    circuits, _, of_b = grant_permit(circuits, "b", held, rule)
    circuits, _, of_a = grant_permit(circuits, "a", held, rule)
    assert (of_b, of_a) == (Probe(host=1), Probe(host=1, endpoint=1))
    circuits = end_probe(circuits, "b", Probe(host=1), None, (), held, rule)
    circuits = end_probe(circuits, "a", Probe(host=1, endpoint=1), SILENT, (), held, rule)
    assert circuits.host.phase is Phase.CLOSED
    assert circuits.endpoint("a").breaker.holds == 2
