"""A node in one process: its agent, and its Celery worker as a child, which start and end together.

Ending is in order: the node says that it takes no new work, what runs gets its time, then the node says goodbye.
"""

from __future__ import annotations

import ctypes
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from collect_ops.broker.publisher import Publisher
from collect_ops.nodes.agent import Agent

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
#: Between the signal that ends tasks and the one that kills them.
_LAST_WORDS_S = 5.0
_LOOK_EVERY_S = 0.5


@dataclass(slots=True, kw_only=True)
class NodeWorker:
    """Runs until stopped, or until one of the two ends.

    Args:
        agent: Says how the node does.
        command: The Celery worker's.
        environment: The Celery worker's.
        folder: Its working directory.
        amqp_url: Where heartbeats go.
        grace_s: Seconds for what runs, once it shall end.
        before_stop: Called with nothing before the worker is asked to end: the place to have shard groups hand back
            what they hold; None calls nothing.
    """

    agent: Agent
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    amqp_url: str = field(repr=False)
    grace_s: float = 60.0
    before_stop: Callable[[], object] | None = None
    _due: float = field(default=0.0, init=False)

    def run(self, stopping: threading.Event) -> int:
        """Until `stopping` is set or the worker ends by itself.

        Returns:
            0 when it was stopped; else the worker's exit status, 1 at least.

        Raises:
            NodeIdTaken: A node on another machine has the id; the worker was not started, or has been ended.
            AgentSuperseded: Another agent has been started for this node; the worker has been ended.
        """
        with Publisher(self.amqp_url, timeout_s=5.0) as publisher:
            self._beat(publisher)  # an id that is taken is known before anything runs under it
            worker = self._start()
            try:
                while worker.poll() is None and not stopping.wait(self._until_due()):
                    if time.monotonic() >= self._due:
                        self._beat(publisher)
                if worker.poll() is None:
                    self._end(worker, publisher)
                    return 0
            finally:
                _kill_tree(worker)
                self.agent.leave(publisher)
            log.error("the Celery worker has ended by itself with %s", worker.returncode)
            return abs(worker.returncode) or 1

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 (our own command)
            self.command,
            env=dict(self.environment),
            cwd=self.folder,
            # A Ctrl-C in the terminal is for us: we end the worker in order.
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 (one system call, nothing else)
        )

    def _until_due(self) -> float:
        return max(0.0, min(_LOOK_EVERY_S, self._due - time.monotonic()))

    def _beat(self, publisher: Publisher) -> None:
        self.agent.beat(publisher)
        self._due = time.monotonic() + self.agent.every_s

    def _end(self, worker: subprocess.Popen[bytes], publisher: Publisher) -> None:
        self.agent.draining = True
        self._beat(publisher)
        if self.before_stop is not None:
            self.before_stop()
        worker.terminate()  # Celery takes no more and waits for what runs
        deadline = time.monotonic() + self.grace_s
        while _runs_tasks(worker) and time.monotonic() < deadline:
            time.sleep(min(_LOOK_EVERY_S, max(0.0, deadline - time.monotonic())))
            if time.monotonic() >= self._due:
                self._beat(publisher)
        if _runs_tasks(worker):
            log.warning("tasks still run after %.0f s and are ended; others take them on", self.grace_s)


def _runs_tasks(worker: subprocess.Popen[bytes]) -> bool:
    """Whether its pool is still there; what it does after that is to take its interpreter down, for seconds."""
    try:
        return worker.poll() is None and bool(psutil.Process(worker.pid).children())
    except psutil.NoSuchProcess:
        return False


def _kill_tree(worker: subprocess.Popen[bytes]) -> None:
    """End the worker and all that it started, tasks included: they leave its process group."""
    try:
        tree = [psutil.Process(worker.pid)]
        tree += tree[0].children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for process in reversed(tree):
        _send(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(tree, timeout=_LAST_WORDS_S)
    for process in alive:
        _send(process, signal.SIGKILL)
    worker.wait()


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        log.debug("process %s has ended already", process.pid)


def _end_with_parent() -> None:
    """In the child: the kernel asks it to end when we are gone, however that went."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
