"""Whether the database has what this code needs: which migrations are applied, and which are missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo

from collect_ops.kernel.errors import CollectOpsError, OwnOutage
from collect_ops.kernel.paths import include_dir

if TYPE_CHECKING:
    from collect_ops.storage.postgres import Connection

#: What a statement meets whose table, column or function a migration has not made yet.
UNDEFINED = (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction, errors.UndefinedObject)


class SchemaBehind(CollectOpsError, OwnOutage):
    """This code needs migrations that the database does not have: it has started before they were applied.

    Nobody's failure: what met it goes on when they are.
    """

    def __init__(self, missing: tuple[str, ...]) -> None:
        self.missing = missing
        super().__init__(
            f"the database lacks what this code needs: {', '.join(missing)}; "
            "apply it with `make up` (containers: `docker compose up`, whose job airflow-init does it)"
        )


def migration_files(directory: Path | None = None) -> list[Path]:
    """The migrations, in order of their names."""
    return sorted((directory or include_dir() / "sql" / "migrations").glob("*.sql"))


def applied_migrations(connection: Connection) -> dict[str, bytes]:
    """The applied migrations' names, each with the digest of its text.

    Raises:
        psycopg.errors.UndefinedTable: Nothing was ever applied.
    """
    rows = connection.execute("SELECT name, sha256 FROM public.schema_migration").fetchall()
    return {row["name"]: bytes(row["sha256"]) for row in rows}


def missing_before(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> tuple[str, ...]:
    """The migrations that this code needs and the database lacks; those after an upgrade are needed by nobody.

    It is asked on a connection of its own: the given one may be in a failed transaction.

    Raises:
        psycopg.Error: It could not be asked.
    """
    info = connection.info
    dsn = make_conninfo(info.dsn, password=info.password)
    with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as own:
        known = {name for (name,) in own.execute("SELECT name FROM public.schema_migration").fetchall()}
    needed = [path.stem for path in migration_files() if not path.stem.endswith(".after")]
    return tuple(name for name in needed if name not in known)
