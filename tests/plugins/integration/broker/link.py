"""What the broker tests share: waiting, a TCP link that can be cut, an Airflow connection."""

from __future__ import annotations

import gc
import json
import select
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"


def wait_until(holds: Callable[[], bool], *, within_s: float = 15.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not so within {within_s} s"
        time.sleep(0.02)


def collect_lost_connections() -> None:
    """pika leaves the socket of a connection that was cut to the garbage collector: a warning, not a leak."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class Link:
    """A TCP forwarder to the broker: it can be cut, hold everything back, and stop accepting.

    Args:
        target: Host and port of the broker.
        tls: Speaks TLS on our side with this context, if given.
    """

    def __init__(self, target: tuple[str, int], tls: ssl.SSLContext | None = None) -> None:
        self._target, self._tls = target, tls
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()
        self.holding = threading.Event()
        self.broker_hung_up = threading.Event()
        self.heartbeats = 0
        self.open_connections = 0
        self._allowance: int | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    def url(self, amqp_url: str) -> str:
        """The same address through this link."""
        parts = urlsplit(amqp_url)
        credentials = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{credentials}@127.0.0.1:{self.port}").geturl()

    def cut(self) -> None:
        """End every connection; new ones are accepted."""
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def cut_after(self, size_bytes: int) -> None:
        """Cut, once, as soon as so many bytes more have gone to the broker."""
        self._allowance = size_bytes

    def close(self) -> None:
        """End everything and stop accepting."""
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        collect_lost_connections()

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            if self._tls is not None:
                try:
                    near = self._tls.wrap_socket(near, server_side=True)
                except (OSError, ssl.SSLError):
                    near.close()
                    far.close()
                    continue
            self._pairs.append((near, far))
            self._start(self._pump, near, far)

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        self.open_connections += 1
        try:
            self._forward(near, far)
        finally:
            self.open_connections -= 1

    def _spent(self, size_bytes: int) -> bool:
        if self._allowance is None:
            return False
        self._allowance -= size_bytes
        if self._allowance > 0:
            return False
        self._allowance = None
        return True

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, suppress(OSError):
            while True:
                pending = isinstance(near, ssl.SSLSocket) and near.pending() > 0
                readable = [near] if pending else select.select([near, far], [], [], 0.2)[0]
                for end in readable:
                    try:
                        received = end.recv(65536)
                    except ConnectionResetError:
                        received = b""
                    if not received:
                        if end is far and not self._closed.is_set():
                            self.broker_hung_up.set()
                        return
                    while self.holding.is_set() and not self._closed.is_set():
                        self._closed.wait(0.05)
                    if end is near:
                        self.heartbeats += received.count(HEARTBEAT_FRAME)
                    (far if end is near else near).sendall(received)
                    if end is near and self._spent(len(received)):
                        self.cut()


def airflow_connection(monkeypatch: pytest.MonkeyPatch, amqp_url: str, **extra: object) -> str:
    """Define the connection `rabbitmq_under_test` for an address."""
    parts = urlsplit(amqp_url)
    definition = {
        "conn_type": "rabbitmq",
        "host": parts.hostname,
        "port": parts.port,
        "login": parts.username,
        "password": parts.password,
        "schema": parts.path[1:],
        "extra": {"management_url": "http://127.0.0.1:15672", **extra},
    }
    monkeypatch.setenv("AIRFLOW_CONN_RABBITMQ_UNDER_TEST", json.dumps(definition))
    return "rabbitmq_under_test"
