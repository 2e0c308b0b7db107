"""The tables that rows land in: made, checked against their declaration, swapped."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from collect_ops.landing.errors import AsideMissing, DeclarationUnusable, TargetMismatch, statements_of
from collect_ops.landing.layout import (
    ASIDE_SCHEMA,
    SCHEMA,
    ExistingColumn,
    ExistingTable,
    Layout,
    TableColumn,
    aside_name,
    differences,
    fitting_name,
    layout_of,
    quoted,
)
from collect_ops.landing.model import Swap
from collect_ops.landing.renames import mending
from collect_ops.landing.statements import definitions, joined, names, template
from collect_ops.sources.model import Disposition, Target
from collect_ops.sources.stored import NewerDefinition, UnreadableDefinition, load_definition
from collect_ops.storage import Connection, errors, query, sql

log = logging.getLogger(__name__)

#: Declarations of a source that are looked at for a column's earlier name.
_DECLARATIONS: Final = 50


def ensure_target(
    connection: Connection,
    target: Target,
    *,
    by_task: bool = False,
    watched: bool = False,
    source: str | None = None,
) -> None:
    """Make the target's table, or check that the one which is there fits.

    Safe to run twice and at the same time.

    Args:
        connection: Any.
        target: The target.
        by_task: Whether a task's rows shall be found by index, also where landing itself does not need it.
        watched: Whether what is remembered of pages shall be forgotten when somebody deletes rows.
        source: Whose target it is: what it has declared before tells which columns were renamed.

    Raises:
        DeclarationUnusable: The declaration names a type or key that PostgreSQL does not take.
        TargetMismatch: The table that is there does not fit.
    """
    layout = layout_of(target)
    with connection.transaction():
        lock_name(connection, target.table)
        existing = existing_table(connection, target.table)
        if existing is None:
            _create(connection, layout, sql.Identifier(SCHEMA, target.table))
            log.info("made table landing.%s", target.table)
        elif differences(layout, type_names(connection, layout), existing):
            raise _mismatch(connection, target, existing, source)
        if by_task or layout.disposition is Disposition.APPEND:
            _create_shard_index(connection, SCHEMA, target.table)
        if watched:
            _watch(connection, target.table)


def declared_targets(connection: Connection, source: str | None) -> list[Target]:
    """What a source has declared as its target, the newest first; those that cannot be read any more are left out."""
    if source is None:
        return []
    values = {"source": source, "limit": _DECLARATIONS}
    found = []
    for row in connection.execute(query("landing/select_declarations"), values).fetchall():
        try:
            found.append(load_definition(row["version"], row["format"], row["definition"]).target)
        except (NewerDefinition, UnreadableDefinition) as error:
            log.debug("a declaration of source %s tells nothing of its columns: %s", source, error)
    return found


def _mismatch(
    connection: Connection, target: Target, existing: ExistingTable, source: str | None
) -> TargetMismatch:
    layout, declared = layout_of(target), declared_targets(connection, source)
    found = mending(target, layout, type_names(connection, layout), existing, declared)
    later = declared[: declared.index(target)] if target in declared else ()
    return TargetMismatch(
        target.table,
        found,
        statements_of(quoted(target.table), found),
        source=source,
        fits_later=any(fits(connection, each, existing) for each in later),
    )


def fits(connection: Connection, target: Target, existing: ExistingTable) -> bool:
    """Whether rows of a target can land in a table."""
    layout = layout_of(target)
    return not differences(layout, type_names(connection, layout), existing)


def _watch(connection: Connection, table: str) -> None:
    name = {"table_name": table}
    if connection.execute(query("landing/find_trigger"), name).fetchone() is not None:
        return
    # CREATE TRIGGER waits for those who write to the table, so it is left out where there is one already.
    statement = sql.SQL(
        "CREATE OR REPLACE TRIGGER forget_pages AFTER DELETE OR TRUNCATE ON {} "
        "FOR EACH STATEMENT EXECUTE FUNCTION collect.forget_pages()"
    )
    connection.execute(statement.format(sql.Identifier(SCHEMA, table)))
    # Rows may have been deleted while nobody watched.
    connection.execute(query("landing/raise_epoch"), name)


def ensure_aside(connection: Connection, target: Target, task_id: int) -> bool:
    """Make the table that a task of disposition replace lands in until all of it is there. Safe to repeat.

    Args:
        connection: Its transaction holds the task's lock: whoever ends the task meanwhile finds the table and drops it.
        target: Of disposition replace.
        task_id: Whose rows.

    Returns:
        Whether it was made now, and so holds nothing of what the task's shards may have landed before. One that is
        there and was made by another declaration is made anew: no row could land in it.

    Raises:
        DeclarationUnusable: The declaration names a type that PostgreSQL does not take.
    """
    layout, aside = layout_of(target), aside_name(target.table, task_id)
    with connection.transaction():
        lock_name(connection, target.table)
        existing = existing_table(connection, aside, ASIDE_SCHEMA)
        if existing is not None and not differences(layout, type_names(connection, layout), existing):
            return False
        drop_aside(connection, target.table, task_id)
        _create(connection, layout, sql.Identifier(ASIDE_SCHEMA, aside))
        _create_shard_index(connection, ASIDE_SCHEMA, aside)
        return True


def swap(connection: Connection, target: Target, task_id: int) -> Swap:
    """Make a task's aside rows the target's rows, in the caller's transaction. Safe to repeat.

    Readers are never blocked: they see the old rows until the caller commits. When a newer task has swapped,
    the aside rows are dropped and the target stays as it is.

    Args:
        connection: Its transaction holds the target's row in `collect.landing_target` until it ends.
        target: Of disposition replace.
        task_id: Whose rows; a higher one is newer.

    Raises:
        AsideMissing: The task has neither an aside table nor swapped before.
    """
    with connection.transaction():
        row = connection.execute(query("landing/lock_target"), {"table_name": target.table}).fetchone()
        last = row["swapped_task_id"] if row else None
        if last is not None and last > task_id:
            drop_aside(connection, target.table, task_id)
            return Swap.SUPERSEDED
        if existing_table(connection, aside_name(target.table, task_id), ASIDE_SCHEMA) is None:
            if last == task_id:
                return Swap.SWAPPED
            raise AsideMissing(target.table, aside_name(target.table, task_id))
        _replace_rows(connection, target, task_id)
        connection.execute(query("landing/mark_swapped"), {"table_name": target.table, "task_id": task_id})
        return Swap.SWAPPED


def drop_aside(connection: Connection, table: str, task_id: int) -> None:
    """Drop a task's aside table when it is there: it was superseded, or its task ended otherwise."""
    aside = sql.Identifier(ASIDE_SCHEMA, aside_name(table, task_id))
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(aside))


def _replace_rows(connection: Connection, target: Target, task_id: int) -> None:
    table = sql.Identifier(SCHEMA, target.table)
    aside = sql.Identifier(ASIDE_SCHEMA, aside_name(target.table, task_id))
    columns = names(column.name for column in layout_of(target).columns)
    connection.execute(template("empty_target").format(target=table))
    connection.execute(template("take_aside").format(target=table, aside=aside, columns=columns))
    drop_aside(connection, target.table, task_id)


def lock_name(connection: Connection, table: str) -> None:
    """Wait for whoever makes, checks or alters the target of this name, until the transaction ends."""
    connection.execute(query("landing/lock_table_name"), {"table_name": table})


def _create(connection: Connection, layout: Layout, table: sql.Identifier) -> None:
    key = sql.SQL(", PRIMARY KEY ({})").format(names(layout.key)) if layout.key else sql.SQL("")
    columns = definitions(layout.columns)
    statement = sql.SQL("CREATE TABLE IF NOT EXISTS {} ({}{})").format(table, columns, key)
    try:
        connection.execute(statement)
    except (errors.UndefinedObject, errors.SyntaxError, errors.InvalidParameterValue) as error:
        raise _unusable(layout, str(error)) from error


def _create_shard_index(connection: Connection, schema: str, table: str) -> None:
    index = sql.Identifier(fitting_name(table, "_task_shard"))
    statement = sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} (_task_id, _shard)")
    connection.execute(statement.format(index, sql.Identifier(schema, table)))


def existing_table(connection: Connection, table: str, schema: str = SCHEMA) -> ExistingTable | None:
    """The relation of this name, None when there is none."""
    where = {"schema_name": schema, "table_name": table}
    relation = connection.execute(query("landing/describe_relation"), where).fetchone()
    if relation is None:
        return None
    key: Mapping[str, Any] = connection.execute(query("landing/describe_key"), where).fetchone() or {}
    return ExistingTable(
        kind=relation["kind"],
        columns={name: ExistingColumn(**column) for name, column in relation["columns"].items()},
        key=tuple(key.get("columns", ())),
        key_name=key.get("name"),
    )


def type_names(connection: Connection, layout: Layout) -> dict[str, str]:
    """The layout's types in PostgreSQL's own words.

    Before PostgreSQL 17 only the description of a result tells length and precision without making a table.
    """
    described = sql.SQL("SELECT {} LIMIT 0").format(joined(map(_null_of, layout.columns)))
    try:
        result = connection.execute(described).pgresult
    except (errors.UndefinedObject, errors.SyntaxError, errors.InvalidParameterValue) as error:
        raise _unusable(layout, str(error)) from error
    assert result is not None  # noqa: S101 - a SELECT has one
    places = range(len(layout.columns))
    types = {"oids": [result.ftype(i) for i in places], "modifiers": [result.fmod(i) for i in places]}
    rows = connection.execute(query("landing/name_types"), types).fetchall()
    return {column.name: row["name"] for column, row in zip(layout.columns, rows, strict=True)}


def _null_of(column: TableColumn) -> sql.Composed:
    return sql.SQL("NULL::{}").format(sql.SQL(column.type))


def _unusable(layout: Layout, reason: str) -> DeclarationUnusable:
    declared = ", ".join(f"{column.name} {column.type}" for column in layout.data)
    return DeclarationUnusable(layout.table, "columns", declared, f"PostgreSQL says: {reason.strip()}")
