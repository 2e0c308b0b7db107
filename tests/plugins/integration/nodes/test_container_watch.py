"""The health check of a container: what lives and does nothing is ended, and nobody is judged in an outage."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pika
import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from collect_ops.kernel.backends import Backends
from stack import container_watch
from stack.container_watch import LOOK_EVERY_S, STARTS_WITHIN_S, Patience, Verdict, main
from stack.schedulers import own_names

UNWELL, WELL, UNKNOWN = Verdict.UNWELL, Verdict.WELL, Verdict.UNKNOWN


def exhausted(*verdicts: Verdict, every_s: float = LOOK_EVERY_S, limit_s: float = 45.0) -> bool:
    patience = Patience(pid=1, began=0.0)
    for number, verdict in enumerate(verdicts):
        patience = patience.after(verdict, number * every_s)
    return patience.is_exhausted(limit_s)


@pytest.mark.parametrize(
    ("verdicts", "ends"),
    [
        ([WELL], False),
        ([WELL, UNWELL], False),
        ([WELL, UNWELL, UNWELL], False),
        ([WELL, UNWELL, UNWELL, UNWELL], True),
        ([WELL, UNWELL, UNWELL, WELL, UNWELL], False),
        # PostgreSQL was away: its looks say nothing, and the series begins anew.
        ([WELL, UNWELL, UNKNOWN, UNWELL, UNWELL], False),
        ([WELL, *[UNKNOWN] * 50], False),
        # It has never been well: it may just be starting.
        ([UNWELL] * int(STARTS_WITHIN_S / LOOK_EVERY_S), False),
        ([UNWELL] * int(STARTS_WITHIN_S / LOOK_EVERY_S + 1), True),
    ],
)
def test_a_series_of_looks(verdicts: list[Verdict], *, ends: bool) -> None:
    assert exhausted(*verdicts) is ends


def test_after_a_sleep_of_the_machine_nobody_is_judged() -> None:
    assert not exhausted(WELL, UNWELL, UNWELL, every_s=3 * LOOK_EVERY_S + 1)


@pytest.fixture
def init() -> Iterator[subprocess.Popen[bytes]]:
    """What a container's init is: a process with one child."""
    process = subprocess.Popen(["bash", "-c", "sleep 300; true"])
    deadline = time.monotonic() + 10
    while not psutil.Process(process.pid).children():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield process
    for each in psutil.Process(process.pid).children() if process.poll() is None else []:
        each.kill()
    process.wait(10)


@pytest.fixture
def airflow(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """Airflow's database, of which its jobs are there."""
    named = conninfo_to_dict(postgres_dsn)
    for name, key in (("HOST", "host"), ("PORT", "port"), ("AIRFLOW_USER", "user"), ("AIRFLOW_PASSWORD", "password"),
                      ("AIRFLOW_DB", "dbname")):  # fmt: skip
        monkeypatch.setenv(f"POSTGRES_{name}", str(named[key]))
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE job (job_type text, state text, hostname text, latest_heartbeat timestamptz)"
        )
        yield connection


def beat(airflow: psycopg.Connection, age_s: float = 0, **columns: str) -> None:
    job = {"job_type": "SchedulerJob", "state": "running", "hostname": own_names()[0], **columns}
    airflow.execute("DELETE FROM job")
    airflow.execute(
        "INSERT INTO job VALUES (%s, %s, %s, now() - make_interval(secs => %s))", (*job.values(), age_s)
    )


def watch(init: subprocess.Popen[bytes], folder: Path, now: float, kind: str = "SchedulerJob") -> int:
    return main([kind], init=init.pid, folder=folder, clock=lambda: now)


def test_a_loop_that_stands_still_is_ended(
    init: subprocess.Popen[bytes],
    airflow: psycopg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also a process that is stopped, which takes no SIGTERM."""
    monkeypatch.setattr(container_watch, "JOB_ENDS_WITHIN_S", 0.2)
    (process,) = psutil.Process(init.pid).children()
    beat(airflow)
    assert watch(init, tmp_path, 0) == 0
    process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(container_watch, "HEARTBEAT_S", -1.0)
    assert [watch(init, tmp_path, now) for now in (30, 60)] == [1, 1]
    assert process.is_running()
    assert watch(init, tmp_path, 90) == 1
    assert init.wait(10) == 0, "what it ran has ended, and so has the container"


@pytest.mark.parametrize(
    ("age_s", "columns"),
    [
        (0, {"hostname": "another-container"}),
        (0, {"job_type": "TriggererJob"}),
        (0, {"state": "failed"}),
        (3600, {}),  # of the process before this one
    ],
)
def test_a_heartbeat_of_another_does_not_count(
    init: subprocess.Popen[bytes],
    airflow: psycopg.Connection,
    tmp_path: Path,
    age_s: float,
    columns: Mapping[str, str],
) -> None:
    beat(airflow, age_s, **columns)
    assert watch(init, tmp_path, 0) == 1
    # It has not been well since its start, and gets its time.
    assert [watch(init, tmp_path, now) for now in (30, 60, 90, 120)] == [1] * 4
    assert init.poll() is None


def test_nobody_is_ended_while_postgresql_is_away(
    init: subprocess.Popen[bytes],
    airflow: psycopg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beat(airflow)
    assert watch(init, tmp_path, 0) == 0
    monkeypatch.setenv("POSTGRES_PORT", "1")
    assert {watch(init, tmp_path, float(now)) for now in range(30, 600, 30)} == {1}
    assert init.poll() is None


def test_a_process_that_was_started_again_begins_anew(
    init: subprocess.Popen[bytes], airflow: psycopg.Connection, tmp_path: Path
) -> None:
    beat(airflow)
    file = tmp_path / "collect-ops-health.json"
    file.write_text('{"pid": 1, "began": 1.0, "was_well": true, "unwell_since": 0.0, "looked_at": 30.0}')
    assert watch(init, tmp_path, 60) == 0
    file.write_text("half of it {")
    assert watch(init, tmp_path, 90) == 0


def test_a_worker_that_consumes_nothing_is_ended(
    init: subprocess.Popen[bytes], backends: Backends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_watch, "WORKER_ENDS_WITHIN_S", 5.0)
    parameters = pika.URLParameters(backends.amqp_url)
    for name, value in (
        ("HOST", parameters.host), ("PORT", parameters.port), ("USER", parameters.credentials.username),
        ("PASSWORD", parameters.credentials.password), ("CELERY_VHOST", parameters.virtual_host),
    ):  # fmt: skip
        monkeypatch.setenv(f"RABBITMQ_{name}", str(value))
    for name in ("HOST", "PORT", "AIRFLOW_USER", "AIRFLOW_PASSWORD", "AIRFLOW_DB"):
        monkeypatch.setenv(f"POSTGRES_{name}", "1")
    monkeypatch.setenv("COLLECT_NODE_ID", "Watched")
    monkeypatch.delenv("COLLECT_WORKER_QUEUES", raising=False)
    assert watch(init, tmp_path, 0, "worker") == 1, "its queue is not there yet"
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.queue_declare("node.watched")
        tag = channel.basic_consume("node.watched", lambda *_: None)
        assert watch(init, tmp_path, 30, "worker") == 0
        channel.basic_cancel(tag)
        assert [watch(init, tmp_path, float(now), "worker") for now in (60, 90, 120)] == [1] * 3
        monkeypatch.setenv("RABBITMQ_PORT", "1")
        assert watch(init, tmp_path, 150, "worker") == 1
        monkeypatch.setenv("RABBITMQ_PORT", str(parameters.port))
        assert [watch(init, tmp_path, float(now), "worker") for now in (180, 210, 240)] == [1] * 3
        assert init.poll() is None, "while RabbitMQ was away nobody was judged: the series began anew"
        assert watch(init, tmp_path, 270, "worker") == 1
        channel.queue_delete("node.watched")
    assert init.wait(10) == 0
