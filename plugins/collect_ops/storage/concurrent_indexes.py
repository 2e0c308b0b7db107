"""Migrations that build indexes beside what writes: outside a transaction, one statement after the other.

Such a file's first line is `MARKER`, and it holds nothing but `CREATE INDEX CONCURRENTLY IF NOT EXISTS` and `DROP INDEX
CONCURRENTLY IF EXISTS`. What a run that failed or was interrupted has left of an index, PostgreSQL keeps as an invalid
one: it is dropped, at once where that can be, and built again.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress

import psycopg

from collect_ops.kernel.errors import CollectOpsError, Permanent
from collect_ops.storage.postgres import Connection

log = logging.getLogger(__name__)

MARKER = "-- migrate: outside a transaction"

_COMMENT = re.compile(r"--[^\n]*")
_CREATE = re.compile(
    r"CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+IF\s+NOT\s+EXISTS\s+(?P<index>\w+)\s+"
    r"ON\s+(?P<schema>\w+)\.\w+[\s(].*",
    re.IGNORECASE | re.DOTALL,
)
_DROP = re.compile(r"DROP\s+INDEX\s+CONCURRENTLY\s+IF\s+EXISTS\s+\w+\.\w+", re.IGNORECASE)
_IS_INVALID = """
SELECT
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = lower(%(schema)s) AND c.relname = lower(%(index)s) AND NOT i.indisvalid
"""


class NotConcurrent(CollectOpsError, Permanent):
    """A migration outside a transaction holds a statement that leaves half of itself when it is interrupted."""

    def __init__(self, name: str, statement: str) -> None:
        super().__init__(
            f"migration {name}: {' '.join(statement.split())[:200]!r} cannot be outside a transaction; allowed: "
            "CREATE [UNIQUE] INDEX CONCURRENTLY IF NOT EXISTS name ON schema.table …, "
            "DROP INDEX CONCURRENTLY IF EXISTS schema.name"
        )


def is_outside_a_transaction(text: str) -> bool:
    """Whether a migration's text says so."""
    return text.partition("\n")[0].strip() == MARKER


def statements_of(name: str, text: str) -> list[str]:
    """Its statements.

    Raises:
        NotConcurrent: One of them is another than those that may be there.
    """
    statements = [part.strip() for part in _COMMENT.sub("", text).split(";") if part.strip()]
    for statement in statements:
        if not (_CREATE.fullmatch(statement) or _DROP.fullmatch(statement)):
            raise NotConcurrent(name, statement)
    return statements


def build(connection: Connection, name: str, text: str, *, locks_within_s: float) -> None:
    """Execute a migration outside a transaction. Safe to repeat after whatever interrupted it.

    Args:
        connection: In no transaction.
        name: The migration, for messages.
        text: Its text.
        locks_within_s: Seconds that a statement may wait for transactions that began before it; no writer waits for it
            meanwhile.

    Raises:
        NotConcurrent: It holds another statement.
        psycopg.errors.LockNotAvailable: Others hold the table, or an old snapshot, for longer.
        psycopg.Error: It cannot be built, from rows for example that a unique index refuses.
    """
    statements = statements_of(name, text)
    connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{locks_within_s * 1000:.0f}ms",))
    try:
        for statement in statements:
            _drop_invalid(connection, name, statement)
            connection.execute(statement)
    except psycopg.Error:
        # A unique one that is ready but not valid refuses rows of processes that know nothing of it.
        with suppress(psycopg.Error):
            _drop_invalid(connection, name, statement)
        raise
    finally:
        connection.execute("RESET lock_timeout")


def invalid_indexes(connection: Connection, name: str, text: str) -> list[str]:
    """Indexes of a migration that an interrupted run has left."""
    created = (_CREATE.fullmatch(statement) for statement in statements_of(name, text))
    return [each["index"] for each in created if each and _is_invalid(connection, each)]


def _is_invalid(connection: Connection, created: re.Match[str]) -> bool:
    return connection.execute(_IS_INVALID, created.groupdict()).fetchone() is not None


def _drop_invalid(connection: Connection, name: str, statement: str) -> None:
    created = _CREATE.fullmatch(statement)
    if created is None or not _is_invalid(connection, created):
        return
    log.warning("migration %s: index %s is invalid, an earlier run was interrupted", name, created["index"])
    connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {created['schema']}.{created['index']}")
