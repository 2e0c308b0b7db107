"""Databases of a test's own, cloned from a migrated template and used again when a test has left them as they were."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.conninfo import make_conninfo

from collect_ops.storage import Connection, connect, is_usable, sql
from tests.plugins.integration.looks import close_looks

#: What a database is but for its rows: whatever a test may have changed of it, and what migrations have put into it.
_FINGERPRINT = """
WITH own AS (
    SELECT c.oid, c.relname, c.relkind, c.relowner, c.relacl, c.reloptions, n.nspname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
), facts (fact) AS (
    SELECT format('%s', (nspname, relname, relkind, relowner, relacl, reloptions)) FROM own
    UNION ALL SELECT format('%s', (o.nspname, o.relname, attname, atttypid, atttypmod, attnotnull, attacl))
    FROM pg_attribute a JOIN own o ON o.oid = a.attrelid WHERE attnum > 0 AND NOT attisdropped
    UNION ALL SELECT format('%s', (o.nspname, o.relname, pg_get_expr(adbin, adrelid)))
    FROM pg_attrdef d JOIN own o ON o.oid = d.adrelid
    UNION ALL SELECT format('%s', (o.nspname, o.relname, conname, pg_get_constraintdef(d.oid)))
    FROM pg_constraint d JOIN own o ON o.oid = d.conrelid
    UNION ALL SELECT format('%s', (o.nspname, o.relname, tgname, tgenabled, pg_get_triggerdef(t.oid)))
    FROM pg_trigger t JOIN own o ON o.oid = t.tgrelid WHERE NOT tgisinternal
    UNION ALL SELECT format('%s', (o.relname, pg_get_viewdef(o.oid))) FROM own o WHERE relkind = 'v'
    UNION ALL SELECT format('%s', (proname, proowner, proacl, prosecdef, proconfig, md5(prosrc)))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    UNION ALL SELECT format('%s', (nspname, nspowner, nspacl)) FROM pg_namespace
    WHERE nspname NOT LIKE 'pg\\_temp%' AND nspname NOT LIKE 'pg\\_toast\\_temp%'
    UNION ALL SELECT format('%s', (setrole, setconfig)) FROM pg_db_role_setting s
    JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = current_database()
    UNION ALL SELECT format('%s', m) FROM public.schema_migration m
    UNION ALL SELECT format('%s', m) FROM collect.legal_move m
)
SELECT md5(string_agg(fact, E'\\n' ORDER BY fact)) AS fingerprint FROM facts
"""
_EMPTY = """
DO $$
DECLARE
    each record;
    filled boolean;
BEGIN
    SET LOCAL session_replication_role = replica; -- neither triggers nor foreign keys: all of it goes
    SET LOCAL client_min_messages = warning;
    FOR each IN SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('landing', 'landing_aside') LOOP
        EXECUTE format('DROP TABLE IF EXISTS %I.%I CASCADE', each.schemaname, each.tablename);
    END LOOP;
    FOR each IN
        SELECT schemaname, tablename, format('%I.%I', schemaname, tablename) AS name FROM pg_tables
        WHERE schemaname IN ('collect', 'public') AND tablename NOT IN ('schema_migration', 'legal_move')
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', each.name) INTO filled;
        IF pg_relation_size(each.name::regclass) > 65536 THEN
            EXECUTE format('TRUNCATE %s CASCADE', each.name); -- DELETE leaves behind what slows down
        ELSIF filled THEN
            EXECUTE format('DELETE FROM %s', each.name);
        END IF;
    END LOOP;
    FOR each IN SELECT schemaname, sequencename, start_value FROM pg_sequences WHERE last_value IS NOT NULL LOOP
        PERFORM setval(format('%I.%I', each.schemaname, each.sequencename)::regclass, each.start_value, false);
    END LOOP;
END
$$
"""


@contextmanager
def new_database(prefix: str, template: str | None = None) -> Iterator[tuple[str, str]]:
    """A database that is dropped afterwards, with whoever is in it.

    Args:
        prefix: Its name begins with this.
        template: Database to clone, None for an empty one. Nobody may be connected to it.

    Yields:
        Its name and its connection string.
    """
    name = _create(prefix, template or "template1")
    try:
        yield name, _dsn(name)
    finally:
        close_looks()
        _drop(name)


class Databases:
    """A test worker's databases: making one takes a third of a second, emptying one a twentieth of that.

    Args:
        template: Database to clone.
    """

    def __init__(self, template: str) -> None:
        self._template = template
        self._clean: str | None = None
        # One session empties a database again and again: opening one costs as much as emptying does.
        self._session: Connection | None = None
        with _admin(template) as connection:
            self._fingerprint = _fingerprint(connection)

    @contextmanager
    def lend(self) -> Iterator[str]:
        """The connection string of a migrated database without rows; it is as good as new for the next one."""
        name, self._clean = self._clean, None
        name = name or _create("test", self._template)
        try:
            yield _dsn(name)
        finally:
            close_looks()
            if self._emptied(name):
                self._clean = name
            else:
                self._drop(name)

    def close(self) -> None:
        """Drop what is left."""
        if self._clean is not None:
            self._drop(self._clean)

    def _emptied(self, name: str) -> bool:
        if self._session is None or not is_usable(self._session):
            self._end_session()
            self._session = connect(_admin_dsn(name), application_name="test databases")
        _end_others(self._session)
        self._session.execute(_EMPTY)
        return _fingerprint(self._session) == self._fingerprint

    def _drop(self, name: str) -> None:
        self._end_session()
        _drop(name)

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def _create(prefix: str, template: str) -> str:
    name = f"{prefix}_{uuid.uuid4().hex[:12]}"
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    with connect(os.environ["COLLECT_POSTGRES_DSN"]) as owner:
        owner.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        # No test here stops the server, so a commit need not wait for the disk.
        owner.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(sql.Identifier(name)))
    return name


def _drop(name: str) -> None:
    # As superuser, since an autovacuum worker may be there.
    with connect(os.environ["COLLECT_POSTGRES_ADMIN_DSN"]) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _dsn(name: str) -> str:
    return make_conninfo(os.environ["COLLECT_POSTGRES_DSN"], dbname=name)


def _admin_dsn(name: str) -> str:
    return make_conninfo(os.environ["COLLECT_POSTGRES_ADMIN_DSN"], dbname=name)


@contextmanager
def _admin(name: str) -> Iterator[Connection]:
    with connect(_admin_dsn(name)) as connection:
        yield connection


def _fingerprint(connection: Connection) -> str:
    row = connection.execute(_FINGERPRINT).fetchone()
    assert row is not None
    return str(row["fingerprint"])


def _end_others(connection: Connection) -> None:
    """End every session that a test has left behind; returns when none is left."""
    deadline = time.monotonic() + 30
    while connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ).fetchall():
        assert time.monotonic() < deadline, "a session does not end"
        time.sleep(0.01)
