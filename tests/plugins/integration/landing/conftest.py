"""A database of its own for the landing tests, on the server that COLLECT_POSTGRES_DSN names."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio
from psycopg.conninfo import make_conninfo

from collect_ops.storage import AsyncConnection, Connection, connect, connect_async, sql
from collect_ops.storage.migrate import migrate


@pytest.fixture(scope="session")
def landing_dsn() -> Iterator[str]:
    """A migrated database, dropped at the end."""
    server = os.environ["COLLECT_POSTGRES_DSN"]
    name = f"landing_{uuid.uuid4().hex[:12]}"
    with connect(server) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    dsn = make_conninfo(server, dbname=name)
    with connect(dsn) as connection:
        migrate(connection)
    yield dsn
    with connect(server) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def db(landing_dsn: str) -> Iterator[Connection]:
    """A connection; the landing schemas are empty when it opens."""
    with connect(landing_dsn) as connection:
        for schema in ("landing", "landing_aside"):
            connection.execute(sql.SQL("DROP SCHEMA {0} CASCADE").format(sql.Identifier(schema)))
            connection.execute(sql.SQL("CREATE SCHEMA {0}").format(sql.Identifier(schema)))
        connection.execute("TRUNCATE collect.landing_target")
        yield connection


@pytest_asyncio.fixture
async def writer(landing_dsn: str) -> AsyncIterator[AsyncConnection]:
    """The connection that lands."""
    connection = await connect_async(landing_dsn)
    yield connection
    await connection.close()


@pytest.fixture
def new_task(db: Connection) -> Callable[[], int]:
    """Makes a collect task, which bad rows refer to; returns its id."""
    db.execute(
        "INSERT INTO collect.source_version (hash, source, definition) VALUES ('\\x00', 'any', '{}') "
        "ON CONFLICT DO NOTHING"
    )

    def make() -> int:
        row = db.execute(
            "INSERT INTO collect.task (source, source_version, dedup_key, priority, lane, status, moved_by, "
            "submitted_by, submitted_via, max_retries) "
            "VALUES ('any', '\\x00', '\\x00', 5, 'normal', 'QUEUED', 'test', 'test', 'test', 3) RETURNING id"
        ).fetchone()
        assert row is not None
        return int(row["id"])

    return make
