"""Two things at once: both are done when the block ends, and no failure is lost."""

from __future__ import annotations

import threading

import pytest

from collect_ops.kernel.beside import beside

DEADLINE_S = 10


def test_the_block_and_the_work_go_on_at_the_same_time() -> None:
    here, there = threading.Event(), threading.Event()

    def work() -> None:
        there.set()
        assert here.wait(DEADLINE_S)

    with beside(work):
        assert there.wait(DEADLINE_S)
        here.set()


def test_the_block_ends_when_the_work_has() -> None:
    done: list[str] = []
    go = threading.Event()

    def work() -> None:
        assert go.wait(DEADLINE_S)
        done.append("work")

    with beside(work):
        threading.Timer(0.05, go.set).start()
    assert done == ["work"]


def test_a_failure_of_the_work_is_raised_at_the_end() -> None:
    done = []
    with pytest.raises(ZeroDivisionError), beside(lambda: print(1 // 0)):
        done.append("block")
    assert done == ["block"]


def test_a_failure_of_the_block_comes_first() -> None:
    with pytest.raises(KeyError), beside(lambda: print(1 // 0)):
        raise KeyError
