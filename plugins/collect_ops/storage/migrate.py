"""Migrations: `include/sql/migrations/NNNN_name.sql`, only forward, each in a transaction of its own.

Run as `python -m collect_ops.storage.migrate` (reads COLLECT_POSTGRES_DSN).
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from collect_ops.kernel.errors import CollectOpsError, Permanent
from collect_ops.kernel.paths import include_dir
from collect_ops.storage.postgres import Connection, connect

log = logging.getLogger(__name__)

_LOCK = 0x636F6C6C  # 'coll': one migrator at a time


class MigrationChanged(CollectOpsError, Permanent):
    """A migration that has been applied differs from its file now."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"migration {name} was applied with another text; migrations are only added, never edited"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What a run did: the names applied, and how many had been before."""

    applied: tuple[str, ...]
    known: int


def migrate(connection: Connection, directory: Path | None = None) -> Migrated:
    """Apply what is missing, in order of the names. Safe to run twice and at the same time.

    Raises:
        MigrationChanged: An applied migration's file has changed.
    """
    directory = directory or include_dir() / "sql" / "migrations"
    connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS public.schema_migration "
            "(name text PRIMARY KEY, sha256 bytea NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        rows = connection.execute("SELECT name, sha256 FROM public.schema_migration").fetchall()
        known = {row["name"]: bytes(row["sha256"]) for row in rows}
        applied = [
            name for path in sorted(directory.glob("*.sql")) if (name := _apply(connection, path, known))
        ]
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
    return Migrated(applied=tuple(applied), known=len(known))


def _apply(connection: Connection, path: Path, known: dict[str, bytes]) -> str | None:
    text = path.read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode()).digest()
    if path.stem in known:
        if known[path.stem] != digest:
            raise MigrationChanged(path.stem)
        return None
    with connection.transaction():
        connection.execute(text)
        connection.execute(
            "INSERT INTO public.schema_migration (name, sha256) VALUES (%s, %s)", (path.stem, digest)
        )
    log.info("applied migration %s", path.stem)
    return path.stem


def main() -> int:
    """Apply the migrations to the database named by COLLECT_POSTGRES_DSN."""
    dsn = os.environ.get("COLLECT_POSTGRES_DSN")
    if not dsn:
        print("COLLECT_POSTGRES_DSN is not set: a libpq connection string is needed", file=sys.stderr)
        return 2
    with connect(dsn, application_name="collect-ops migrate") as connection:
        done = migrate(connection)
    print(f"migrations: {len(done.applied)} applied, {done.known} known before")
    return 0


if __name__ == "__main__":
    sys.exit(main())
