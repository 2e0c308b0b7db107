"""A Celery worker that has lost its connection to RabbitMQ gives what comes then to processes that are idle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from celery import Celery

from stack.env_files import CONFIG, parse
from tests.plugins.integration.broker_api import call_broker_api

pytestmark = pytest.mark.timeout(120)
#: Two processes, configured as Airflow's workers are.
APP = """
import json, os, time
from pathlib import Path
from celery import Celery

app = Celery("pool", broker=os.environ["BROKER"])
app.conf.update(json.loads(os.environ["AIRFLOW__CELERY__EXTRA_CELERY_CONFIG"]), imports=[], task_routes=[])
app.conf.update(worker_prefetch_multiplier=1, task_acks_late=False, worker_enable_remote_control=False)

@app.task(name="work")
def work(begun, seconds):
    Path(begun).touch()
    time.sleep(seconds)
"""
LONG_S = 60.0
SHORT = 6


def wait_for(what: str, look: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)


@pytest.fixture
def worker(amqp_url: str, tmp_path: Path) -> Iterator[Celery]:
    (tmp_path / "pool_app.py").write_text(APP)
    command = [
        sys.executable, "-m", "celery", "-A", "pool_app", "worker", "-c", "2", "--without-mingle", "--without-gossip"
    ]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **parse(CONFIG / "airflow.env"), "BROKER": amqp_url},
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield Celery("pool", broker=amqp_url)
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def cut_connections(vhost: str) -> None:
    """Close every connection to a virtual host; its listing is some seconds late."""
    found: list[dict[str, str]] = []
    wait_for(
        "a connection", lambda: found.extend(call_broker_api("GET", f"vhosts/{vhost}/connections")) or found
    )
    for connection in found:
        call_broker_api("DELETE", f"connections/{quote(connection['name'], safe='')}", missing_ok=True)


def send(app: Celery, *tasks: list[object]) -> None:
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for arguments in tasks:
            app.send_task("work", arguments, producer=producer)


def test_a_busy_process_gets_nothing_after_a_lost_connection(
    worker: Celery, vhost: str, tmp_path: Path
) -> None:
    long, short = tmp_path / "long", [tmp_path / f"short-{number}" for number in range(SHORT)]
    send(worker, [str(long), LONG_S])
    wait_for("the long task", long.exists)
    began = time.monotonic()
    cut_connections(vhost)
    wait_for("the loss", lambda: "Connection to broker lost" in (tmp_path / "log").read_text())
    send(worker, *([str(path), 0.01] for path in short))
    wait_for("all short tasks", lambda: all(path.exists() for path in short))
    assert time.monotonic() - began < LONG_S  # the long one goes on
