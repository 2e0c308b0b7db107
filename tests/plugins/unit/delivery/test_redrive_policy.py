"""At a rate: how many letters a step may take, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.delivery.redrive import BATCH, BURST_S, allowance, refusal

RATES = st.floats(0.01, 10_000)


@given(RATES, st.lists(st.floats(0, 600), min_size=1, max_size=60))
def test_no_more_than_the_rate_ever(rate: float, pauses: list[float]) -> None:
    credit, taken = 1.0, 0
    for pause in pauses:
        allowed = allowance(rate, pause, credit)
        assert 0 <= allowed.letters <= min(BATCH, max(1.0, rate * BURST_S))
        assert allowed.credit >= 0
        credit, taken = allowed.credit, taken + allowed.letters
    assert taken <= 1 + rate * sum(pauses) + 1e-6 * len(pauses) * rate + 1e-6


@given(RATES)
def test_the_rate_is_reached_by_many_small_steps(rate: float) -> None:
    credit, taken, seconds = 0.0, 0, 100.0
    steps = int(min(5000, max(200, rate * seconds / BATCH * 4)))
    for _ in range(steps):
        allowed = allowance(rate, seconds / steps, credit)
        credit, taken = allowed.credit, taken + allowed.letters
    assert taken >= int(rate * seconds) - 2


def test_a_clock_that_goes_back_costs_nothing() -> None:
    assert allowance(5, -100, 0.5).letters == 0
    assert allowance(5, -100, 2.5).letters == 2


def test_without_a_rate_a_step_is_a_batch() -> None:
    assert allowance(None, 0, 0).letters == BATCH


def letter(**fields: Any) -> dict[str, Any]:
    return {
        "state": "OPEN", "task_id": None, "send_exchange": "x", "edited": False, "body_bytes": 3, "kept_bytes": 3,
        **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given_letter", "task", "words"),
    [
        (letter(state="DISCARDED"), None, "is DISCARDED"),
        (letter(task_id=7), None, "task is gone"),
        (letter(send_exchange=None), None, "edit its exchange"),
        (letter(body_bytes=9), None, "only 3 of its 9 bytes"),
        (letter(task_id=7), {"id": 7, "status": "QUEUED", "merged_into": None}, "task 7 is QUEUED"),
        (letter(task_id=7), {"id": 7, "status": "DEAD", "merged_into": 3}, "redrive that one"),
    ],
)
def test_what_is_not_sent_says_why(
    given_letter: dict[str, Any], task: dict[str, Any] | None, words: str
) -> None:
    assert words in (refusal(given_letter, task) or "")


def test_what_is_sent() -> None:
    assert refusal(letter(), None) is None
    assert refusal(letter(body_bytes=9, edited=True), None) is None
    assert refusal(letter(task_id=7), {"id": 7, "status": "DEAD", "merged_into": None}) is None
