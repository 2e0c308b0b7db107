"""Pools as real processes: started, killed, frozen, ended; nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from collect_ops.nodes.forked_pools import Pool

PROGRAM = textwrap.dedent(
    """
    import os, pathlib, signal, subprocess, sys, time
    from collect_ops.nodes.forked_pools import ForkedPools, Pool

    folder = pathlib.Path(sys.argv[1])

    def serve(pool):
        if pool.name == "quick":
            return 3
        # A task leaves its pool's process group, as Airflow's do.
        task = subprocess.Popen(["sleep", "600"], start_new_session=True)
        if pool.name != "deaf":
            signal.signal(signal.SIGTERM, lambda *_: (task.kill(), sys.exit(0)))
        else:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with (folder / pool.name).open("a") as file:
            file.write(f"{os.getpid()} {task.pid}\\n")
        while True:
            time.sleep(0.05)

    pools = [Pool.parse(text) for text in sys.argv[3:]]
    sys.exit(ForkedPools(pools, serve, grace_s=float(sys.argv[2])).run())
    """
)


class Started:
    """A program of forked pools."""

    def __init__(self, folder: Path, grace_s: float, *pools: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), str(grace_s), *pools])

    def starts(self, pool: str) -> list[tuple[int, int]]:
        """Process ids of a pool and of its task, a pair a start."""
        file = self.folder / pool
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(a), int(b)) for a, b in (line.split() for line in lines)]


def wait_for(look: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    running: list[Started] = []

    def make(*pools: str, grace_s: float = 20.0) -> Started:
        running.append(Started(tmp_path, grace_s, *pools))
        return running[-1]

    yield make
    for each in running:
        tree = (
            psutil.Process(each.process.pid).children(recursive=True) if each.process.poll() is None else []
        )
        each.process.kill()
        for process in tree:
            process.kill()
        each.process.wait()


def test_a_pool_that_is_killed_is_started_again_and_leaves_no_task(start: Callable[..., Started]) -> None:
    program = start("control:6:control", "groups:12:default")
    wait_for(lambda: program.starts("control") and program.starts("groups"))
    (control,) = program.starts("control")
    ((pool, task),) = program.starts("groups")
    os.kill(pool, signal.SIGKILL)
    wait_for(lambda: len(program.starts("groups")) == 2)
    wait_for(lambda: not is_alive(task))
    assert program.starts("control") == [control]
    assert all(map(is_alive, control))


def test_a_frozen_pool_leaves_the_other_alone(start: Callable[..., Started]) -> None:
    program = start("control:6:control", "groups:12:default")
    wait_for(lambda: program.starts("control") and program.starts("groups"))
    os.kill(program.starts("groups")[0][0], signal.SIGSTOP)
    os.kill(program.starts("control")[0][0], signal.SIGKILL)
    wait_for(lambda: len(program.starts("control")) == 2)
    assert len(program.starts("groups")) == 1


def test_sigterm_ends_everything_in_order(start: Callable[..., Started]) -> None:
    program = start("control:6:control", "groups:12:default")
    wait_for(lambda: program.starts("control") and program.starts("groups"))
    program.process.terminate()
    assert program.process.wait(timeout=15) == 0
    for pool in ("control", "groups"):
        assert not any(map(is_alive, program.starts(pool)[0]))


def test_what_does_not_end_in_its_time_is_killed(start: Callable[..., Started]) -> None:
    program = start("deaf:1:default", grace_s=0.5)
    wait_for(lambda: program.starts("deaf"))
    program.process.terminate()
    assert program.process.wait(timeout=30) == 0
    assert not any(map(is_alive, program.starts("deaf")[0]))


def test_pools_end_when_their_parent_is_killed(start: Callable[..., Started]) -> None:
    program = start("control:6:control")
    wait_for(lambda: program.starts("control"))
    program.process.kill()
    wait_for(lambda: not any(map(is_alive, program.starts("control")[0])))


def test_a_pool_that_ends_at_once_does_not_spin(start: Callable[..., Started]) -> None:
    program = start("quick:1:default", "control:6:control")
    wait_for(lambda: program.starts("control"))
    time.sleep(2)
    used = psutil.Process(program.process.pid).cpu_times()
    assert used.user + used.system + used.children_user + used.children_system < 3


@pytest.mark.parametrize(
    "text", ["", "control", "control:6", "control:0:control", ":6:control", "a:b:c", "a:1:"]
)
def test_a_pool_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: NAME:CONCURRENCY:QUEUE,QUEUE"):
        Pool.parse(text)


def test_a_pool_is_read_as_it_is_written() -> None:
    pool = Pool(name="groups", queues="default,node.n1", concurrency=12)
    assert Pool.parse(str(pool)) == pool
