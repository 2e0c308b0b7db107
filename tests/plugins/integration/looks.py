"""What tests look up in a database, over a connection that is kept until the test ends: they look often."""

from __future__ import annotations

import threading
from typing import Any

from collect_ops.storage import Connection, connect, is_usable

_kept: dict[str, Connection] = {}
_lock = threading.Lock()


def look(dsn: str, statement: str, *values: Any) -> list[dict[str, Any]]:
    """Rows of a statement, from any thread.

    Args:
        dsn: Where.
        statement: What to execute, in a transaction of its own.
        values: For its placeholders.
    """
    with _lock:
        connection = _kept.get(dsn)
        if connection is None or not is_usable(connection):
            if connection is not None:
                connection.close()
            connection = _kept[dsn] = connect(dsn, application_name="test look")
            connection.prepare_threshold = None  # a test may give a table other columns meanwhile
        return connection.execute(statement, values).fetchall()  # type: ignore[arg-type]


def close_looks() -> None:
    """Close what was kept."""
    with _lock:
        while _kept:
            _kept.popitem()[1].close()
