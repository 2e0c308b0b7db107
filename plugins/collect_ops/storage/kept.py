"""Connections that are used again: each new one costs PostgreSQL a process, a login and cold caches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from psycopg.pq import TransactionStatus

from collect_ops.storage.postgres import Connection, connect, is_usable


class KeptConnections:
    """Connections for short uses, opened when none is idle and kept until `close`; a context manager.

    Safe to use from several threads: each use has a connection of its own. There are as many as there were uses at
    once.

    Args:
        dsn: libpq connection string or URI.
        application_name: Shown in pg_stat_activity.
    """

    def __init__(self, dsn: str, *, application_name: str) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def use(self) -> Iterator[Connection]:
        """A connection for the length of the block.

        Closed, not kept, after an exception, and when the block leaves a transaction open, whose locks would stay.

        Raises:
            DatabaseUnavailable: PostgreSQL did not accept a connection.
        """
        connection = self._take() or connect(self._dsn, application_name=self._application_name)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        with self._lock:
            keep = not self._closed and connection.info.transaction_status == TransactionStatus.IDLE
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()

    def close(self) -> None:
        """Close the idle connections; those in use are closed when their use ends."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if is_usable(connection):
                return connection
            connection.close()
