"""Whether a service that is not healthy yet gets on with its start: a slow machine is no broken one."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from stack.layout import Layout

#: Without progress for so long, a start counts as stuck.
STALLED_S = 60.0
#: Processor time that counts as progress: less is what an idle process takes.
STEP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a start has come.

    Args:
        pid: The process; another one is another start.
        cpu_s: Processor time that it and its children have taken.
        log_bytes: Size of its log.
    """

    pid: int
    cpu_s: float
    log_bytes: int

    def beyond(self, before: Progress) -> bool:
        """Whether this is further than before, in the same start: one that ends and begins anew gets nowhere."""
        if self.pid != before.pid or not self.pid:
            return False
        return self.cpu_s >= before.cpu_s + STEP_S or self.log_bytes > before.log_bytes


def of(layout: Layout, name: str, pid: int) -> Progress:
    """How far the start of a service has come."""
    log = layout.logs / f"{name}.log"
    return Progress(pid=pid, cpu_s=_cpu_s(pid), log_bytes=log.stat().st_size if log.exists() else 0)


def _cpu_s(pid: int) -> float:
    if not pid:
        return 0.0
    try:
        process = psutil.Process(pid)
        return sum(_own_cpu_s(each) for each in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0.0


def _own_cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


class Deadline:
    """When a start has taken too long: after its time, once it makes no progress any more. Pure: times come in.

    Args:
        began: When the wait began.
        patience_s: Seconds that a start may take whatever it does.
        longest_s: Seconds that it may take while it makes progress.
    """

    def __init__(self, began: float, patience_s: float, longest_s: float) -> None:
        self.began = began
        self._patience_s, self._longest_s = patience_s, longest_s
        self._furthest: Progress | None = None
        self._progress_at = began

    def note(self, progress: Progress, now: float) -> None:
        """Take in how far the start is."""
        if self._furthest is None or progress.pid != self._furthest.pid:
            self._furthest = progress
        elif progress.beyond(self._furthest):
            self._furthest, self._progress_at = progress, now

    def is_over(self, now: float) -> bool:
        """Whether to give up."""
        waited_s = now - self.began
        if waited_s <= self._patience_s:
            return False
        return waited_s > self._longest_s or now - self._progress_at > STALLED_S
