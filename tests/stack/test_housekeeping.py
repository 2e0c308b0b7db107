"""Once a day, an hour after a failure, one at a time."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from stack import credentials
from stack.housekeeping import FIRST_AFTER_S, INTERVAL_S, RETRY_S, Housekeeping, log_file, mark
from stack.layout import Layout
from stack.node_settings import LOCAL, NodeSettings
from stack.ports import Ports
from stack.settings import Stack

BEGIN_S = 1_800_000_000.0


def stack_in(folder: Path) -> Stack:
    layout = Layout(home=folder)
    layout.logs.mkdir(parents=True)
    return Stack(
        layout=layout,
        ports=Ports.from_base(20_000),
        secrets=credentials.generate(),
        nodes=NodeSettings(executor=LOCAL),
    )


def starts(stack: Stack, housekeeping: Housekeeping, at_s: float, said: list[str]) -> int:
    """How often the command ran by the end of steps at a time."""
    for _ in range(2):  # the second sees the end
        housekeeping.step(stack, said.append, BEGIN_S + at_s)
        process = housekeeping._process
        if process is not None:
            process.wait(30)
    return log_file(stack).read_text().count("ran") if log_file(stack).exists() else 0


def test_it_runs_once_a_day(tmp_path: Path) -> None:
    stack = stack_in(tmp_path)
    said: list[str] = []
    housekeeping = Housekeeping(command=(sys.executable, "-c", "print('ran')"))
    assert starts(stack, housekeeping, 0, said) == 0
    assert starts(stack, housekeeping, FIRST_AFTER_S - 1, said) == 0
    assert starts(stack, housekeeping, FIRST_AFTER_S, said) == 1
    assert mark(stack).stat().st_mtime == BEGIN_S + FIRST_AFTER_S
    assert starts(stack, housekeeping, FIRST_AFTER_S + INTERVAL_S - 1, said) == 1
    # Also when the watchdog was started anew meanwhile.
    again = Housekeeping(command=housekeeping.command)
    assert starts(stack, again, FIRST_AFTER_S + INTERVAL_S - 1, said) == 1
    assert starts(stack, again, FIRST_AFTER_S + INTERVAL_S, said) == 2
    assert said == []


def test_a_failure_is_told_and_tried_again_after_an_hour(tmp_path: Path) -> None:
    stack = stack_in(tmp_path)
    said: list[str] = []
    housekeeping = Housekeeping(command=(sys.executable, "-c", "print('ran'); raise SystemExit(3)"))
    starts(stack, housekeeping, 0, said)
    assert starts(stack, housekeeping, FIRST_AFTER_S, said) == 1
    assert len(said) == 1
    assert "3" in said[0]
    assert starts(stack, housekeeping, FIRST_AFTER_S + RETRY_S - 1, said) == 1
    assert starts(stack, housekeeping, FIRST_AFTER_S + RETRY_S, said) == 2


def test_one_at_a_time(tmp_path: Path) -> None:
    stack = stack_in(tmp_path)
    mark(stack).touch()
    os.utime(mark(stack), (0, 0))
    housekeeping = Housekeeping(command=(sys.executable, "-c", "import time; time.sleep(60)"))
    try:
        housekeeping.step(stack, print, time.time())
        first = housekeeping._process
        assert first is not None
        housekeeping.step(stack, print, time.time())
        assert housekeeping._process is first
    finally:
        if housekeeping._process is not None:
            housekeeping._process.kill()
            housekeeping._process.wait()
