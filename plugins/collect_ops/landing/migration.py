"""Altering a target's table so that it fits what its source declares now: looked at first, then in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from collect_ops.landing.errors import Difference, MigrationRefused, TableBusy, statements_of
from collect_ops.landing.layout import ExistingTable, layout_of, quoted
from collect_ops.landing.renames import after_mending, after_renames, mending, proposed_renames
from collect_ops.landing.table import declared_targets, existing_table, fits, lock_name, type_names
from collect_ops.sources.model import Source
from collect_ops.sources.stored import NewerDefinition, UnreadableDefinition, load_definition
from collect_ops.storage import Connection, errors, query, sql

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """What has to be done to a table, or was done.

    Args:
        table: Its name in schema `landing`.
        exists: False: the first task makes it, and nothing has to be done.
        differences: Where it does not fit.
        statements: What mends it, in this order.
        bound_tasks: Tasks that have not ended and were admitted with an earlier declaration, which the table would not
            fit any more.
        refusal: Why it cannot be done by statements; None when it can.
        applied: It was done.
    """

    table: str
    exists: bool
    differences: tuple[Difference, ...] = ()
    statements: tuple[str, ...] = ()
    bound_tasks: tuple[int, ...] = ()
    refusal: str | None = None
    applied: bool = False

    @property
    def fits(self) -> bool:
        """Whether there is nothing to do."""
        return not self.differences

    @property
    def rewrites(self) -> bool:
        """Whether PostgreSQL may write every row anew, while nobody reads or writes."""
        return any(difference.rewrites for difference in self.differences)

    @property
    def remedy(self) -> str:
        """The statements, as one text."""
        return "; ".join(self.statements)


def plan_migration(connection: Connection, source: Source, *, rename: bool = True) -> Migration:
    """What has to be done to a source's table; changes nothing.

    Args:
        connection: Any.
        source: As it is declared now.
        rename: Whether a column that only has another name is renamed; else a new one is added and the old one stays.

    Raises:
        DeclarationUnusable: The declaration names a type or key that PostgreSQL does not take.
    """
    target = source.target
    existing = existing_table(connection, target.table)
    if existing is None:
        return Migration(table=target.table, exists=False)
    if fits(connection, target, existing):
        return Migration(table=target.table, exists=True)
    layout = layout_of(target)
    types = type_names(connection, layout)
    declared = declared_targets(connection, source.name)
    found = mending(target, layout, types, existing, declared, rename=rename)
    if existing.kind != "table":
        refusal = f"it is a {existing.kind}, not a table: {found[0].remedy}"
        return Migration(table=target.table, exists=True, differences=found, refusal=refusal)
    renames = proposed_renames(target, types, existing, declared) if rename else {}
    mended = after_mending(layout, types, after_renames(existing, renames))
    return Migration(
        table=target.table,
        exists=True,
        differences=found,
        statements=statements_of(quoted(target.table), found),
        bound_tasks=_bound_tasks(connection, source, existing, mended),
    )


def apply_migration(
    connection: Connection, source: Source, *, rename: bool = True, force: bool = False, lock_timeout_s: float
) -> Migration:
    """Do what `plan_migration` says, in one transaction.

    Args:
        connection: In autocommit.
        source: As it is declared now.
        rename: As for `plan_migration`.
        force: Also when tasks under way would not fit any more.
        lock_timeout_s: How long to wait for whoever uses the table. Others wait behind the wait.

    Raises:
        DeclarationUnusable: The declaration names a type or key that PostgreSQL does not take.
        MigrationRefused: It cannot be done, or must not be done now; nothing was changed.
        TableBusy: Somebody uses the table for longer; nothing was changed.
    """
    planned = plan_migration(connection, source, rename=rename)
    try:
        with connection.transaction():
            connection.execute(
                sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(f"{int(lock_timeout_s * 1000)}ms"))
            )
            lock_name(connection, source.target.table)
            planned = plan_migration(connection, source, rename=rename)
            if planned.fits:
                return planned
            _refuse(planned, force=force)
            for statement in planned.statements:
                connection.execute(statement)
            left = plan_migration(connection, source, rename=False)
            if not left.fits:
                differences = "; ".join(map(str, left.differences))
                raise MigrationRefused(
                    planned.table, f"it would still not fit: {differences}", planned.remedy
                )
    except errors.LockNotAvailable as error:
        raise TableBusy(planned.table, lock_timeout_s) from error
    except (errors.OperationalError, errors.InterfaceError):
        raise
    except errors.DatabaseError as error:
        # Values that do not fit the new type, a view that stands on the column, rows that are no key: for people.
        raise MigrationRefused(
            planned.table, f"PostgreSQL says: {str(error).strip()}", planned.remedy
        ) from error
    log.info("landing.%s was altered: %s", planned.table, planned.remedy)
    return Migration(
        table=planned.table,
        exists=True,
        differences=planned.differences,
        statements=planned.statements,
        bound_tasks=planned.bound_tasks,
        applied=True,
    )


def _refuse(planned: Migration, *, force: bool) -> None:
    if planned.refusal is not None:
        raise MigrationRefused(planned.table, planned.refusal, planned.remedy)
    if planned.bound_tasks and not force:
        raise MigrationRefused(planned.table, bound_reason(planned.bound_tasks), planned.remedy)


def bound_reason(task_ids: Sequence[int]) -> str:
    """Why a table is not altered while tasks land in it as it is."""
    shown = ", ".join(map(str, task_ids[:10])) + (" …" if len(task_ids) > 10 else "")
    return (
        f"{len(task_ids)} task(s) that have not ended were admitted with an earlier declaration, which the table would "
        f"not fit any more: {shown}; wait for them, cancel them, or migrate all the same (--force)"
    )


def _bound_tasks(
    connection: Connection, source: Source, existing: ExistingTable, mended: ExistingTable
) -> tuple[int, ...]:
    bound: list[int] = []
    rows: list[dict[str, Any]] = connection.execute(
        query("landing/select_bound_tasks"), {"source": source.name}
    ).fetchall()
    for row in rows:
        try:
            target = load_definition(row["version"], row["format"], row["definition"]).target
        except (NewerDefinition, UnreadableDefinition) as error:
            log.debug(
                "tasks %s land nothing by a declaration that is not understood: %s", row["task_ids"], error
            )
            continue
        same = target.table == source.target.table
        if same and fits(connection, target, existing) and not fits(connection, target, mended):
            bound += row["task_ids"]
    return tuple(sorted(bound))
