"""A stack with worker hosts of its own, and everything that can happen to one of them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from demo.run import unpause_needed
from stack import network, processes, supervisor
from stack.layout import CHECKOUT, Layout
from stack.node_settings import NodeSettings, number_of
from stack.settings import load
from tests.e2e.running_stack import RunningStack, wait_for


@dataclass(slots=True, kw_only=True)
class NodeStack:
    """A running stack of N nodes in a STACK_HOME of its own; made by `node_stack`.

    Args:
        layout: Where it lives.
        nodes: What its nodes are like.
        stack: The same stack as the other tests know it: REST API, rows, commands.
    """

    layout: Layout
    nodes: NodeSettings
    stack: RunningStack

    @property
    def ids(self) -> tuple[str, ...]:
        """`node-1` … `node-N`."""
        return self.nodes.ids

    @property
    def bridge(self) -> str:
        """Where nodes reach a server of the test; 127.0.0.1 when they share this machine's network."""
        return self.nodes.bridge or "127.0.0.1"

    def address(self, node_id: str) -> str:
        """A node's own address."""
        return self.nodes.address(node_id) or "127.0.0.1"

    # The wire

    def cut(self, node_id: str) -> None:
        """Pull a node's cable: nothing goes to it or comes from it, and nobody is told so."""
        self._link(node_id, "down")

    def heal(self, node_id: str) -> None:
        """Plug it in again."""
        self._link(node_id, "up")

    def _link(self, node_id: str, state: str) -> None:
        subprocess.run(["ip", "link", "set", network.link_of(self.layout, node_id), state], check=True)

    # Its processes

    def processes_of(self, node_id: str, *programs: str) -> list[psutil.Process]:
        """What runs on a node: its worker, tasks included, and its agent; or of one of the two."""
        names = self.programs_of(node_id) if not programs else [self._program(node_id, p) for p in programs]
        return [process for name in names for process in processes.leftovers(self.layout, name)]

    def programs_of(self, node_id: str) -> list[str]:
        """`worker-N` and `agent-N`."""
        return [self._program(node_id, kind) for kind in ("worker", "agent")]

    def kill(self, node_id: str) -> None:
        """The machine loses its power: everything on it dies at once, unasked, and stays dead until `revive`."""
        # Stopped first, none can act on what supervisord sends when it is told not to start it again.
        self.pause(node_id)
        for program in self.programs_of(node_id):
            if supervisor.states(self.layout)[program].pid:
                with supervisor.asked(self.layout) as remote:
                    remote.stopProcess(program, False)
        for process in self.processes_of(node_id):
            _signal(process, signal.SIGKILL)
        wait_for(f"the end of {node_id}", lambda: not self.processes_of(node_id), 20)

    def revive(self, *node_ids: str) -> None:
        """Start killed nodes again, and wait until they serve their queues."""
        for program in (name for node_id in node_ids for name in self.programs_of(node_id)):
            if not supervisor.states(self.layout)[program].pid:
                supervisor.start_program(self.layout, program)
        self.stack.wait_until_healthy(240)

    def kill_program(self, node_id: str, kind: str) -> None:
        """kill -9 of a node's `worker` or `agent` with all that it started; its supervisor starts it again."""
        for process in self.processes_of(node_id, kind):
            _signal(process, signal.SIGKILL)

    def end_program(self, node_id: str, kind: str) -> None:
        """SIGTERM to a node's `worker` or `agent`, and what its supervisor gives it to end; it stays down."""
        with supervisor.asked(self.layout) as remote:
            remote.stopProcess(self._program(node_id, kind), True)

    def pause(self, node_id: str) -> None:
        """Freeze a node (SIGSTOP); repeated until nothing new has appeared meanwhile."""
        frozen: set[int] = set()
        while new := [process for process in self.processes_of(node_id) if process.pid not in frozen]:
            for process in new:
                _signal(process, signal.SIGSTOP)
                frozen.add(process.pid)

    def resume(self, node_id: str) -> None:
        """Let a frozen node go on."""
        for process in self.processes_of(node_id):
            _signal(process, signal.SIGCONT)

    @contextmanager
    def tmpfs(self, node_id: str, size_mb: int) -> Iterator[Path]:
        """A small disk in place of a node's TMPDIR, which its heartbeats tell of; gone after the block."""
        folder = self.layout.nodes / node_id / "tmp"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=0700", "tmpfs", folder], check=True
        )
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)

    @staticmethod
    def _program(node_id: str, kind: str) -> str:
        return f"{kind}-{number_of(node_id)}"


@contextmanager
def node_stack(
    home: Path, *, count: int = 3, environment: Mapping[str, str] | None = None
) -> Iterator[NodeStack]:
    """Start a stack with nodes, hand it out healthy, and remove it with everything that was done to it.

    Inside the block the environment names this stack, as after `eval "$(make -s env ALL=1)"`.

    Args:
        home: Its STACK_HOME; a folder that is not there or a stack's.
        count: How many nodes.
        environment: More for `make up` (WORKER_SLOTS, NODE_LABELS, …).
    """
    layout = Layout(home=home.resolve())
    own = {key: value for key, value in os.environ.items() if not names_a_stack(key)}
    own |= {"STACK_HOME": str(layout.home), "NODES": str(count), **(environment or {})}
    try:
        _stack(own, "up")
        with pytest.MonkeyPatch.context() as patch:
            for key in [key for key in os.environ if names_a_stack(key)]:
                patch.delenv(key)
            for key, value in {
                **exports_in(_stack(own, "env", "--all")),
                "STACK_HOME": str(layout.home),
            }.items():
                patch.setenv(key, value)
            running = RunningStack.from_environment()
            unpause_needed(running.airflow)
            yield NodeStack(layout=layout, nodes=load(layout).nodes, stack=running)
            running.close()
    finally:
        for process in processes.leftovers(layout):  # what a failed test has left frozen would not end
            _signal(process, signal.SIGCONT)
        _stack(own, "clean", "--yes")
    assert processes.leftovers(layout) == []


def names_a_stack(key: str) -> bool:
    return key.startswith(("AIRFLOW_", "COLLECT_", "PG")) or key.endswith("_PORT") or key == "PORT_BASE"


def _stack(environment: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "stack", *arguments],
        cwd=CHECKOUT, env=dict(environment), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"stack {' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def exports_in(text: str) -> dict[str, str]:
    words = [word for line in text.splitlines() for word in shlex.split(line)[1:]]
    return dict(word.split("=", 1) for word in words)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        time.sleep(0)  # it has ended by itself: what was wanted of it cannot be any more
