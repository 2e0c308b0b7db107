"""Worker pools in processes of their own, forked from one process that has imported everything they need.

The pools share the memory of what was imported, start again in a second when one of them dies, and cannot hold up each
other: a frozen pool leaves the others as they are.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import psutil

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
#: A pool that lived this long is started again at once.
_SOON_S = 10.0
_LONGEST_PAUSE_S = 10.0
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool of worker processes.

    Args:
        name: Unique on this machine.
        queues: Comma-separated.
        concurrency: Tasks at once.
    """

    name: str
    queues: str
    concurrency: int

    @classmethod
    def parse(cls, text: str) -> Pool:
        """From `NAME:CONCURRENCY:QUEUE,QUEUE`.

        Raises:
            ValueError: The text has another form.
        """
        name, concurrency, queues = [*text.split(":"), "", ""][:3]
        if not name or not queues or not concurrency.isdecimal() or int(concurrency) < 1:
            raise ValueError(f"pool: {text!r} cannot be used; allowed: NAME:CONCURRENCY:QUEUE,QUEUE")
        return cls(name=name, queues=queues, concurrency=int(concurrency))

    def __str__(self) -> str:
        return f"{self.name}:{self.concurrency}:{self.queues}"


class ForkedPools:
    """Keeps one process a pool running until SIGTERM, then lets what runs end.

    Args:
        pools: The pools.
        serve: What a pool's process does; returns its exit status.
        grace_s: Seconds between SIGTERM and killing what still runs.
    """

    def __init__(self, pools: Sequence[Pool], serve: Callable[[Pool], int], *, grace_s: float = 30.0) -> None:
        self._pools = {pool.name: pool for pool in pools}
        self._serve = serve
        self._grace_s = grace_s
        self._running: dict[int, str] = {}
        self._started: dict[str, float] = {}
        self._quick_ends: dict[str, int] = dict.fromkeys(self._pools, 0)
        self._due: dict[str, float] = dict.fromkeys(self._pools, 0.0)

    def run(self) -> int:
        """Until SIGTERM or SIGINT; returns the exit status."""
        # Tasks outlive a pool that is killed; as their new parent we know them.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            while True:
                self._start_due(mask)
                received = signal.sigtimedwait(_SIGNALS, self._until_due())
                self._reap()
                if received is not None and received.si_signo != signal.SIGCHLD:
                    break
            self._end()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return 0

    def _start_due(self, mask: Iterable[int]) -> None:
        now = time.monotonic()
        for name in self._pools.keys() - set(self._running.values()):
            if self._due[name] <= now:
                self._running[self._fork(self._pools[name], mask)] = name
                self._started[name] = now

    def _fork(self, pool: Pool, mask: Iterable[int]) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            log.info("pool %s: process %s", pool, pid)
            return pid
        status = 1
        try:
            # The kernel asks it to end when we are gone, however that went.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if os.getppid() == parent:
                status = self._serve(pool)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            log.exception("pool %s failed", pool)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # nothing that the parent registered for its own end is run here

    def _until_due(self) -> float:
        waiting = [self._due[name] for name in self._pools.keys() - set(self._running.values())]
        return max(0.0, min([_LOOK_EVERY_S, *(due - time.monotonic() for due in waiting)]))

    def _reap(self) -> None:
        """Take in the processes that have ended; those of pools are due again."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = self._running.pop(pid, None)
            if name is not None:
                self._kill_orphans()
                self._plan_restart(name, os.waitstatus_to_exitcode(status))

    def _kill_orphans(self) -> None:
        """Kill what a dead pool has left: nobody hears any more how its tasks do, and they run again elsewhere."""
        orphans = [child for child in psutil.Process().children() if child.pid not in self._running]
        _kill([process for orphan in orphans for process in (*_descendants(orphan), orphan)])

    def _plan_restart(self, name: str, exit_code: int) -> None:
        now = time.monotonic()
        quick = now - self._started[name] < _SOON_S
        self._quick_ends[name] = self._quick_ends[name] + 1 if quick else 0
        pause_s = min(_LONGEST_PAUSE_S, 2.0 ** (self._quick_ends[name] - 1)) if quick else 0.0
        self._due[name] = now + pause_s
        log.warning("pool %s has ended with %s; starting again in %.0f s", name, exit_code, pause_s)

    def _end(self) -> None:
        """Ask the pools to end, give what runs its time, and kill what is left."""
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + self._grace_s
        while self._running and (left_s := deadline - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, min(_LOOK_EVERY_S, left_s))
            self._reap()
        _kill(_descendants(psutil.Process()))


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill(processes: Sequence[psutil.Process]) -> None:
    alive = [process for process in processes if process.is_running()]
    if alive:
        log.warning("killing %s processes that are left", len(alive))
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            log.debug("process %s has ended already", process.pid)
    psutil.wait_procs(alive, timeout=5)
