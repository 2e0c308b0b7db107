"""What supervisord starts in a program's place: it waits its turn, clears up, and becomes the program.

supervisord gives up on a program after a number of tries. This keeps trying, with a pause that doubles up to
half a minute, and ends what survived the last crash.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from stack import code, environment, health, processes
from stack.postgres import become_postgres
from stack.programs import Program, named, programs
from stack.settings import Stack

SOON_S = 10.0
LONGEST_PAUSE_S = 30.0


def pause_before(starts: list[float], now: float) -> float:
    """Seconds to wait before the next start.

    Args:
        starts: When the last starts were, seconds since the epoch, oldest first.
        now: The present, likewise.

    Returns:
        0 for a program that ran for ten seconds; else 1, 2, 4 … 30, doubling with each quick end in a row.
    """
    quick = 0
    later = now
    for start in reversed(starts):
        if later - start > SOON_S + LONGEST_PAUSE_S * (quick > 0):
            break
        quick += 1
        later = start
    return 0.0 if quick == 0 else min(LONGEST_PAUSE_S, 2.0 ** (quick - 1))


def note_start(file: Path) -> list[float]:
    """Read the earlier starts and add this one."""
    try:
        starts: list[float] = json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # first start, or killed in the middle of writing
        starts = []
    file.write_text(json.dumps([*starts[-9:], time.time()]))
    return starts


def become(stack: Stack, name: str) -> None:
    """Replace this process by the program; does not return.

    Raises:
        UnknownService: no such program.
        NotHealthy: what it needs did not come up (the supervisor then tries again).
    """
    (program,) = (program for program in named(stack, [name]) if program.name == name)
    wait_turn(stack, program)
    if program.prepare is not None:
        program.prepare(stack)
    variables = {**environment.base(), **program.variables(stack), **environment.marks(stack, name)}
    command = program.command(stack)
    folder = stack.layout.work / name
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    os.umask(0o077)
    code.write_note(stack, program, os.getpid())
    drop = become_postgres(stack) if program.runs_as_postgres else None
    if drop is not None:
        drop()
    os.execve(command[0], command, variables)  # noqa: S606


def wait_turn(stack: Stack, program: Program) -> None:
    """Pause after quick ends, end survivors of the last crash, wait for what the program needs."""
    starts_file = stack.layout.run / f"{program.name}.starts"
    pause = pause_before(note_start(starts_file), time.time())
    if pause:
        print(f"{program.name} ended soon after its start: next try in {pause:.0f} s", flush=True)
        time.sleep(pause)
    # A server killed alone leaves children that hold its shared memory, its port or its tasks. Tasks that
    # survive a scheduler would be started again beside themselves: LocalExecutor adopts nothing.
    survivors = processes.leftovers(stack.layout, program.name)
    if survivors:
        print(f"ending {len(survivors)} processes left by the last {program.name}", flush=True)
        processes.end(survivors, patience_s=5)
    for needed in program.needs:
        health.wait_until_healthy(stack, programs(stack)[needed], timeout_s=60)
