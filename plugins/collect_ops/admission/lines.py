"""The connections of admissions: opened for one, or kept from one to the next."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from collect_ops.broker.publisher import Publisher
from collect_ops.kernel.backends import Backends
from collect_ops.storage import Connection, connect, is_usable

#: Kept while nobody uses them, at most: as many as callers that are likely to come at once.
KEPT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One admission's connections; nobody else uses them meanwhile."""

    connection: Connection
    publisher: Publisher

    def close(self) -> None:
        """Close both."""
        self.connection.close()
        self.publisher.close()


class Lines:
    """Lines to PostgreSQL and RabbitMQ. Safe to use from several threads: each use has a line of its own.

    Opening a line costs about fifteen milliseconds. Until `keep`, each use opens and closes its own.

    Args:
        backends: Where the services are.
    """

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._lock = threading.Lock()
        self._idle: list[Line] = []
        self._keeping = False

    def keep(self) -> None:
        """Keep lines from now on, until `close`."""
        self._keeping = True

    def close(self) -> None:
        """Close the lines that nobody uses; those in use are closed when they are given back."""
        with self._lock:
            self._keeping = False
            idle, self._idle = self._idle, []
        for line in idle:
            line.close()

    @contextmanager
    def use(self) -> Iterator[Line]:
        """A line for the length of the block.

        A kept one whose connection to PostgreSQL was lost meanwhile is replaced; the publisher does that by itself.

        Raises:
            DatabaseUnavailable: PostgreSQL did not accept a connection.
        """
        line = self._take() or self._open()
        try:
            yield line
        except BaseException:
            line.close()
            raise
        self._give_back(line)

    def _open(self) -> Line:
        connection = connect(self._backends.postgres_dsn, application_name="collect-ops admission")
        return Line(connection=connection, publisher=Publisher(self._backends.amqp_url))

    def _take(self) -> Line | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                line = self._idle.pop()
            if is_usable(line.connection):
                return line
            line.close()

    def _give_back(self, line: Line) -> None:
        with self._lock:
            keep = self._keeping and len(self._idle) < KEPT and not line.connection.closed
            if keep:
                self._idle.append(line)
        if not keep:
            line.close()
