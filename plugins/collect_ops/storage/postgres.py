"""Connections to the collect_ops database."""

from __future__ import annotations

import select
from collections.abc import Mapping
from typing import Any

import orjson
import psycopg
from psycopg import errors, pq, sql
from psycopg.rows import dict_row
from psycopg.types.json import Json, Jsonb, set_json_dumps, set_json_loads

from collect_ops.kernel.errors import CollectOpsError, OwnOutage
from collect_ops.storage.schema import UNDEFINED, SchemaBehind, missing_before

__all__ = [
    "AsyncConnection",
    "Connection",
    "DatabaseUnavailable",
    "Json",
    "Jsonb",
    "connect",
    "connect_async",
    "errors",
    "is_usable",
    "sql",
]

Connection = psycopg.Connection[dict[str, Any]]
AsyncConnection = psycopg.AsyncConnection[dict[str, Any]]

set_json_dumps(orjson.dumps)
set_json_loads(orjson.loads)

# The connection is gone, the server ends, has no room left, or a lock was not to be had.
OwnOutage.register(psycopg.OperationalError)
OwnOutage.register(psycopg.InterfaceError)

# A dead server must be noticed in seconds, not after the kernel's two hours; a statement that waits for a
# lock for a minute is a fault to see, not to sit out. The server is told to notice a dead client as fast: one whose
# machine vanished in the middle of a landing holds its shard's lock until then.
_KEEPALIVES = {"idle": 10, "interval": 5, "count": 3}
_OPTIONS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives": 1,
    **{f"keepalives_{name}": value for name, value in _KEEPALIVES.items()},
    "tcp_user_timeout": 30_000,
    "options": "-c lock_timeout=60s -c idle_in_transaction_session_timeout=120s -c TimeZone=UTC "
    # What `01/02/2024` means to PostgreSQL is no matter of the server's settings.
    "-c DateStyle=ISO,MDY "
    "-c tcp_user_timeout=30s "
    + " ".join(f"-c tcp_keepalives_{name}={value}" for name, value in _KEEPALIVES.items()),
}


class DatabaseUnavailable(CollectOpsError, OwnOutage):
    """PostgreSQL did not accept a connection."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"PostgreSQL (connection collect_postgres) did not accept a connection: {reason.strip()}"
        )


class _Cursor(psycopg.Cursor[dict[str, Any]]):
    """Says which migrations are missing when a statement names what the database does not have."""

    def execute(self, *arguments: Any, **options: Any) -> _Cursor:
        try:
            return super().execute(*arguments, **options)
        except UNDEFINED as error:
            _explain(self.connection, error)
            raise


class _AsyncCursor(psycopg.AsyncCursor[dict[str, Any]]):
    """The same, for asyncio."""

    async def execute(self, *arguments: Any, **options: Any) -> _AsyncCursor:
        try:
            return await super().execute(*arguments, **options)
        except UNDEFINED as error:
            _explain(self.connection, error)
            raise


def _explain(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], error: psycopg.Error
) -> None:
    """Raise what explains a missing table, column or function: a migration that is not applied. Else nothing."""
    try:
        missing = missing_before(connection)
    except psycopg.Error:
        return  # not a database of ours, or one that is away: the error itself says more
    if missing:
        raise SchemaBehind(missing) from error


def connect(dsn: str, *, application_name: str = "collect-ops") -> Connection:
    """Open an autocommit connection whose rows are dictionaries.

    Autocommit: a transaction is what stands in `with connection.transaction():`, nothing else.

    Args:
        dsn: libpq connection string or URI.
        application_name: Shown in pg_stat_activity.

    Raises:
        DatabaseUnavailable: The server did not accept the connection.
    """
    try:
        return psycopg.connect(
            dsn,
            autocommit=True,
            row_factory=dict_row,
            cursor_factory=_Cursor,
            application_name=application_name,
            **_OPTIONS,
        )
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(str(error)) from error


def is_usable(connection: Connection) -> bool:
    """Whether a connection that was kept is open and idle; one that the server ended meanwhile is not.

    Asks the server only when something has arrived that nobody asked for, as its farewell does.
    """
    if connection.closed or connection.info.transaction_status != pq.TransactionStatus.IDLE:
        return False
    arrived = select.poll()  # select() refuses descriptors from 1,024 on
    arrived.register(connection.fileno(), select.POLLIN)
    if not arrived.poll(0):
        return True
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


async def connect_async(
    dsn: str, *, application_name: str = "collect-ops", settings: Mapping[str, str] | None = None
) -> AsyncConnection:
    """The same as `connect`, for asyncio.

    Args:
        dsn: libpq connection string or URI.
        application_name: Shown in pg_stat_activity.
        settings: Server settings of this session beside the usual ones, such as a shorter time-out.

    Raises:
        DatabaseUnavailable: The server did not accept the connection.
    """
    own = "".join(f" -c {name}={value}" for name, value in (settings or {}).items())
    options = {**_OPTIONS, "options": f"{_OPTIONS['options']}{own}"}
    try:
        return await psycopg.AsyncConnection.connect(
            dsn,
            autocommit=True,
            row_factory=dict_row,
            cursor_factory=_AsyncCursor,
            application_name=application_name,
            **options,
        )
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(str(error)) from error
