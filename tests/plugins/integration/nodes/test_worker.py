"""A node in one process, on the real services; its Celery worker is played by a small program."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from collect_ops.coordination.client import connect as connect_redis
from collect_ops.coordination.keys import node as node_key
from collect_ops.coordination.liveness import NodeIdTaken
from collect_ops.kernel.backends import Backends, SettingMissing
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.nodes.agent import Agent, NodeIdentity
from collect_ops.nodes.heartbeat import Heartbeat
from collect_ops.nodes.join import JoinFile, ServicesUnreachable, VersionMismatch, check_services, installed
from collect_ops.nodes.rules import placement_rules
from collect_ops.nodes.worker import NodeWorker

#: A worker with a task process; SIGTERM has it wait for that, as Celery does.
WORKER = """
import pathlib, signal, subprocess, sys, time
task = subprocess.Popen([sys.executable, "-c", "import sys, time; time.sleep(float(sys.argv[1]))", sys.argv[1]],
                        start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path("asked").touch())
pathlib.Path("task").write_text(str(task.pid))
sys.exit(7 if task.wait() == 0 and not pathlib.Path("asked").exists() else 0)
"""


class Node:
    """A NodeWorker in a thread."""

    def __init__(self, backends: Backends, folder: Path, *, task_s: float, grace_s: float) -> None:
        self.folder, self.backends = folder, backends
        identity = NodeIdentity(
            node_id="n2", name="n2", version="1", slots=1, path=str(folder), machine="machine"
        )
        self.agent = Agent(identity, backends, placement_rules(), exchange="collect.heartbeats", every_s=0.2)
        self.beats: list[Heartbeat] = []
        self.told: list[str] = []
        self.worker = NodeWorker(
            agent=self.agent,
            command=[sys.executable, "-c", WORKER, str(task_s)],
            environment=dict(os.environ),
            folder=folder,
            amqp_url=backends.amqp_url,
            grace_s=grace_s,
            before_stop=lambda: self.told.append("draining" if self.agent.draining else "active"),
        )
        self.stopping = threading.Event()
        self.result: int | BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self.worker.run(self.stopping)
        except BaseException as error:  # noqa: BLE001 (told in the test's thread)
            self.result = error

    def task(self) -> psutil.Process:
        file = self.folder / "task"
        wait_until(lambda: file.exists() and file.read_text())
        return psutil.Process(int(file.read_text()))

    def is_alive(self) -> bool:
        with connect_redis(self.backends.redis_url) as client:
            return bool(client.exists(node_key("n2")))

    def ended(self) -> int | BaseException | None:
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self.result


def wait_until(look: Callable[[], object], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def start(backends: Backends, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(*, task_s: float, grace_s: float = 20) -> Node:
        nodes.append(Node(backends, tmp_path, task_s=task_s, grace_s=grace_s))
        return nodes[-1]

    yield make
    for each in nodes:
        each.stopping.set()
        each.thread.join(30)


def test_what_runs_ends_before_the_node_says_goodbye(start: Callable[..., Node]) -> None:
    node = start(task_s=3)
    task = node.task()
    assert node.is_alive()
    node.stopping.set()
    wait_until((node.folder / "asked").exists)
    assert node.told == ["draining"], (
        "who hands back is called when the node takes no more, before the worker is asked"
    )
    assert node.is_alive(), "a node that finishes its work is not LOST"
    assert task.is_running()
    assert node.ended() == 0
    assert not node.is_alive()


def test_what_takes_too_long_is_ended_with_all_it_started(start: Callable[..., Node]) -> None:
    node = start(task_s=600, grace_s=0.5)
    task = node.task()
    node.stopping.set()
    assert node.ended() == 0
    assert not task.is_running() or task.status() == psutil.STATUS_ZOMBIE
    assert not node.is_alive()


def test_a_worker_that_ends_by_itself_ends_the_node(start: Callable[..., Node]) -> None:
    node = start(task_s=0.5)
    assert node.ended() == 7
    assert not node.is_alive()
    assert node.told == []


def test_an_id_of_another_machine_starts_nothing(start: Callable[..., Node], backends: Backends) -> None:
    with connect_redis(backends.redis_url) as client:
        client.set(node_key("n2"), "elsewhere boot", px=60_000)
    node = start(task_s=600)
    assert isinstance(node.ended(), NodeIdTaken)
    assert not (node.folder / "task").exists()


def test_a_killed_node_takes_its_worker_along(backends: Backends, tmp_path: Path) -> None:
    code = f"""
import os, pathlib, sys, threading
sys.path[:0] = {sys.path!r}
from tests.plugins.integration.nodes.test_worker import Node
from collect_ops.kernel.backends import Backends
backends = Backends(postgres_dsn=sys.argv[1], redis_url=sys.argv[2], amqp_url=sys.argv[3])
Node(backends, pathlib.Path({str(tmp_path)!r}), task_s=600, grace_s=1).thread.join()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, backends.postgres_dsn, backends.redis_url, backends.amqp_url],
        stdout=subprocess.DEVNULL,
    )
    file = tmp_path / "task"
    try:
        wait_until(file.exists, 60)
        wait_until(file.read_text)
        task = psutil.Process(int(file.read_text()))
        process.kill()
        process.wait()
        wait_until((tmp_path / "asked").exists)
    finally:
        process.kill()
        process.wait()
    task.kill()


FILE = """# made by make join
AIRFLOW__CELERY__BROKER_URL={amqp}
AIRFLOW__CELERY__RESULT_BACKEND=db+{postgres}
AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://127.0.0.1:9/execution/
COLLECT_AMQP_URL={amqp}
COLLECT_JOIN_AIRFLOW_VERSION={airflow}
COLLECT_JOIN_VERSION={own}
COLLECT_POSTGRES_DSN={postgres}
COLLECT_REDIS_URL={redis}
"""


def file_of(
    backends: Backends, *, own: str | None = None, airflow: str = "3.3.2", redis: str | None = None
) -> str:
    return FILE.format(
        amqp=backends.amqp_url,
        postgres=backends.postgres_dsn,
        redis=redis or backends.redis_url,
        own=own or installed("collect-ops"),
        airflow=airflow,
    )


def test_each_service_that_does_not_answer_is_named_without_its_password(backends: Backends) -> None:
    text = file_of(backends, redis="redis://:secret@127.0.0.1:9/0")
    with pytest.raises(ServicesUnreachable) as caught:
        check_services(JoinFile.parse(text).variables)
    assert list(caught.value.problems) == ["Redis at 127.0.0.1:9", "Airflow at 127.0.0.1:9"]
    assert "secret" not in str(caught.value)


def test_an_environment_that_names_no_services(backends: Backends) -> None:
    with pytest.raises(SettingMissing, match="AIRFLOW__CELERY__BROKER_URL"):
        check_services({"COLLECT_POSTGRES_DSN": backends.postgres_dsn})


@pytest.mark.parametrize("version", [{"own": "9.9"}, {"airflow": "3.4.0"}])
def test_another_version_is_refused_with_both(backends: Backends, version: dict[str, str]) -> None:
    (there,) = version.values()
    with pytest.raises(VersionMismatch, match=rf"on this machine and {there} in the stack"):
        JoinFile.parse(file_of(backends, **version)).check_versions()


def test_every_fault_of_a_join_file_is_named(backends: Backends) -> None:
    text = file_of(backends).replace("COLLECT_REDIS_URL=", "LD_PRELOAD=") + "no setting\n"
    with pytest.raises(ValidationFailed) as caught:
        JoinFile.parse(text)
    assert [fault.field for fault in caught.value.faults] == ["line 9", "line 10", "COLLECT_REDIS_URL"]
    assert "redis://" not in str(caught.value), "a fault may lie in a secret"
