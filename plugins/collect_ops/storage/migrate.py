"""Migrations, only forward, each in a transaction of its own, in two phases: `include/sql/migrations/`.

Indexes on tables that are written all the time are built outside a transaction (`concurrent_indexes`).

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
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from collect_ops.kernel.code import version_with_code
from collect_ops.kernel.errors import CollectOpsError, OwnOutage, Permanent
from collect_ops.storage.concurrent_indexes import (
    NotConcurrent,
    build,
    invalid_indexes,
    is_outside_a_transaction,
)
from collect_ops.storage.postgres import Connection, connect, errors
from collect_ops.storage.queries import query
from collect_ops.storage.schema import applied_migrations, migration_files

log = logging.getLogger(__name__)

_LOCK = 0x636F6C6C  # 'coll': one migrator at a time
#: Between two looks whether another migrator has ended.
_TURN_PAUSE_S = 0.2
#: While a migration waits for a table, whoever comes later waits behind it: what runs shall hardly notice.
_LOCK_WITHIN_S = 1.0
#: What has queued meanwhile goes through before the next try.
_PAUSE_S = 3.0
#: Seconds of tries: a dump may hold every table for long, and somebody waits for the upgrade.
_LOCKS_WITHIN_S = 180.0
#: Sessions, others than this one, that hold a table in this database; its own catalogue aside.
_HOLDERS = """
SELECT DISTINCT a.pid, coalesce(nullif(a.application_name, ''), a.usename, 'a session') AS name
FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid
JOIN pg_class AS c ON c.oid = l.relation
WHERE
    l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND c.relnamespace <> 'pg_catalog'::regnamespace AND l.pid <> pg_backend_pid()
ORDER BY a.pid
"""
_MOST_HOLDERS = 5
_RECORD = "INSERT INTO public.schema_migration (name, sha256) VALUES (%s, %s)"
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


class MigrationBlocked(CollectOpsError, OwnOutage):
    """A migration did not get its tables: others hold them for long.

    Args:
        name: The migration.
        holders: Who holds them.
        seconds: How long it waited.
        left: Indexes that are not valid yet, which the next run builds anew; nothing else was changed.
    """

    def __init__(self, name: str, holders: Sequence[str], seconds: float, left: Sequence[str] = ()) -> None:
        self.name, self.holders, self.left = name, tuple(holders), tuple(left)
        held_by = ", ".join(self.holders) or "sessions that have let go by now"
        changed = (
            f"has left the index {', '.join(self.left)}, not valid yet" if left else "has changed nothing"
        )
        super().__init__(
            f"migration {name} did not get its tables within {seconds:.0f} s and {changed}. They are held by "
            f"{held_by}. Let that end, a dump for instance, and run this again"
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
        MigrationBlocked: Others hold a table for long.
    """
    files = migration_files(directory)
    _take_turn(connection)
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
        MigrationBlocked: Others hold a table for long.
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


def _take_turn(connection: Connection) -> None:
    """Wait for another migrator, as long as it takes.

    Not within one statement: its snapshot would keep an index waiting that the other one builds beside what runs.
    """
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s) AS taken", (_LOCK,)).fetchone()
        if row is not None and row["taken"]:
            return
        time.sleep(_TURN_PAUSE_S)


def _apply(connection: Connection, path: Path, known: dict[str, bytes]) -> str | None:
    text = path.read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode()).digest()
    if path.stem in known:
        if known[path.stem] != digest:
            raise MigrationChanged(path.stem)
        return None
    if is_outside_a_transaction(text):
        _build(connection, path.stem, text, digest)
    else:
        _apply_when_free(connection, path.stem, text, digest)
    log.info("applied migration %s", path.stem)
    return path.stem


def _build(connection: Connection, name: str, text: str, digest: bytes) -> None:
    try:
        build(connection, name, text, locks_within_s=_LOCKS_WITHIN_S)
    except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
        left = invalid_indexes(connection, name, text)
        raise MigrationBlocked(name, _holders(connection), _LOCKS_WITHIN_S, left) from error
    connection.execute(_RECORD, (name, digest))


def _apply_when_free(connection: Connection, name: str, text: str, digest: bytes) -> None:
    """Apply one in a moment in which nobody holds what it needs for long."""
    deadline = time.monotonic() + _LOCKS_WITHIN_S
    while True:
        try:
            with connection.transaction():
                connection.execute(
                    "SELECT set_config('lock_timeout', %s, true)", (f"{_LOCK_WITHIN_S * 1000:.0f}ms",)
                )
                connection.execute(text)
                connection.execute(_RECORD, (name, digest))
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            if time.monotonic() >= deadline:
                raise MigrationBlocked(name, _holders(connection), _LOCKS_WITHIN_S) from error
            log.warning("migration %s waits: others hold its tables", name)
            time.sleep(_PAUSE_S)
        else:
            return


def _holders(connection: Connection) -> list[str]:
    rows = connection.execute(_HOLDERS).fetchmany(_MOST_HOLDERS)
    return [f"{row['name']} (process {row['pid']})" for row in rows]


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
        except (MigrationBlocked, MigrationChanged, NotConcurrent) as error:
            print(error, file=sys.stderr)
            return 1
    print(f"migrations: {len(done.applied)} applied, {done.known} known before")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
