"""Migrations, only forward, each in a transaction of its own, in two phases: `include/sql/migrations/`.

`NNNN_name.sql` is applied before processes of new code start, while those of the last release run: it adds, and takes
nothing away that they read or write. `NNNN_name.after.sql` is applied when no process of older code is left: it takes
away what only they used. Each must work with and without the other phase of the migrations below its number.

Run as `python -m collect_ops.storage.migrate [before | after [NODE …]]` (reads COLLECT_POSTGRES_DSN); without a phase
both, one after the other. `after` applies nothing while a node runs other code, which it says with exit status 3; NODEs
are known to run this code.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from collect_ops.kernel.code import version_with_code
from collect_ops.kernel.errors import CollectOpsError, OwnOutage, Permanent
from collect_ops.storage.postgres import Connection, connect
from collect_ops.storage.queries import query
from collect_ops.storage.schema import applied_migrations, migration_files

log = logging.getLogger(__name__)

_LOCK = 0x636F6C6C  # 'coll': one migrator at a time
#: Exit status of `after` when it has to be run again later.
WAITS = 3


class Phase(StrEnum):
    """When a migration is applied: before processes of new code start, or after those of older code have ended."""

    BEFORE = "before"
    AFTER = "after"

    @classmethod
    def of(cls, path: Path) -> Phase:
        """The phase of a migration's file."""
        return cls.AFTER if path.stem.endswith(".after") else cls.BEFORE


class MigrationChanged(CollectOpsError, Permanent):
    """A migration that has been applied differs from its file now."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"migration {name} was applied with another text; migrations are only added, never edited"
        )


class OlderCodeRuns(CollectOpsError, OwnOutage):
    """Nodes run other code than this, which the migrations after an upgrade would take something from."""

    def __init__(self, names: Sequence[str], nodes: dict[str, str], here: str) -> None:
        self.names, self.nodes = tuple(names), dict(nodes)
        others = ", ".join(f"node {node} runs {code}" for node, code in nodes.items())
        super().__init__(
            f"{', '.join(names)}: waiting until nothing runs other code than {here}: {others}. "
            "Bring those to this code, and run this again"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What a run did: the names applied, and how many had been before."""

    applied: tuple[str, ...]
    known: int


def migrate(
    connection: Connection,
    directory: Path | None = None,
    *,
    phases: Sequence[Phase] = (Phase.BEFORE, Phase.AFTER),
) -> Migrated:
    """Apply what is missing of each phase, in order of the names. Safe to run twice and at the same time.

    Args:
        connection: As the owner of the database.
        directory: Of the migrations; the project's when not given.
        phases: Which, in order.

    Raises:
        MigrationChanged: An applied migration's file has changed.
    """
    files = migration_files(directory)
    connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS public.schema_migration "
            "(name text PRIMARY KEY, sha256 bytea NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        known = applied_migrations(connection)
        chosen = [path for phase in phases for path in files if Phase.of(path) is phase]
        applied = [name for path in chosen if (name := _apply(connection, path, known))]
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
    return Migrated(applied=tuple(applied), known=len(known))


def finish(
    connection: Connection, directory: Path | None = None, *, restarted: Collection[str] = ()
) -> Migrated:
    """Apply what needs that no process of older code is left, if none is.

    Args:
        connection: As the owner of the database.
        directory: Of the migrations; the project's when not given.
        restarted: Nodes that are known to run this code, whatever their last heartbeat said.

    Raises:
        OlderCodeRuns: A node runs other code, and there is something to apply.
        MigrationChanged: An applied migration's file has changed.
    """
    known = applied_migrations(connection)
    missing = [path.stem for path in migration_files(directory) if path.stem not in known]
    if waiting := [name for name in missing if name.endswith(".after")]:
        here = version_with_code()
        rows = connection.execute(query("nodes/list_versions")).fetchall()
        others = {
            row["id"]: row["version"] for row in rows if row["version"] != here and row["id"] not in restarted
        }
        if others:
            raise OlderCodeRuns(waiting, others, here)
    return migrate(connection, directory, phases=(Phase.AFTER,))


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


def main(arguments: Sequence[str] = ()) -> int:
    """Apply the migrations to the database named by COLLECT_POSTGRES_DSN."""
    dsn = os.environ.get("COLLECT_POSTGRES_DSN")
    if not dsn:
        print("COLLECT_POSTGRES_DSN is not set: a libpq connection string is needed", file=sys.stderr)
        return 2
    phase, *nodes = arguments or ("",)
    if phase not in ("", *Phase) or (nodes and phase != Phase.AFTER):
        print(
            f"{' '.join(arguments)!r} cannot be used; allowed: before, after, after NODE …", file=sys.stderr
        )
        return 2
    with connect(dsn, application_name="collect-ops migrate") as connection:
        try:
            done = (
                finish(connection, restarted=nodes)
                if phase == Phase.AFTER
                else migrate(connection, phases=(Phase(phase),) if phase else tuple(Phase))
            )
        except OlderCodeRuns as error:
            print(error)
            return WAITS
    print(f"migrations: {len(done.applied)} applied, {done.known} known before")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
