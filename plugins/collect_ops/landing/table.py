"""The tables that rows land in: made, checked against their declaration, swapped."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from collect_ops.landing.errors import AsideMissing, DeclarationUnusable, TargetMismatch
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
)
from collect_ops.landing.model import Swap
from collect_ops.landing.statements import definitions, joined, names, template
from collect_ops.sources.model import Disposition, Target
from collect_ops.storage import Connection, errors, query, sql

log = logging.getLogger(__name__)


def ensure_target(
    connection: Connection, target: Target, *, by_task: bool = False, watched: bool = False
) -> None:
    """Make the target's table, or check that the one which is there fits.

    Safe to run twice and at the same time.

    Args:
        connection: Any.
        target: The target.
        by_task: Whether a task's rows shall be found by index, also where landing itself does not need it.
        watched: Whether what is remembered of pages shall be forgotten when somebody deletes rows.

    Raises:
        DeclarationUnusable: The declaration names a type or key that PostgreSQL does not take.
        TargetMismatch: The table that is there does not fit.
    """
    layout = layout_of(target)
    with connection.transaction():
        _lock_name(connection, target.table)
        existing = _existing(connection, target.table)
        if existing is None:
            _create(connection, layout, sql.Identifier(SCHEMA, target.table))
            log.info("made table landing.%s", target.table)
        elif found := differences(layout, _type_names(connection, layout), existing):
            raise TargetMismatch(target.table, found)
        if by_task or layout.disposition is Disposition.APPEND:
            _create_shard_index(connection, SCHEMA, target.table)
        if watched:
            _watch(connection, target.table)


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


def ensure_aside(connection: Connection, target: Target, task_id: int) -> None:
    """Make the table that a task of disposition replace lands in until all of it is there. Safe to repeat.

    Raises:
        DeclarationUnusable: The declaration names a type that PostgreSQL does not take.
    """
    aside = aside_name(target.table, task_id)
    with connection.transaction():
        _lock_name(connection, target.table)
        _create(connection, layout_of(target), sql.Identifier(ASIDE_SCHEMA, aside))
        _create_shard_index(connection, ASIDE_SCHEMA, aside)


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
        if _existing(connection, aside_name(target.table, task_id), ASIDE_SCHEMA) is None:
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


def _lock_name(connection: Connection, table: str) -> None:
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


def _existing(connection: Connection, table: str, schema: str = SCHEMA) -> ExistingTable | None:
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


def _type_names(connection: Connection, layout: Layout) -> dict[str, str]:
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
