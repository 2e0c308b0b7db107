"""PostgreSQL: connections, query files, migrations. The only package that knows the driver.

Promises: every statement comes from `include/sql/queries/PACKAGE/VERB_NOUN.sql` or is composed of quoted
identifiers; no other package imports psycopg. Does not know what the statements mean.
"""

from collect_ops.storage.kept import KeptConnections
from collect_ops.storage.postgres import (
    AsyncConnection,
    Connection,
    DatabaseUnavailable,
    Json,
    Jsonb,
    connect,
    connect_async,
    errors,
    is_usable,
    sql,
)
from collect_ops.storage.queries import query

__all__ = [
    "AsyncConnection",
    "Connection",
    "DatabaseUnavailable",
    "Json",
    "Jsonb",
    "KeptConnections",
    "connect",
    "connect_async",
    "errors",
    "is_usable",
    "query",
    "sql",
]
