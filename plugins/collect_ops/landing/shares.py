"""Whose rows are whose, when one task has collected for several callers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from collect_ops.landing.layout import SCHEMA
from collect_ops.landing.statements import template
from collect_ops.sources.declaration import Scalar
from collect_ops.sources.merging import Interval, Values, part_of
from collect_ops.sources.model import MergeList, MergeRange, Source
from collect_ops.sources.params import ParamType
from collect_ops.storage import Connection, Jsonb, sql

_COMPARED_AS: Final = {
    ParamType.INTEGER: "numeric",
    ParamType.NUMBER: "numeric",
    ParamType.DATE: "date",
    ParamType.DATETIME: "timestamptz",
}


def count_shares(
    connection: Connection, source: Source, task_id: int, callers: Mapping[int, Mapping[str, Scalar]]
) -> dict[int, int]:
    """How many of the rows that a task landed are each caller's.

    Args:
        connection: Any.
        source: As the task was admitted with, `merge` declared.
        task_id: The task that collected.
        callers: Task ids with the parameters that each of them asked for.

    Returns:
        Rows by caller; a row that two asked for counts for both.
    """
    merge = source.merge
    if merge is None:
        raise ValueError(f"source {source.name} does not merge")
    kind = "text" if isinstance(merge, MergeList) else _COMPARED_AS[source.request.params[merge.start].type]
    statement = template("count_shares").format(
        target=sql.Identifier(SCHEMA, source.target.table),
        part=sql.SQL("{}::{}").format(sql.Identifier(merge.column), sql.SQL(kind)),
        condition=_condition(merge, kind),
    )
    asked = [_asked(source, caller, params) for caller, params in sorted(callers.items())]
    rows = connection.execute(statement, {"task_id": task_id, "callers": Jsonb(asked)}).fetchall()
    return {row["task_id"]: row["many"] for row in rows}


def _condition(merge: MergeList | MergeRange, kind: str) -> sql.Composable:
    if isinstance(merge, MergeList):
        return sql.SQL("landed.value = ANY(caller.items)")
    below = "<=" if merge.end_inclusive else "<"
    return sql.SQL("landed.value >= caller.low::{0} AND landed.value {1} caller.high::{0}").format(
        sql.SQL(kind), sql.SQL(below)
    )


def _asked(source: Source, caller: int, params: Mapping[str, Scalar]) -> dict[str, object]:
    part = part_of(source, params)
    if isinstance(part, Values):
        return {"task_id": caller, "items": list(part.items)}
    if isinstance(part, Interval):
        return {"task_id": caller, "low": str(part.start), "high": str(part.end)}
    return {"task_id": caller}
