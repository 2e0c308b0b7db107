"""The formula of priorities, and the promise that nothing starves."""

from __future__ import annotations

import heapq
import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.kernel.rules_file import load_rules
from collect_ops.lanes.priority import (
    EVALUATED_EVERY_S,
    PriorityRules,
    priority_of,
    priority_rules,
    seconds_until_highest,
    starvation_bound_s,
)
from collect_ops.lanes.rules import lane_rules
from collect_ops.sources.priority_formula import PriorityFormula
from tests.factories import source

HOUR_S = 3600.0
bases = st.integers(0, 10)
retries = st.integers(0, 20)
waits = st.floats(0, 100 * HOUR_S)


def of(
    base: int = 5, *, emergency: bool = False, retry_count: int = 0, waited_s: float = 0, pinned: bool = False
) -> int:
    return priority_of(
        priority_rules(), base, emergency=emergency, retry_count=retry_count, waited_s=waited_s, pinned=pinned
    )


def test_the_formula_as_shipped() -> None:
    assert priority_rules().base == 5
    assert of() == 5
    assert of(emergency=True) == 8
    assert [of(retry_count=count) for count in range(5)] == [5, 6, 7, 7, 7]
    assert [of(waited_s=wait) for wait in (0, HOUR_S, HOUR_S + 1, 2 * HOUR_S, 2 * HOUR_S + 1)] == [
        5,
        5,
        6,
        6,
        7,
    ]
    assert of(emergency=True, retry_count=2, waited_s=HOUR_S + 1) == 10
    assert of(10, emergency=True) == 10
    assert of(2, emergency=True, retry_count=3, waited_s=HOUR_S + 1, pinned=True) == 3


@given(base=bases, emergency=st.booleans(), retry_count=retries, waited_s=waits, pinned=st.booleans())
def test_priorities_stay_in_range_and_nothing_lowers_them(
    base: int, emergency: bool, retry_count: int, waited_s: float, pinned: bool
) -> None:
    now = of(base, emergency=emergency, retry_count=retry_count, waited_s=waited_s, pinned=pinned)
    assert base <= now <= 10
    assert now <= of(
        base, emergency=emergency, retry_count=retry_count, waited_s=waited_s + 600, pinned=pinned
    )
    assert now <= of(base, emergency=True, retry_count=retry_count + 1, waited_s=waited_s, pinned=pinned)
    if base < 10:
        assert now <= of(
            base + 1, emergency=emergency, retry_count=retry_count, waited_s=waited_s, pinned=pinned
        )


@given(base=bases)
def test_a_task_has_the_highest_priority_when_the_rules_say_and_not_before(base: int) -> None:
    after_s = seconds_until_highest(priority_rules(), base)
    assert of(base, waited_s=after_s + 1) == 10
    if base < 10:
        assert of(base, waited_s=after_s) == 9


def test_a_source_sets_parts_of_it() -> None:
    declared = source(priority_formula={"emergency": 5, "ageing": {"boost": 0}})
    formula = priority_rules().for_source(declared.priority_formula)
    assert (formula.emergency, formula.ageing.boost, formula.retry) == (5, 0, priority_rules().retry)
    assert math.isinf(seconds_until_highest(formula, 0))
    assert priority_rules().for_source(None) is priority_rules()
    with pytest.raises(ValueError, match="less than or equal to 10"):
        PriorityFormula.model_validate({"emergency": 11})


def test_a_file_with_faults_is_refused_with_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "priority.yaml"
    path.write_text("base: 12\nemergency: 3\nretry: {boost: 1, most: 2}\nageing: {every_s: 0}\nboost: 1\n")
    with pytest.raises(ValidationFailed) as refused:
        load_rules(path, PriorityRules)
    assert {fault.field for fault in refused.value.faults} == {"base", "ageing.every_s", "boost"}


def simulated_start_s(formula: PriorityRules, *, most_s: float, service_s: float, slots: int) -> float | None:
    """When a task of priority 0 starts in a lane into which urgent work comes as fast as it is served, or faster.

    The worst case: one lane for all, no slots of its own. The queue serves the highest priority first, and within one
    the first to come; a change of priority puts a task at the end of its new priority, as a new message does.
    Priorities are evaluated once in `EVALUATED_EVERY_S`.
    """
    number = itertools.count()
    queue: list[tuple[int, int, str]] = []
    ours = priority_of(formula, 0, emergency=False, retry_count=0, waited_s=0)
    heapq.heappush(queue, (-ours, next(number), "ours"))
    now, next_pass, free_at = 0.0, EVALUATED_EVERY_S, [0.0] * slots
    while now < most_s:
        # As many urgent tasks as are served come in, just before anything is taken.
        for _ in range(slots):
            heapq.heappush(queue, (-10, next(number), "urgent"))
        if now >= next_pass:
            next_pass += EVALUATED_EVERY_S
            aged = priority_of(formula, 0, emergency=False, retry_count=0, waited_s=now)
            if aged > ours:
                ours = aged
                heapq.heappush(queue, (-ours, next(number), "ours"))  # the old message is stale
        for slot in range(slots):
            while queue and free_at[slot] <= now:
                priority, _, which = heapq.heappop(queue)
                if which == "ours" and -priority == ours:
                    return now
                if which == "urgent":
                    free_at[slot] = now + service_s
        now += service_s
    return None


@pytest.mark.parametrize(("service_s", "slots"), [(10.0, 1), (60.0, 4)])
def test_a_task_of_priority_0_starts_in_time_under_urgent_load_that_never_ends(
    service_s: float, slots: int
) -> None:
    bound_s = starvation_bound_s(priority_rules(), 0, ahead=slots, starts_per_s=slots / service_s)
    started_s = simulated_start_s(priority_rules(), most_s=2 * bound_s, service_s=service_s, slots=slots)
    assert started_s is not None
    assert 9 * HOUR_S < started_s <= bound_s + service_s


def test_without_ageing_it_starves() -> None:
    still = priority_rules().for_source(PriorityFormula.model_validate({"ageing": {"boost": 0}}))
    assert simulated_start_s(still, most_s=20 * HOUR_S, service_s=30.0, slots=2) is None
    assert math.isinf(starvation_bound_s(still, 0, ahead=2, starts_per_s=1))


def test_as_shipped_bulk_work_does_not_even_wait_for_that() -> None:
    """Lanes have slots of their own: urgent work cannot take those of bulk."""
    rules = lane_rules()
    assert rules.lane_of(0) != rules.lane_of(10)
    assert rules.lanes[rules.lane_of(0)].slots >= 1
