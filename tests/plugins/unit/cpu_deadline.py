"""A deadline in processor time: what hangs fails, and a busy machine does not make others fail."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ends_within(cpu_s: float) -> Iterator[None]:
    """Fail what takes more processor time than this; in the main thread."""

    def give_up(signum: int, frame: FrameType | None) -> None:
        # Not an error that the code under test catches and reports.
        raise BaseExceptionGroup(f"no end after {cpu_s} s of processor time", [KeyboardInterrupt()])

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
