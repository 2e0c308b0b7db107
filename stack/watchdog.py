"""Restarts what runs and does nothing: a service that has been unwell for too long while its process lives.

supervisord starts again what ends. It does not see a scheduler whose loop stands still, or a worker that no longer
consumes; health.py does, by asking the service. A service is given up only after complaints in an unbroken series of
looks: when PostgreSQL is away, or the machine slept, nobody is judged.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from stack import health, processes, supervisor
from stack.credentials import write_private
from stack.health import JOBS
from stack.housekeeping import Housekeeping
from stack.layout import Layout
from stack.programs import Program, programs
from stack.settings import Stack, load

LOOK_EVERY_S = 5.0
#: Beyond the 30 s after which health.py calls a heartbeat old: a loop that stood still for a minute.
SILENT_JOB_S = 30.0
#: A worker that consumes nothing; after an absence of RabbitMQ it may take half a minute to connect again.
IDLE_WORKER_S = 60.0
#: A server that does not answer; on a machine with too much to do it may just be slow.
SILENT_SERVER_S = 300.0
#: What has not been well since its start: as long as `make up` waits at most. A slow start that is ended begins anew.
STARTS_WITHIN_S = 1200.0
#: Between SIGTERM and SIGKILL, for a process whose loop stands still.
JOB_ENDS_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a look found about a running service.

    Args:
        pid: Its process.
        complaint: What is wrong; None when it is well.
    """

    pid: int
    complaint: str | None


@dataclass(slots=True)
class Patience:
    """For how long each service has been unwell. Pure: findings and times come in.

    Args:
        look_every_s: Seconds between two looks; three times that without one, and earlier looks count no more.
        well_pids: The process of each service that was seen to be well: it has started.
    """

    look_every_s: float = LOOK_EVERY_S
    well_pids: dict[str, int] = field(default_factory=dict)
    _unwell_since: dict[str, float] = field(default_factory=dict)
    _looked_at: float | None = None

    def overdue(self, findings: Mapping[str, Finding], now: float) -> list[str]:
        """The services that are given up.

        Args:
            findings: Of those that could be judged; the others begin anew.
            now: Of a clock that never goes back.
        """
        if self._looked_at is not None and now - self._looked_at > 3 * self.look_every_s:
            self._unwell_since.clear()  # we slept, and so may they have
        self._looked_at = now
        self.well_pids |= {name: found.pid for name, found in findings.items() if found.complaint is None}
        unwell = [name for name, found in findings.items() if found.complaint is not None]
        self._unwell_since = {name: self._unwell_since.get(name, now) for name in unwell}
        return [
            name
            for name, since in self._unwell_since.items()
            if now - since >= self._limit_s(name, findings[name].pid)
        ]

    def _limit_s(self, name: str, pid: int) -> float:
        if self.well_pids.get(name) != pid:
            return STARTS_WITHIN_S
        if name in JOBS:
            return SILENT_JOB_S
        return IDLE_WORKER_S if name.startswith("worker") else SILENT_SERVER_S


def well_file(layout: Layout) -> Path:
    """Where it stands who was well, for a watchdog that is started anew; it goes with supervisord."""
    return layout.run / "watchdog.well"


def keep(layout: Layout, patience: Patience) -> None:
    """Write who was well, if somebody has come to be."""
    text = json.dumps(patience.well_pids, sort_keys=True)
    file = well_file(layout)
    if not file.exists() or file.read_text() != text:
        write_private(file, text)


def recall(layout: Layout) -> Patience:
    """A patience that knows who was well."""
    file = well_file(layout)
    return Patience(well_pids=json.loads(file.read_text())) if file.exists() else Patience()


def watched(stack: Stack) -> list[Program]:
    """What runs tasks, and what starts them; an agent that stands still is a lost node already."""
    return [
        program
        for name, program in programs(stack).items()
        if name in JOBS or name == "api-server" or name.startswith("worker")
    ]


def findings(stack: Stack) -> dict[str, Finding]:
    """How the watched services are that run, and can be judged: what they need must be well."""
    states = supervisor.states(stack.layout)
    running = [program for program in watched(stack) if states[program.name].pid]
    known = programs(stack)
    needed = {name for program in running for name in program.needs}
    well = {name for name in needed if health.question(stack, known[name], 0.0) is None}
    return {
        program.name: Finding(
            pid=states[program.name].pid,
            complaint=health.question(stack, program, float(states[program.name].since)),
        )
        for program in running
        if well.issuperset(program.needs)
    }


def restart(stack: Stack, program: Program, pid: int) -> None:
    """End a service's process; supervisord starts it again, and what it left is ended before that."""
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return  # it has ended by itself, and is started again already
    if processes.program_of(process, stack.layout) == program.name:
        patience_s = JOB_ENDS_WITHIN_S if program.name in JOBS else float(program.stop_wait_s)
        processes.end([process], patience_s=patience_s)


def look(stack: Stack, patience: Patience, say: Callable[[str], None], now: float) -> list[str]:
    """One look; returns the services that it has restarted.

    Args:
        stack: The stack.
        patience: Remembers earlier looks.
        say: Called with a line for each restart.
        now: Of a clock that never goes back.
    """
    found = findings(stack)
    overdue = patience.overdue(found, now)
    keep(stack.layout, patience)
    for name in overdue:
        say(f"restarting {name} (process {found[name].pid}), which has been unwell: {found[name].complaint}")
        restart(stack, programs(stack)[name], found[name].pid)
    return overdue


def main() -> None:
    """Look every few seconds, until ended."""
    layout = Layout.from_environment()
    patience, housekeeping = recall(layout), Housekeeping()
    while True:
        stack = load(layout)  # worker hosts come and go
        look(stack, patience, lambda line: print(line, flush=True), time.monotonic())
        health.watchdog_mark(layout).touch()
        housekeeping.step(stack, lambda line: print(line, flush=True))
        time.sleep(LOOK_EVERY_S)


if __name__ == "__main__":
    main()
