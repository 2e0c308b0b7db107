"""Outcomes of requests that were not reported yet."""

from __future__ import annotations

import time
from collections import deque

from collect_ops.lanes.breaker import Outcomes


class Tally:
    """Counts what became of requests until it is reported.

    Answers are those of the last window, which are the other half of an error rate.

    Args:
        window_s: Length of the window, in seconds.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._seconds: deque[tuple[int, int]] = deque()
        self._in_a_row = 0
        self.errors = 0
        self.has_answer = False

    def add_answer(self) -> None:
        """A request was answered."""
        self._in_a_row, self.has_answer = 0, True
        second = int(time.monotonic())
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1] = (second, self._seconds[-1][1] + 1)
        else:
            self._seconds.append((second, 1))
            self._forget(second)

    def add_error(self, *, unanswered: bool) -> None:
        """A request failed; an answer that says so starts the row of unanswered ones anew."""
        self.errors += 1
        if unanswered:
            self._in_a_row += 1
        else:
            self._in_a_row, self.has_answer = 0, True

    def take(self) -> Outcomes:
        """What is to be reported; the count begins anew."""
        self._forget(int(time.monotonic()))
        answers = sum(count for _, count in self._seconds)
        taken = Outcomes(
            requests=answers + self.errors,
            errors=self.errors,
            in_a_row=self._in_a_row,
            answered=self.has_answer,
        )
        self._seconds.clear()
        self.errors, self._in_a_row, self.has_answer = 0, 0, False
        return taken

    def _forget(self, now: int) -> None:
        while self._seconds and self._seconds[0][0] < now - self._window_s:
            self._seconds.popleft()
