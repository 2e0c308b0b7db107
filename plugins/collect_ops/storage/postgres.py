"""Connections to the collect_ops database."""

from __future__ import annotations

from typing import Any

import orjson
import psycopg
from psycopg import errors, sql
from psycopg.rows import dict_row
from psycopg.types.json import Json, Jsonb, set_json_dumps, set_json_loads

from collect_ops.kernel.errors import CollectOpsError, Transient

__all__ = [
    "AsyncConnection",
    "Connection",
    "DatabaseUnavailable",
    "Json",
    "Jsonb",
    "connect",
    "connect_async",
    "errors",
    "sql",
]

Connection = psycopg.Connection[dict[str, Any]]
AsyncConnection = psycopg.AsyncConnection[dict[str, Any]]

set_json_dumps(orjson.dumps)
set_json_loads(orjson.loads)

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
    "-c tcp_user_timeout=30s "
    + " ".join(f"-c tcp_keepalives_{name}={value}" for name, value in _KEEPALIVES.items()),
}


class DatabaseUnavailable(CollectOpsError, Transient):
    """PostgreSQL did not accept a connection."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"PostgreSQL (connection collect_postgres) did not accept a connection: {reason.strip()}"
        )


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
            dsn, autocommit=True, row_factory=dict_row, application_name=application_name, **_OPTIONS
        )
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(str(error)) from error


async def connect_async(dsn: str, *, application_name: str = "collect-ops") -> AsyncConnection:
    """The same as `connect`, for asyncio.

    Raises:
        DatabaseUnavailable: The server did not accept the connection.
    """
    try:
        return await psycopg.AsyncConnection.connect(
            dsn, autocommit=True, row_factory=dict_row, application_name=application_name, **_OPTIONS
        )
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(str(error)) from error
