"""Which processes belong to a stack, and ending them by id.

A process is known by the variables it inherited or by its working directory. The directory is needed because
PostgreSQL, Redis and Airflow's workers write their title over the memory where /proc shows the environment,
and because tasks leave the process group of their scheduler.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from stack.environment import PROGRAM_MARK, STACK_MARK
from stack.layout import Layout

SUPERVISOR = "supervisord"
SERVERS = ("postgres", "redis", "epmd", "rabbitmq")


def program_of(process: psutil.Process, layout: Layout) -> str | None:
    """The program of this stack that a process belongs to, or None when it is not ours."""
    try:
        variables = process.environ()
    except psutil.Error:
        variables = {}
    if variables.get(STACK_MARK) == str(layout.home) and PROGRAM_MARK in variables:
        return variables[PROGRAM_MARK]
    try:
        folder = process.cwd()
        name = process.name()
    except psutil.Error:
        return None
    for program, home in (("postgres", layout.postgres_data), ("redis-server", layout.data / "redis")):
        if folder == str(home) and name.startswith(program):
            return program.removesuffix("-server")
    path = Path(folder)
    return path.relative_to(layout.work).parts[0] if layout.work in path.parents else None


def leftovers(layout: Layout, program: str | None = None) -> list[psutil.Process]:
    """Running processes of this stack (of one program, when named), but for this one and its ancestors."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        belongs_to = program_of(process, layout)
        if belongs_to is not None and program in (None, belongs_to) and is_running(process):
            found.append(process)
    return found


def is_running(process: psutil.Process) -> bool:
    """Whether a process still does anything; one that only waits to be collected does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ask_to_end(process: psutil.Process) -> None:
    """Send the signal that ends it in good order; a process that is already gone is fine."""
    try:
        # PostgreSQL takes SIGTERM as `wait for every client`, SIGINT as `end now, in good order`.
        process.send_signal(signal.SIGINT if process.name() == "postgres" else signal.SIGTERM)
    except psutil.NoSuchProcess:
        return


def end(processes: Iterable[psutil.Process], *, patience_s: float) -> None:
    """End processes: ask, wait, then kill what is left.

    Args:
        processes: What to end.
        patience_s: Seconds between asking and killing.
    """
    asked = list(processes)
    for process in asked:
        ask_to_end(process)
    _, alive = psutil.wait_procs(asked, timeout=patience_s)
    for process in alive:
        if is_running(process):
            process.kill()
    psutil.wait_procs(alive, timeout=5)


def end_everything(layout: Layout) -> int:
    """End every process of a stack, whatever was started by what is ended meanwhile included.

    The supervisor goes first, or it would start again what is ended; databases go last, so that programs can
    write down what they were doing.

    Returns:
        How many processes were ended.
    """
    ended = 0
    waves: tuple[Callable[[str | None], bool], ...] = (
        lambda program: program == SUPERVISOR,
        lambda program: program not in SERVERS,
        lambda _: True,
    )
    for wave in waves:
        for _ in range(5):
            found = [process for process in leftovers(layout) if wave(program_of(process, layout))]
            if not found:
                break
            ended += len(found)
            end(found, patience_s=10)
    return ended
