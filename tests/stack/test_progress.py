"""A slow start gets more time for as long as it gets on; one that is stuck, or ends again and again, does not."""

from __future__ import annotations

import os
import subprocess

from stack import progress
from stack.progress import STALLED_S, Deadline


def over_at(cpu_per_s: float, *, restarts_after_s: int = 10_000) -> int:
    """The second at which a start is given up that takes so much processor time a second."""
    deadline = Deadline(0.0, 240.0, 1200.0)
    for now in range(10_000):
        deadline.note(now % restarts_after_s * cpu_per_s, float(now))
        if deadline.is_over(float(now)):
            return now
    raise AssertionError("never given up")


def test_a_start_that_is_stuck_has_its_time_and_no_more() -> None:
    assert over_at(0.0) == 241


def test_one_that_gets_on_is_waited_for_but_not_for_ever() -> None:
    assert over_at(0.05) == 1201
    assert over_at(2.0) == 1201


def test_an_idle_process_makes_no_progress() -> None:
    assert over_at(0.5 / STALLED_S) <= 301


def test_one_that_ends_and_begins_anew_gets_nowhere() -> None:
    assert over_at(0.5, restarts_after_s=10) == 241


def test_the_progress_of_a_real_process() -> None:
    used = progress.cpu_s(os.getpid())
    assert used > 0
    with subprocess.Popen(["sleep", "0"]) as ended:
        ended.wait()
    assert progress.cpu_s(ended.pid) == progress.cpu_s(0) == 0.0
