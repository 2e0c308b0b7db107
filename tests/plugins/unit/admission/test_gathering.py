"""Callers of many threads: each gets its own answer, those who come together share a batch, nobody is left waiting."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from collect_ops.admission.gathering import Gathering

DEADLINE_S = 10


def test_one_caller_alone_is_a_batch_of_one() -> None:
    batches: list[Sequence[int]] = []

    def double(batch: Sequence[int]) -> list[int]:
        batches.append(batch)
        return [2 * each for each in batch]

    gathering = Gathering(double)
    assert [gathering.ask(1), gathering.ask(2)] == [2, 4]
    assert batches == [[1], [2]]


def test_who_comes_while_a_batch_is_under_way_goes_with_the_next() -> None:
    batches: list[list[int]] = []
    began, go_on = threading.Event(), threading.Event()

    def double(batch: Sequence[int]) -> list[int]:
        batches.append(sorted(batch))
        began.set()
        assert go_on.wait(DEADLINE_S)
        return [2 * each for each in batch]

    gathering = Gathering(double)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(gathering.ask, 0)
        assert began.wait(DEADLINE_S)
        others = [pool.submit(gathering.ask, number) for number in range(1, 6)]
        while len(gathering._waiting) < 5:
            threading.Event().wait(0.001)
        go_on.set()
        assert [first.result(DEADLINE_S), *(each.result(DEADLINE_S) for each in others)] == [
            0,
            2,
            4,
            6,
            8,
            10,
        ]
    assert batches == [[0], [1, 2, 3, 4, 5]]


def test_many_callers_each_get_their_own_answer_and_nobody_waits_for_ever() -> None:
    served: list[int] = []

    def double(batch: Sequence[int]) -> list[int]:
        served.extend(batch)
        return [2 * each for each in batch]

    gathering = Gathering(double)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(gathering.ask, range(2000), timeout=60))
    assert answers == [2 * number for number in range(2000)]
    assert sorted(served) == list(range(2000))


def test_a_failure_is_every_callers_of_its_batch_and_the_next_batch_is_served() -> None:
    def divide(batch: Sequence[int]) -> list[int]:
        return [12 // each for each in batch]

    gathering = Gathering(divide)
    with pytest.raises(ZeroDivisionError):
        gathering.ask(0)
    assert gathering.ask(3) == 4
