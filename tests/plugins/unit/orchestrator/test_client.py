"""Airflow's REST API away, silent, or refusing: one clear error, within the time that there is."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.lanes.rest_runs import RestRuns
from collect_ops.orchestrator.client import AirflowClient
from collect_ops.orchestrator.errors import AirflowRefused, AirflowUnavailable
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


def _listen(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that hands each connection to a thread of its own."""

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def _drip(connection: socket.socket, head: bytes) -> None:
    connection.recv(65536)
    connection.sendall(head)
    until = time.monotonic() + 20 * LIMIT_S
    while time.monotonic() < until:
        connection.sendall(b"1")
        time.sleep(LIMIT_S / 10)


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server whose answer never ends, a byte at a time."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    yield from _listen(lambda connection: _drip(connection, head))


@pytest.fixture
def dripping_head() -> Iterator[str]:
    """The same, in the middle of a header."""
    yield from _listen(lambda connection: _drip(connection, b"HTTP/1.1 200 OK\r\nX-Slow: "))


@pytest.mark.parametrize("kind", ["silent", "closed", "stuck", "dripping", "dripping_head"])
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


def test_a_call_without_a_limit_of_its_own_ends_as_well(
    dripping: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collect_ops.orchestrator.client.CALL_LIMIT_S", LIMIT_S)
    began = time.monotonic()
    with pytest.raises(AirflowUnavailable):
        RestReports(dripping, "user", "password").look("dag", "run")
    assert time.monotonic() - began < LIMIT_S + LENIENCE_S


#: An address each that cannot be called.
NO_ADDRESSES = [
    "http://127.0.0.1:1:1",
    "http://127.0.0.1:port",
    "http://a..b",
    "http://" + "a" * 70,
    "http://[::1",
]


@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_an_address_that_cannot_be_called_is_unavailable(url: str) -> None:
    with pytest.raises(AirflowUnavailable):
        RestReports(url, "user", "password", limit_s=LIMIT_S).look("dag", "run")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1:1", "ftp://127.0.0.1", "http://[::1"])
def test_an_address_in_the_environment_is_checked(url: str) -> None:
    environment = {"COLLECT_AIRFLOW_URL": url, "COLLECT_AIRFLOW_USER": "u", "COLLECT_AIRFLOW_PASSWORD": "p"}
    with pytest.raises(ValidationFailed) as failed:
        AirflowClient.from_environment(environment)
    assert [(fault.field, fault.value) for fault in failed.value.faults] == [("COLLECT_AIRFLOW_URL", url)]


#: Every call that reads an answer.
CALLS: dict[str, Callable[[str], object]] = {
    "look": lambda url: RestReports(url, "u", "p", limit_s=5).look("dag", "run"),
    "report_change": lambda url: RestReports(url, "u", "p", limit_s=5).report_change("a", "b", {}),
    "newest_scheduled": lambda url: RestReports(url, "u", "p", limit_s=5).newest_scheduled("dag"),
    "ended_well": lambda url: RestReports(url, "u", "p", limit_s=5).ended_well(
        "dag", datetime.now(UTC), limit=1
    ),
    "delete_runs": lambda url: RestReports(url, "u", "p", limit_s=5).delete_runs("dag", ["run"], limit_s=5),
    "state": lambda url: RestRuns(url, "u", "p").state("dag", "run"),
    "group_states": lambda url: RestRuns(url, "u", "p").group_states("dag", "run"),
    "connection": lambda url: RestRuns(url, "u", "p").connection("things"),
    "paused": lambda url: RestRuns(url, "u", "p").paused(["dag"]),
}


def _answering(token: bytes, body: bytes, status: str = "200 OK") -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            signing_in = b"/auth/token" in request
            content, line = (token, "200 OK") if signing_in else (body, status)
            head = (
                f"HTTP/1.1 {line}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            )
            connection.sendall(head.encode() + content)

    return serve


BODIES = {
    "html": b"<html>",
    "list": b"[]",
    "empty": b"{}",
    "null": b"null",
    "number": b"3",
    "not UTF-8": b'"\xff"',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize(
    ("name", "body"),
    # A connection's fields may be missing.
    [(name, body) for name in CALLS for body in BODIES if (name, body) != ("connection", "empty")],
)
def test_an_answer_that_is_not_airflows_is_unavailable(name: str, body: str) -> None:
    for url in _listen(_answering(b'{"access_token": "t"}', BODIES[body])):
        with pytest.raises(AirflowUnavailable):
            CALLS[name](url)


@pytest.mark.parametrize(
    "token", [b"<html>", b"[]", b"{}", b'{"access_token": "a\\nb"}', '{"access_token": "ä"}'.encode()]
)
def test_a_token_that_is_none_is_unavailable(token: bytes) -> None:
    for url in _listen(_answering(token, b"{}")):
        with pytest.raises(AirflowUnavailable):
            RestReports(url, "u", "p", limit_s=5).look("dag", "run")


KEY = "K9sQ-7f/2hW1xY"
TOKEN = "eyJhbGci.Oi-JIUzI1"
#: Where a refusal may repeat what was sent.
REFUSALS: dict[str, Callable[[str], object]] = {
    "detail": lambda text: {"detail": text},
    "list of details": lambda text: {"detail": [{"type": "missing", "input": text}]},
    "no detail": lambda text: {"errors": [text]},
}


@pytest.mark.parametrize("before", [0, 150, 190, 280, 295])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_shows_nothing_of_the_secrets_that_were_sent(refusal: str, before: int) -> None:
    fields = {
        "conn_type": "http",
        "password": f"pass-{KEY}",
        "extra": {
            "headers": {"X-Tenant": f"tenant-{KEY}"},
            "list": [f"list-{KEY}"],
            "number": 471_147_114_711,
        },
    }
    for sent in (f"pass-{KEY}", f"tenant-{KEY}", f"list-{KEY}", "471147114711", TOKEN, "own-" + KEY):
        body = json.dumps(REFUSALS[refusal]("x" * before + " " + sent + " and more")).encode()
        serve = _answering(json.dumps({"access_token": TOKEN}).encode(), body, "422 Unprocessable Content")
        for url in _listen(serve):
            runs = RestRuns(url, "user", f"own-{KEY}")
            with pytest.raises(AirflowRefused) as refused:
                runs.save_connection("things", fields, replace=True)
            assert sent[:9] not in str(refused.value)
            assert sent[-9:] not in str(refused.value)


@pytest.mark.parametrize("status", ["422 Unprocessable Content", "500 Internal Server Error", "200 OK"])
def test_no_answer_is_quoted_with_own_secrets(status: str) -> None:
    for sent, names in ((TOKEN, ["input"]), (f"own-{KEY}", ["input"]), ("hush", ["password"])):
        body = json.dumps({"detail": [{name: sent} for name in names], "x": sent if sent != "hush" else ""})
        serve = _answering(json.dumps({"access_token": TOKEN}).encode(), body.encode(), status)
        for call in (
            lambda url: RestReports(url, "user", f"own-{KEY}").look("dag", "run"),
            lambda url: RestReports(url, "user", f"own-{KEY}").newest_scheduled("dag"),
            lambda url: RestReports(url, "user", f"own-{KEY}").delete_runs("dag", ["run"], limit_s=5),
            lambda url: RestRuns(url, "user", f"own-{KEY}").state("dag", "run"),
            lambda url: RestRuns(url, "user", f"own-{KEY}").paused(["dag"]),
        ):
            for url in _listen(serve):
                with pytest.raises(AirflowUnavailable) as refused:
                    call(url)
                assert sent not in str(refused.value)


def test_credentials_of_the_address_and_a_token_that_is_no_header_are_not_quoted() -> None:
    with pytest.raises(AirflowUnavailable) as failed:
        RestReports("http://user:hunter2@airflow.invalid", "u", "p", limit_s=LIMIT_S).look("dag", "run")
    assert "hunter2" not in str(failed.value)
    environment = {
        "COLLECT_AIRFLOW_URL": "ftp://user:hunter2@a",
        "COLLECT_AIRFLOW_USER": "u",
        "COLLECT_AIRFLOW_PASSWORD": "p",
    }
    with pytest.raises(ValidationFailed) as invalid:
        AirflowClient.from_environment(environment)
    assert "hunter2" not in str(invalid.value)
    for url in _listen(
        _answering(json.dumps({"access_token": f"{KEY}ä"}, ensure_ascii=False).encode(), b"{}")
    ):
        with pytest.raises(AirflowUnavailable) as failed:
            RestReports(url, "u", "p", limit_s=5).look("dag", "run")
        assert KEY not in str(failed.value)
