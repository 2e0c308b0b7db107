"""The breaker as a state machine: whatever is reported in whatever order, it keeps its promises."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from collect_ops.lanes.breaker import (
    Breaker,
    Outcomes,
    Permit,
    Phase,
    Window,
    hold_s,
    let_through,
    permit,
    probe_ended,
    report,
)
from collect_ops.lanes.rules import HostRule

RULES = st.builds(
    HostRule,
    failures=st.integers(1, 6),
    window_s=st.floats(1, 100),
    min_requests=st.integers(1, 30),
    error_rate=st.floats(0.05, 1),
    hold_s=st.floats(0.5, 100),
    factor=st.floats(1, 4),
    max_hold_s=st.floats(1, 1000),
    probes=st.integers(1, 4),
    probe_s=st.floats(1, 100),
)
PASSED = st.floats(0, 500) | st.floats(0, 2)


@st.composite
def outcomes(draw: st.DrawFn) -> Outcomes:
    """What a process may report: its errors in a row are of its errors."""
    requests = draw(st.integers(1, 60))
    errors = draw(st.integers(0, requests))
    answered = draw(st.booleans()) if errors else True
    return Outcomes(
        requests=requests, errors=errors, in_a_row=draw(st.integers(0, errors)), answered=answered
    )


class BreakerMachine(RuleBasedStateMachine):
    """Reports, probes and time, by a model that knows nothing of windows."""

    @initialize(rule=RULES)
    def begin(self, rule: HostRule) -> None:
        self.rule = rule
        self.now = 1_000_000.0
        self.breaker = Breaker()
        self.opened = 0  # openings since it was last closed
        self.probes_out: list[int] = []  # `holds` of probes whose end is not known
        self.probes_of_phase = 0
        self.errors_reported = False

    @rule(passed=PASSED)
    def time_passes(self, passed: float) -> None:
        self.now += passed

    @rule(told=outcomes())
    def outcomes_are_reported(self, told: Outcomes) -> None:
        before = self.breaker
        self.breaker = report(before, told, self.now, self.rule)
        if before.phase is not Phase.CLOSED:
            assert self.breaker == before, "what was under way when it opened changes nothing"
        elif self.breaker.phase is Phase.OPEN:
            assert told.errors > 0, "answers open nothing"
            self._has_opened()

    @rule()
    def a_task_is_let_through(self) -> None:
        before = self.breaker
        self.breaker = let_through(before, self.now, self.rule)
        if before.due(self.now):
            assert self.breaker.phase is Phase.HALF_OPEN
            self.probes_of_phase = 0
        else:
            assert self.breaker == before, "not before its time"

    @rule()
    def a_request_asks(self) -> None:
        before = self.breaker
        self.breaker, given = permit(before, self.now, self.rule)
        match given:
            case Permit.FREE:
                assert before.phase is Phase.CLOSED
            case Permit.PROBE:
                if before.due(self.now):
                    self.probes_of_phase = 0
                self.probes_of_phase += 1
                self.probes_out.append(self.breaker.holds)
                assert self.breaker.phase is Phase.HALF_OPEN
                assert self.probes_of_phase <= self.rule.probes, "a limited number of probes"
            case Permit.REFUSED:
                assert before.phase is Phase.OPEN
                assert before.until is not None
                assert self.now < before.until
            case Permit.WAIT:
                assert before.phase is Phase.HALF_OPEN
                assert before.probes >= self.rule.probes

    @precondition(lambda self: self.probes_out)
    @rule(data=st.data(), answered=st.booleans())
    def a_probe_ends(self, data: st.DataObject, answered: bool) -> None:
        holds = data.draw(st.sampled_from(self.probes_out))
        self.probes_out.remove(holds)
        before = self.breaker
        self.breaker = probe_ended(before, answered=answered, holds=holds, now=self.now, rule=self.rule)
        if before.phase is not Phase.HALF_OPEN or holds != before.holds:
            assert self.breaker == before, "a probe of an earlier phase decides nothing"
        elif answered:
            assert self.breaker == Breaker(), "closed, and its past forgotten"
            self.opened = 0
        else:
            self._has_opened()

    def _has_opened(self) -> None:
        self.opened += 1
        breaker = self.breaker
        assert breaker.phase is Phase.OPEN
        assert breaker.until == self.now + hold_s(self.rule, self.opened)
        assert hold_s(self.rule, self.opened) <= self.rule.max_hold_s

    @invariant()
    def its_fields_belong_together(self) -> None:
        breaker = getattr(self, "breaker", None)
        if breaker is None:
            return
        assert (breaker.phase is Phase.CLOSED) == (breaker.until is None) == (breaker.since is None)
        assert breaker.holds == self.opened
        assert breaker.phase is not Phase.OPEN or breaker.probes == 0

    @invariant()
    def it_never_stays_shut(self) -> None:
        """Whatever became of it: when its time has passed a request is let through, and an answer closes it."""
        breaker = getattr(self, "breaker", None)
        if breaker is None or breaker.phase is Phase.CLOSED:
            return
        assert breaker.until is not None
        later = breaker.until + max(self.rule.max_hold_s, self.rule.probe_s)
        tried, given = permit(breaker, later, self.rule)
        assert given is Permit.PROBE
        closed = probe_ended(tried, answered=True, holds=tried.holds, now=later, rule=self.rule)
        assert closed.phase is Phase.CLOSED


TestBreaker = BreakerMachine.TestCase


@given(
    rule=RULES,
    ended=st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=120),
)
def test_the_window_is_between_what_is_surely_in_it_and_what_may_be(
    rule: HostRule, ended: list[tuple[float, bool]]
) -> None:
    """The estimate of a sliding window counts everything younger than it, and nothing of more than two lengths ago."""
    window, now = Window(), 1_000_000.0
    times: list[float] = []
    for passed, _ in ended:
        now += passed
        window = window.at(now, rule.window_s)
        window = Window(
            since=window.since,
            requests=window.requests + 1,
            requests_before=window.requests_before,
        )
        times.append(now)
    estimated, _ = window.at(now, rule.window_s).estimated(now, rule.window_s)
    assert estimated <= sum(at > now - 2 * rule.window_s - 1e-6 for at in times) + 1e-6
    # What is of the current window counts whole.
    assert estimated >= sum(at >= window.since for at in times) - 1e-6


@given(rule=RULES, good=st.integers(0, 500), bad=st.integers(1, 500))
def test_it_opens_by_rate_exactly_when_the_rule_says(rule: HostRule, good: int, bad: int) -> None:
    told = Outcomes(requests=good + bad, errors=bad, in_a_row=0, answered=True)
    breaker = report(Breaker(), told, 1_000_000.0, rule)
    wanted = good + bad >= rule.min_requests and bad >= rule.error_rate * (good + bad)
    assert (breaker.phase is Phase.OPEN) == wanted


@given(rule=RULES, told=st.lists(st.integers(1, 3), min_size=1, max_size=10))
def test_it_opens_when_so_many_in_a_row_got_no_answer(rule: HostRule, told: list[int]) -> None:
    rule = rule.model_copy(update={"min_requests": 10_000})
    breaker = Breaker()
    for count in told:
        if breaker.phase is Phase.OPEN:
            break
        breaker = report(breaker, Outcomes(requests=count, errors=count, in_a_row=count), 1_000_000.0, rule)
    assert (breaker.phase is Phase.OPEN) == (sum(told) >= rule.failures)


def test_an_answer_starts_the_row_anew() -> None:
    rule = HostRule(failures=3, min_requests=1000)
    breaker = report(Breaker(), Outcomes(requests=2, errors=2, in_a_row=2), 10.0, rule)
    breaker = report(breaker, Outcomes(requests=3, errors=1, in_a_row=1, answered=True), 11.0, rule)
    assert (breaker.phase, breaker.in_a_row) == (Phase.CLOSED, 1)
    assert report(breaker, Outcomes(requests=1, answered=True), 12.0, rule).in_a_row == 0
