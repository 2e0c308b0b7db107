"""A connection that is not defined, and an Airflow that cannot say so: the Task SDK's own client asks an API server."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import psutil
import pytest
import structlog
from airflow.sdk.execution_time.supervisor import (
    InProcessSupervisorComms,
    InProcessTestSupervisor,
    set_supervisor_comms,
)

from collect_ops.hooks.backends import backends, endpoint
from collect_ops.hooks.connections import AirflowAway, ConnectionMissing, connection_of
from collect_ops.journal.trace import describe_failure
from collect_ops.kernel.errors import OwnOutage, Permanent

THERE: dict[str, object] = {"conn_id": "there", "conn_type": "http", "host": "api.example.com", "port": 8080}
THERE |= dict.fromkeys(("schema", "login", "password", "extra"))
STATUS = {"missing": 404, "broken": 500, "refused": 403, "expired": 401}


class _Api(BaseHTTPRequestHandler):
    """Answers for connections as the execution API does; what stands behind `/connections/` says how."""

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        status = STATUS.get(name, 200)
        body = orjson.dumps(THERE if status == 200 else {"detail": {"reason": name, "message": name}})
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def api_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def inside_a_task(api_url: str) -> Iterator[None]:
    """As in a task's process whose supervisor asks this API server."""
    supervisor = InProcessTestSupervisor(
        id=uuid.uuid4(),
        pid=os.getpid(),
        process=psutil.Process(),
        process_log=structlog.get_logger(),
        client=InProcessTestSupervisor._Client(base_url=api_url, token=""),
    )
    supervisor.comms = InProcessSupervisorComms(supervisor=supervisor)
    with set_supervisor_comms(supervisor.comms):
        yield


def test_a_connection_that_is_there(api_url: str) -> None:
    with inside_a_task(api_url):
        assert connection_of("there").host == "api.example.com"
        assert endpoint("there").base_url == "http://api.example.com:8080"


def test_one_that_is_not_defined_is_refused_for_good(api_url: str) -> None:
    with inside_a_task(api_url), pytest.raises(ConnectionMissing) as raised:
        endpoint("missing")
    assert raised.value.connection_id == "missing"
    assert isinstance(raised.value, Permanent)
    told = describe_failure(raised.value)
    assert (told["transient"], told["outage"]) == (False, False)


@pytest.mark.parametrize("connection_id", ["broken", "refused", "expired"])
def test_an_api_server_that_cannot_say_is_an_outage(api_url: str, connection_id: str) -> None:
    with inside_a_task(api_url), pytest.raises(AirflowAway) as raised:
        endpoint(connection_id)
    assert raised.value.connection_id == connection_id
    assert isinstance(raised.value, OwnOutage)
    told = describe_failure(raised.value)
    assert (told["transient"], told["outage"]) == (True, True)


def test_an_api_server_that_is_away_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_COLLECT_POSTGRES", raising=False)
    with inside_a_task("http://127.0.0.1:1"):
        with pytest.raises(AirflowAway):
            endpoint("there")
        with pytest.raises(AirflowAway):
            backends()


def test_another_secrets_backend_that_fails_is_an_outage(
    api_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MISSING", "no://%%%uri:port:x")
    with inside_a_task(api_url), pytest.raises(AirflowAway):
        endpoint("missing")
