"""Benchmark `latency`: how long an idle system takes to start, and for a task of one row."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from rich.console import Console

from benchmarks.errors import PeerFailed
from benchmarks.measure import Sample, circumstances, median
from benchmarks.report import Result, Row, Target
from benchmarks.settings import BenchSettings
from demo.airflow_api import AirflowApi
from demo.progress import wait_until_settled
from demo.run import SUBMIT_DAG, submit, unpause_needed

DEFAULT_ROUNDS: Final = 9
#: A source that the project ships; for the length of the benchmark its connection leads to a server of ours.
SOURCE: Final = "example_single"
CONNECTION: Final = "example_api"
PAUSE_S: Final = 2.0
TIMEOUT_S: Final = 120.0
ANSWER: Final = b'{"rows": [{"id": 1, "name": "one", "at": "2026-01-01"}], "total": 1}'


@dataclass(slots=True)
class OneRowServer:
    """A server that has one row, and remembers when it was asked.

    Attributes:
        port: where it listens.
        asked_at: moments of `time.monotonic()`, one a request.
    """

    port: int = 0
    asked_at: list[float] = field(default_factory=list)


@contextmanager
def serve_one_row() -> Iterator[OneRowServer]:
    """The server, for the length of the block."""
    state = OneRowServer()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.asked_at.append(time.monotonic())
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(ANSWER)))
            self.end_headers()
            self.wfile.write(ANSWER)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, name="one row")
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run(settings: BenchSettings, count: int | None, console: Console) -> Result:
    """Submit tasks of one row to an idle system, one after the other.

    Args:
        settings: the running stack.
        count: rounds; `DEFAULT_ROUNDS` when None.
        console: where progress is shown.
    """
    count = count or DEFAULT_ROUNDS
    before = circumstances()
    airflow = settings.airflow
    unpause_needed(airflow)
    samples: list[Sample] = []
    with serve_one_row() as server, connection_to(airflow, server):
        _once(settings, server)  # the first one after a start pays for imports
        for number in range(1, count + 1):
            time.sleep(PAUSE_S)  # idle again: the run before has ended
            sample = _once(settings, server)
            samples.append(sample)
            console.print(
                f"  round {number}/{count}  first byte {sample['first_byte_s']:.2f} s, end {sample['seconds']:.2f} s"
            )
    return Result(
        name="latency",
        rows=_rows(samples, count),
        samples={"collect-ops": samples},
        circumstances=before,
    )


@contextmanager
def connection_to(airflow: AirflowApi, server: OneRowServer) -> Iterator[None]:
    """The source's connection leads to the server; afterwards there is none again."""
    airflow.put_connection(
        CONNECTION,
        {
            "conn_type": "http",
            "host": f"http://127.0.0.1:{server.port}",
            "extra": '{"allow_private_networks": true}',
        },
    )
    try:
        yield
    finally:
        airflow.delete_connection(CONNECTION)


def _once(settings: BenchSettings, server: OneRowServer) -> Sample:
    server.asked_at.clear()
    began = time.monotonic()
    submission = submit(settings.airflow, SOURCE, force=True)
    admitted = time.monotonic()
    task = wait_until_settled(settings.dsn, submission.task_id, TIMEOUT_S, poll_s=0.02)
    ended = time.monotonic()
    if task.status != "COMPLETED" or not server.asked_at:
        reason = f"task {task.task_id} of {SUBMIT_DAG} ended as {task.status}: {task.reason or task.error}"
        raise PeerFailed(peer="collect-ops", reason=reason)
    figures: dict[str, Any] = {
        "admitted_s": admitted - began,
        # The first request asks for the total, in the run's plan; the last one is the page's.
        "first_byte_s": server.asked_at[-1] - began,
        "seconds": ended - began,
    }
    return figures


def _rows(samples: Sequence[Sample], count: int) -> list[Row]:
    return [
        Row(
            claim="submit to first byte fetched, idle system",
            ours=median(samples, "first_byte_s"),
            target=Target(of="ours", sign="<=", value=3.0),
            unit="s",
            measured="POST of the submitting run to the source's server being asked for the page; median",
            rounds=count,
        ),
        Row(
            claim="a task of one row, end to end",
            ours=median(samples),
            target=Target(of="ours", sign="<=", value=3.0),
            unit="s",
            measured="POST of the submitting run to COMPLETED in PostgreSQL; median",
            rounds=count,
        ),
        Row(
            claim="of that, until admitted",
            ours=median(samples, "admitted_s"),
            unit="s",
            measured="POST of the submitting run to its answer: Airflow starting a run of one task",
            rounds=count,
        ),
    ]
