"""Measuring: rounds that take turns, medians, memory of process trees."""

from __future__ import annotations

import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeAlias

import psutil
from rich.console import Console

from benchmarks.errors import PeerFailed

MEMORY_POLL_S: Final = 0.25
MIB: Final = 1024 * 1024

#: What one run of a contender gives: at least `seconds`.
Sample: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Something that does the job.

    Attributes:
        name: what tables call it.
        run: does the job once, on empty tables, and gives its figures.
        trees: the process ids whose descendants do the job; the run itself starts them when empty.
    """

    name: str
    run: Callable[[], Sample]
    trees: Callable[[], Sequence[int]] = field(default=lambda: ())


@dataclass(slots=True)
class Stopwatch:
    """Measures a block: `with Stopwatch() as watch: …`, then `watch.seconds`."""

    seconds: float = 0.0
    _began: float = 0.0

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began


@dataclass(slots=True)
class MemoryPeak:
    """The largest memory seen.

    Attributes:
        total_bytes: unique memory (USS) of all watched processes together.
        process_bytes: unique memory of the largest single process.
        resident_bytes: resident memory (RSS, what is shared counted again and again) of all together.
    """

    total_bytes: int = 0
    process_bytes: int = 0
    resident_bytes: int = 0

    def see(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Take in one look at all processes: (USS, RSS) of each."""
        self.total_bytes = max(self.total_bytes, sum(uss for uss, _ in sizes))
        self.process_bytes = max(self.process_bytes, max((uss for uss, _ in sizes), default=0))
        self.resident_bytes = max(self.resident_bytes, sum(rss for _, rss in sizes))

    def as_sample(self) -> Sample:
        """The figures in MiB."""
        return {
            "peak_total_mib": round(self.total_bytes / MIB, 1),
            "peak_process_mib": round(self.process_bytes / MIB, 1),
            "peak_resident_mib": round(self.resident_bytes / MIB, 1),
        }


def rounds(
    contenders: Sequence[Contender], count: int, console: Console, counted: str | None = None
) -> dict[str, list[Sample]]:
    """Let the contenders take turns `count` times (A B C A B C …), so that a slow minute hits all of them.

    Args:
        contenders: who takes turns.
        count: how often.
        console: where progress is shown.
        counted: the figure of a sample that counts what was done, where contenders do not do equally much.

    Returns:
        The samples of each contender, in order.
    """
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for number in range(1, count + 1):
        for contender in contenders:
            sample = contender.run()
            samples[contender.name].append(sample)
            speed = f"  {sample[counted] / sample['seconds']:10,.0f} /s" if counted else ""
            console.print(
                f"  round {number}/{count}  {contender.name:<34} {sample['seconds']:8.2f} s{speed}",
                highlight=False,
            )
    return samples


def memory_round(contenders: Sequence[Contender], console: Console) -> dict[str, Sample]:
    """One more turn of each with its memory watched; a round of its own because looking costs time."""
    peaks: dict[str, Sample] = {}
    for contender in contenders:
        with watch_memory(contender.trees) as peak:
            contender.run()
        if not peak.total_bytes:
            reason = "its processes were not seen: was the stack restarted in the middle?"
            raise PeerFailed(peer=contender.name, reason=reason)
        peaks[contender.name] = peak.as_sample()
        console.print(f"  memory     {contender.name:<34} {peak.total_bytes / MIB:8.0f} MiB")
    return peaks


@contextmanager
def watch_memory(trees: Callable[[], Sequence[int]]) -> Iterator[MemoryPeak]:
    """Watch, for the length of the block, the descendants of `trees()`; of this process when that is empty.

    What the processes held when the block began is not counted: a descendant that was there before and is
    there still belongs to the surroundings.
    """
    peak = MemoryPeak()
    done = threading.Event()
    roots = list(trees()) or [os.getpid()]
    before = {process.pid for process in _descendants(roots)}

    def look() -> None:
        while not done.wait(MEMORY_POLL_S):
            peak.see(list(_sizes(roots, before)))

    thread = threading.Thread(target=look, name="memory")
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _descendants(roots: Sequence[int]) -> Iterator[psutil.Process]:
    for root in roots:
        try:
            yield from psutil.Process(root).children(recursive=True)
        except psutil.NoSuchProcess:  # ended between two looks: nothing to count
            continue


def _sizes(roots: Sequence[int], apart_from: set[int]) -> Iterator[tuple[int, int]]:
    for process in _descendants(roots):
        if process.pid in apart_from:
            continue
        try:
            memory = process.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        yield memory.uss, memory.rss


def median(samples: Sequence[Sample], key: str = "seconds") -> float:
    """The median of one figure over the rounds."""
    return float(statistics.median(sample[key] for sample in samples))


def circumstances() -> dict[str, Any]:
    """Where and when: what somebody needs to compare the figures with their own."""
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processors": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "kernel": platform.release().split("-")[0],
    }
