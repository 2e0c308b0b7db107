"""Airflow's REST API away, silent, or refusing: one clear error, within the time that there is."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from collect_ops.orchestrator.errors import AirflowUnavailable
from collect_ops.orchestrator.rest_reports import RestReports

LIMIT_S = 1.0
#: A busy machine wakes up late.
LENIENCE_S = 1.0


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def stuck() -> Iterator[str]:
    """A server that lets us in and is silent from then on."""
    body = b'{"access_token": "t"}'
    answer = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                connection.recv(65536)
                connection.sendall(answer % (len(body), body))
                connection.recv(65536)
                threading.Event().wait(LIMIT_S + 2 * LENIENCE_S)
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["silent", "closed", "stuck"])
def test_the_limit_holds_for_all_requests_together(kind: str, request: pytest.FixtureRequest) -> None:
    began = time.monotonic()
    reports = RestReports(request.getfixturevalue(kind), "user", "password", limit_s=LIMIT_S)
    with pytest.raises(AirflowUnavailable):
        reports.look("dag", "run")
    with pytest.raises(AirflowUnavailable):
        reports.write_note("dag", "run", "note")
    assert time.monotonic() - began < LIMIT_S + LENIENCE_S


def test_what_is_no_address_is_unavailable() -> None:
    with pytest.raises(AirflowUnavailable, match="did not answer"):
        RestReports("http://airflow.invalid", "user", "password", limit_s=LIMIT_S).look("dag", "run")
