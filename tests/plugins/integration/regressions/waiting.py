"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], what: str, *, deadline_s: float = 20.0) -> None:
    """Wait until a condition holds.

    Args:
        condition: Asked every 20 ms.
        what: It, in words, for the failure.
        deadline_s: How long to wait at most, in seconds.

    Raises:
        TimeoutError: It does not hold.
    """
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {deadline_s:g} s: {what}")
        time.sleep(0.02)
