"""What merging demands of a source: parameters of a type that can be joined, a column that tells whose a row is."""

from __future__ import annotations

from collections.abc import Iterator

from collect_ops.kernel.errors import Fault
from collect_ops.sources.model import Disposition, MergeList, MergeRange, Source
from collect_ops.sources.params import ParamType

_RANGE_TYPES = (ParamType.INTEGER, ParamType.NUMBER, ParamType.DATE, ParamType.DATETIME)
#: Which columns a range of a type can be compared with.
_FITTING = {
    ParamType.INTEGER: ("smallint", "integer", "bigint", "numeric", "real", "double precision"),
    ParamType.NUMBER: ("smallint", "integer", "bigint", "numeric", "real", "double precision"),
    ParamType.DATE: ("date", "timestamp", "timestamptz"),
    ParamType.DATETIME: ("timestamp", "timestamptz"),
}


def merge_faults(source: Source) -> Iterator[Fault]:
    """What is wrong with `merge`."""
    merge = source.merge
    if merge is None:
        return
    if source.target.disposition is Disposition.REPLACE:
        problem = "replace swaps the whole table, so its tasks cannot share their rows"
        yield Fault(field="merge", value="replace", problem=f"does not go with target.disposition: {problem}")
    if isinstance(merge, MergeList):
        yield from _param_faults(source, "param", merge.param, (ParamType.STRING,))
    else:
        yield from _param_faults(source, "start", merge.start, _RANGE_TYPES)
        yield from _param_faults(source, "end", merge.end, _RANGE_TYPES)
        yield from _ends_faults(source, merge)
    yield from _column_faults(source)


def _param_faults(source: Source, field: str, name: str, types: tuple[ParamType, ...]) -> Iterator[Fault]:
    param = source.request.params.get(name)
    if param is None:
        yield Fault(
            field=f"merge.{field}",
            value=name,
            problem="is not a parameter of request.params",
            allowed=tuple(source.request.params),
        )
    elif param.type not in types:
        yield Fault(
            field=f"merge.{field}",
            value=name,
            problem=f"must be a parameter of type {' or '.join(types)}, is {param.type}",
        )
    elif param.allowed or param.pattern:
        yield Fault(
            field=f"merge.{field}",
            value=name,
            problem="must not have allowed values or a pattern: what was merged would not fit them",
        )


def _ends_faults(source: Source, merge: MergeRange) -> Iterator[Fault]:
    params = source.request.params
    if merge.start == merge.end:
        yield Fault(field="merge.end", value=merge.end, problem="must not be the parameter that start is")
    elif merge.start in params and merge.end in params and params[merge.start].type != params[merge.end].type:
        problem = f"must be of the same type as start, {params[merge.start].type}"
        yield Fault(field="merge.end", value=merge.end, problem=problem)


def _column_faults(source: Source) -> Iterator[Fault]:
    merge, columns = source.merge, source.target.columns
    if merge is None:
        return
    if merge.column not in columns:
        yield Fault(
            field="merge.column",
            value=merge.column,
            problem="is not a column of the target",
            allowed=tuple(columns),
        )
    elif isinstance(merge, MergeRange) and merge.start in source.request.params:
        kind = source.request.params[merge.start].type
        fitting = _FITTING.get(kind, ())
        if fitting and columns[merge.column].type.split("(")[0] not in fitting:
            problem = f"must have a type that a {kind} can be compared with"
            yield Fault(field="merge.column", value=merge.column, problem=problem, allowed=fitting)
