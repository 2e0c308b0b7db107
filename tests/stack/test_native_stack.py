"""The services for real: up, again, killed one by one, supervisor killed, down; nothing is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from stack.layout import Layout
from stack.processes import leftovers
from tests.stack.command import run_stack

pytestmark = pytest.mark.timeout(400)
SERVICES = ("postgres", "redis", "epmd", "rabbitmq")


def status(home: Path) -> tuple[int, dict[str, dict[str, object]]]:
    done = run_stack(home, "status", "--json")
    return done.returncode, {line["service"]: line for line in json.loads(done.stdout)["services"]}


def wait_until_back(home: Path, service: str, killed: int) -> None:
    deadline = time.monotonic() + 90
    while True:
        code, services = status(home)
        if code == 0 and services[service]["pid"] != killed:
            return
        assert time.monotonic() < deadline, services
        time.sleep(0.3)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A stack in a folder that the postgres user cannot enter: pytest's own are closed to others."""
    home = tmp_path_factory.mktemp("native") / "stack"
    yield home
    done = run_stack(home, "clean", "--yes")
    assert done.returncode == 0, done.stderr
    assert leftovers(Layout(home=home)) == []
    assert not Layout(home=home).outside.exists()


@pytest.fixture
def running(home: Path) -> Path:
    """Brought up, unless the test before has left it as it should be."""
    if not runs_as_it_should(home):
        done = run_stack(home, "up", "--only", "postgres,redis,rabbitmq")
        assert done.returncode == 0, done.stderr
    return home


def runs_as_it_should(home: Path) -> bool:
    if run_stack(home, "status").returncode != 0:
        return False
    services = status(home)[1]
    return {(services[name]["state"], services[name]["code"]) for name in SERVICES} == {
        ("healthy", "current")
    }


def test_up_twice_is_harmless(running: Path) -> None:
    before = status(running)
    assert before[0] == 0
    assert {name for name, line in before[1].items() if line["state"] == "healthy"} == set(SERVICES)
    done = run_stack(running, "up", "--only", "postgres,redis,rabbitmq")
    assert done.stdout.count("runs already") == 4
    assert status(running) == before


def test_what_has_started_with_other_settings_is_told_and_restarted(running: Path) -> None:
    note = Layout(home=running).run / "redis.code"
    note.write_text(json.dumps({**json.loads(note.read_text()), "identity": "another"}))
    before = status(running)[1]
    assert status(running)[0] == 0, "it is healthy all the same"
    assert {name: before[name]["code"] for name in SERVICES} == {
        name: "other" if name == "redis" else "current" for name in SERVICES
    }
    assert "runs other code: redis." in run_stack(running, "status").stdout
    done = run_stack(running, "up", "--only", "postgres,redis,rabbitmq")
    assert done.returncode == 0, done.stderr
    after = status(running)[1]
    assert {name for name in SERVICES if after[name]["pid"] != before[name]["pid"]} == {"redis"}
    assert {after[name]["code"] for name in SERVICES} == {"current"}


def test_a_stack_of_a_release_without_notes_is_restarted(running: Path) -> None:
    for note in Layout(home=running).run.glob("*.code"):
        note.unlink()
    before = status(running)[1]
    assert {before[name]["code"] for name in SERVICES} == {"other"}
    done = run_stack(running, "up", "--only", "redis")
    assert done.returncode == 0, done.stderr
    assert [line["code"] for line in status(running)[1].values() if line["service"] == "redis"] == ["current"]
    done = run_stack(running, "up", "--only", "postgres,redis,rabbitmq")
    assert done.returncode == 0, done.stderr
    after = status(running)[1]
    assert all(after[name]["pid"] != before[name]["pid"] for name in SERVICES)


def test_it_listens_on_loopback_only(running: Path) -> None:
    for process in leftovers(Layout(home=running)):
        listening = [link for link in process.net_connections("inet") if link.status == psutil.CONN_LISTEN]
        assert {link.laddr.ip for link in listening} <= {"127.0.0.1", "::1"}


def test_each_killed_service_comes_back_with_its_data(running: Path) -> None:
    exported = run_stack(running, "env", "--all").stdout
    lines = [line.removeprefix("export ").partition("=") for line in exported.splitlines()]
    variables = {key: value.strip("'") for key, _, value in lines}
    with psycopg.connect(variables["COLLECT_POSTGRES_DSN"]) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    for service in SERVICES:
        pid = status(running)[1][service]["pid"]
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGKILL)
        wait_until_back(running, service, pid)
    with psycopg.connect(variables["COLLECT_POSTGRES_DSN"]) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
        connection.execute("DROP TABLE kept")


def test_secrets_are_on_no_command_line_and_in_no_open_file(running: Path) -> None:
    layout = Layout(home=running)
    secrets = [line.partition("=")[2] for line in layout.secrets_file.read_text().splitlines() if "=" in line]
    for process in leftovers(layout):
        words = " ".join(process.cmdline())
        assert not [secret for secret in secrets if secret in words]
    for path in (layout.secrets_file, layout.settings_file, *layout.etc.iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path


def test_up_and_down_clear_up_after_a_killed_supervisor(running: Path) -> None:
    layout = Layout(home=running)
    supervisor = int((layout.run / "supervisord.pid").read_text())
    os.kill(supervisor, signal.SIGKILL)
    done = run_stack(running, "up", "--only", "redis")
    assert done.returncode == 0, done.stderr
    assert "whose supervisor had died" in done.stdout
    assert status(running)[0] == 0
    os.kill(int((layout.run / "supervisord.pid").read_text()), signal.SIGKILL)
    done = run_stack(running, "down")
    assert done.returncode == 0, done.stderr
    assert leftovers(layout) == []


def test_a_taken_port_is_named(running: Path) -> None:
    assert run_stack(running, "down").returncode == 0
    port = json.loads(Layout(home=running).settings_file.read_text())["ports"]["redis"]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        done = run_stack(running, "up", "--only", "redis")
    assert done.returncode == 1
    assert f"REDIS_PORT: port {port} on 127.0.0.1 is taken" in done.stderr
