"""Whether a service that is not healthy yet gets on with its start: a slow machine is no broken one."""

from __future__ import annotations

import psutil

#: Without progress for so long, a start counts as stuck.
STALLED_S = 60.0
#: Processor time that counts as progress: less is what an idle process takes.
STEP_S = 1.0


def cpu_s(pid: int) -> float:
    """Processor time that a process and its children have taken; 0 when there is none."""
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

    A service that ends and begins anew makes progress when it gets further than it ever did.

    Args:
        began: When the wait began.
        patience_s: Seconds that a start may take whatever it does.
        longest_s: Seconds that it may take while it makes progress.
    """

    def __init__(self, began: float, patience_s: float, longest_s: float) -> None:
        self.began = began
        self._patience_s, self._longest_s = patience_s, longest_s
        self._furthest_s, self._progress_at = 0.0, began

    def note(self, cpu_s: float, now: float) -> None:
        """Take in how much processor time the start has taken."""
        if cpu_s >= self._furthest_s + STEP_S:
            self._furthest_s, self._progress_at = cpu_s, now

    def is_over(self, now: float) -> bool:
        """Whether to give up."""
        waited_s = now - self.began
        if waited_s <= self._patience_s:
            return False
        return waited_s > self._longest_s or now - self._progress_at > STALLED_S
