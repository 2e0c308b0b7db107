"""Deletes Airflow's own old records once a day: its metadata database, which tasks cannot reach, and its log files.

The watchdog calls it: a process of its own does the work, so that looking at services goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stack import environment
from stack.settings import Stack

INTERVAL_S = 86_400.0
#: After a failure: PostgreSQL was away, or the rules have a fault.
RETRY_S = 3600.0
#: After the stack's first start: it has other things to do, and nothing is old yet.
FIRST_AFTER_S = 3600.0
COMMAND = (sys.executable, "-m", "collect_ops.cli", "retention", "--airflow")


@dataclass(slots=True)
class Housekeeping:
    """Starts the command when it is due, and remembers in a file when it last ended well.

    Args:
        command: What is started.
    """

    command: tuple[str, ...] = COMMAND
    _process: subprocess.Popen[bytes] | None = None
    _not_before: float = 0.0

    def step(self, stack: Stack, say: Callable[[str], None], now: float | None = None) -> None:
        """Start it when a day is over; takes no time.

        Args:
            stack: The stack.
            say: Called with a line for each end.
            now: Seconds since 1970; the clock's when not given.
        """
        now = time.time() if now is None else now
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return
            self._process = None
            self._ended(stack, status, say, now)
        if now >= max(self._not_before, self._due_at(stack, now)):
            with log_file(stack).open("ab") as output:
                self._process = subprocess.Popen(
                    self.command,
                    cwd=stack.layout.checkout,
                    env={
                        **environment.base(),
                        **environment.airflow(stack),
                        **environment.marks(stack, "watchdog"),
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )

    def _ended(self, stack: Stack, status: int, say: Callable[[str], None], now: float) -> None:
        if status == 0:
            _touch(mark(stack), now)
        else:
            self._not_before = now + RETRY_S
            say(f"housekeeping ended with status {status}; see {log_file(stack)}")

    def _due_at(self, stack: Stack, now: float) -> float:
        try:
            return mark(stack).stat().st_mtime + INTERVAL_S
        except FileNotFoundError:
            _touch(mark(stack), now + FIRST_AFTER_S - INTERVAL_S)
            return now + FIRST_AFTER_S


def _touch(path: Path, at: float) -> None:
    path.touch(mode=0o600)
    os.utime(path, (at, at))


def mark(stack: Stack) -> Path:
    """A file as old as its last good end."""
    return stack.layout.home / "housekeeping.at"


def log_file(stack: Stack) -> Path:
    """What it writes."""
    return stack.layout.logs / "housekeeping.log"
