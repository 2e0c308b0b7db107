"""An Airflow as it is shipped: its own home, its own metadata database, no setting that makes it faster or slower.

It is stopped (SIGSTOP) while other contenders run, so that its idling costs them nothing.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from benchmarks.errors import PeerFailed
from benchmarks.report import CHECKOUT
from benchmarks.settings import BenchSettings
from demo.airflow_api import AirflowApi
from demo.server import end_with_parent

DATABASE: Final = "airflow_as_shipped"
PROGRAMS: Final = ("api-server", "scheduler", "dag-processor")
START_TIMEOUT_S: Final = 120
STOP_TIMEOUT_S: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedAirflow:
    """The running Airflow.

    Attributes:
        api: its REST API.
        processes: its programs by name; each leads a process group of its own.
    """

    api: AirflowApi
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def scheduler_pids(self) -> Sequence[int]:
        """The process whose descendants run tasks."""
        return [self.processes["scheduler"].pid]

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run for the length of the block; outside it stands still."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        for process in self.processes.values():
            os.killpg(process.pid, number)


@contextmanager
def shipped_airflow(settings: BenchSettings, connections: dict[str, str]) -> Iterator[ShippedAirflow]:
    """Run it for the length of the block.

    Args:
        settings: the running stack, for its PostgreSQL.
        connections: Airflow connections by id, as URIs or JSON.

    Raises:
        PeerFailed: it could not be started.
    """
    home = settings.stack.home / "bench-airflow"
    home.mkdir(exist_ok=True)
    password, port = secrets.token_urlsafe(), _free_port()
    passwords = home / "passwords.json"
    passwords.touch(mode=0o600)
    passwords.write_text(json.dumps({"admin": password}))
    environment = _environment(settings, home, passwords, port, connections)
    _make_database(settings)
    _airflow_command(environment, home, "db", "migrate")
    api = AirflowApi(base_url=f"http://127.0.0.1:{port}", user="admin", password=password)
    with ExitStack() as stack:
        log = stack.enter_context((home / "programs.log").open("wb"))
        running = ShippedAirflow(api=api)
        for name in PROGRAMS:
            running.processes[name] = stack.enter_context(_program(environment, home, name, log))
        _wait_for_port(port)
        yield running


@contextmanager
def _program(
    environment: dict[str, str], home: Path, name: str, log: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """One of its programs, in a process group of its own that ends with the block."""
    process = subprocess.Popen(
        [str(_executable()), name],
        cwd=home,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call; no thread runs here yet
        process_group=0,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _end_group(process.pid)


def _end_group(group: int) -> None:
    """What is left of a program's children."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:  # nothing is left
        return


def _environment(
    settings: BenchSettings, home: Path, passwords: Path, port: int, connections: dict[str, str]
) -> dict[str, str]:
    """What any installation sets: where it is, its database, its secrets. Nothing else."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "COLLECT_", "PYTHONPATH"))
    }
    where = conninfo_to_dict(settings.dsn)
    address = f"{where['user']}:{where['password']}@{where['host']}:{where['port']}/{DATABASE}"
    return {
        **inherited,
        "COLLECT_OPS_STACK": str(settings.stack.home),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "benchmarks" / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(48),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(_free_port()),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{address}",
        **{f"AIRFLOW_CONN_{name.upper()}": value for name, value in connections.items()},
    }


def _make_database(settings: BenchSettings) -> None:
    owner = conninfo_to_dict(settings.dsn)["user"]
    with psycopg.connect(settings.stack.postgres_admin_dsn, autocommit=True) as connection:
        connection.execute(f"drop database if exists {DATABASE} with (force)".encode())
        connection.execute(f'create database {DATABASE} owner "{owner}"'.encode())


def _airflow_command(environment: dict[str, str], home: Path, *arguments: str) -> None:
    done = subprocess.run(
        [str(_executable()), *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise PeerFailed(peer="Airflow as shipped", reason=(done.stdout + done.stderr)[-2000:])


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise PeerFailed(peer="Airflow as shipped", reason="its api-server did not start")
        time.sleep(0.25)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _executable() -> Path:
    return Path(sys.executable).with_name("airflow")
