"""Rows that a task has fetched twice, where landing does not see it: those of a table without a primary key."""

from __future__ import annotations

from typing import Final

from collect_ops.landing.layout import ASIDE_SCHEMA, SCHEMA, aside_name
from collect_ops.landing.statements import names, template
from collect_ops.sources.model import Disposition, Target
from collect_ops.storage import Connection, errors, sql

#: Of more rows it is not known: to count them takes longer than anybody waits for a task's end.
MAX_COUNTED_ROWS: Final = 1_000_000


def counts_at_landing(target: Target) -> bool:
    """Whether rows that are fetched twice are counted as they land, by their primary key."""
    return target.disposition is Disposition.MERGE


def count_repeated(connection: Connection, target: Target, task_id: int, *, rows_landed: int) -> int | None:
    """How many of a task's rows it has fetched before; None where that is not counted.

    Two rows are one when their keys are equal, or, where no key is declared, all that was collected of them.

    Args:
        connection: In no transaction: nobody waits for this.
        target: Of disposition append or replace.
        task_id: The task, which lands no more.
        rows_landed: By the task.
    """
    if rows_landed > MAX_COUNTED_ROWS:
        return None
    row_key = names(target.key if target.columns and target.key else ("_content_hash",))
    try:
        row = connection.execute(
            template("count_repeated").format(target=_table(target, task_id), row_key=row_key),
            {"task_id": task_id},
        ).fetchone()
    except (errors.UndefinedTable, errors.UndefinedColumn):
        return None  # settling says what is the matter with the table
    return None if row is None else int(row["repeated"])


def _table(target: Target, task_id: int) -> sql.Identifier:
    if target.disposition is Disposition.REPLACE:
        return sql.Identifier(ASIDE_SCHEMA, aside_name(target.table, task_id))
    return sql.Identifier(SCHEMA, target.table)
