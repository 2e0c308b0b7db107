"""Databases of a test's own, cloned from a migrated template."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.conninfo import make_conninfo

from collect_ops.storage import connect, sql


@contextmanager
def new_database(prefix: str, template: str | None = None) -> Iterator[tuple[str, str]]:
    """A database that is dropped afterwards, with whoever is in it.

    Args:
        prefix: Its name begins with this.
        template: Database to clone, None for an empty one. Nobody may be connected to it.

    Yields:
        Its name and its connection string.
    """
    server = os.environ["COLLECT_POSTGRES_DSN"]
    name = f"{prefix}_{uuid.uuid4().hex[:12]}"
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
        sql.Identifier(name), sql.Identifier(template or "template1")
    )
    with connect(server) as owner:
        owner.execute(statement)
    try:
        yield name, make_conninfo(server, dbname=name)
    finally:
        # As superuser, since an autovacuum worker may be there.
        with connect(os.environ["COLLECT_POSTGRES_ADMIN_DSN"]) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
