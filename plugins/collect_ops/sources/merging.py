"""Which part of a source's data a task asks for, and when the parts of two tasks are one part. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from collect_ops.sources.declaration import Scalar
from collect_ops.sources.model import Merge, MergeList, MergeRange, Source
from collect_ops.sources.params import ParamType

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000
#: How far apart the neighbours of a type are: 0 where there is always another value in between.
_STEP = {ParamType.INTEGER: 1, ParamType.DATE: 1, ParamType.NUMBER: 0, ParamType.DATETIME: 0}
#: What a length of 1 is in the positions of a type.
_UNIT = {ParamType.INTEGER: 1, ParamType.DATE: 1, ParamType.NUMBER: 1, ParamType.DATETIME: _DAY_US}


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """A list of values.

    Args:
        items: In the order they were asked for, each once.
    """

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A range.

    Args:
        low: Position of its first value.
        high: Position of its last value.
        start: The first value as the parameter has it.
        end: The last value as the parameter has it.
    """

    low: float
    high: float
    start: Scalar
    end: Scalar


Part = Values | Interval


def merge_params(merge: Merge) -> tuple[str, ...]:
    """The parameters by which tasks that may be merged differ."""
    return (merge.param,) if isinstance(merge, MergeList) else (merge.start, merge.end)


def part_of(source: Source, params: Mapping[str, Scalar]) -> Part | None:
    """The part of the data that a task asks for; None when it cannot be merged: a parameter is missing, or empty.

    Args:
        source: With `merge` declared.
        params: The task's parameters, checked.
    """
    merge = source.merge
    if isinstance(merge, MergeList):
        text = str(params.get(merge.param) or "")
        items = tuple(dict.fromkeys(one.strip() for one in text.split(merge.separator) if one.strip()))
        return Values(items=items) if items else None
    if merge is None:
        return None
    start, end = params.get(merge.start), params.get(merge.end)
    if start is None or end is None:
        return None
    kind = source.request.params[merge.start].type
    interval = Interval(low=_position(kind, start), high=_position(kind, end), start=start, end=end)
    return interval if interval.low <= interval.high else None


def joined(source: Source, one: Part, other: Part) -> Part | None:
    """Both parts as one; None when they would not be one, or one too large.

    Args:
        source: With `merge` declared.
        one: Of the task that stays; its values come first.
        other: Of the task that is merged into it.
    """
    merge = source.merge
    if isinstance(merge, MergeList) and isinstance(one, Values) and isinstance(other, Values):
        items = tuple(dict.fromkeys((*one.items, *other.items)))
        return Values(items=items) if len(items) <= merge.max_values else None
    if isinstance(merge, MergeRange) and isinstance(one, Interval) and isinstance(other, Interval):
        return _joined_range(source, merge, one, other)
    return None


def with_part(source: Source, params: Mapping[str, Scalar], part: Part) -> dict[str, Scalar]:
    """A task's parameters, asking for this part."""
    merge = source.merge
    if isinstance(merge, MergeList) and isinstance(part, Values):
        return {**params, merge.param: merge.separator.join(part.items)}
    if isinstance(merge, MergeRange) and isinstance(part, Interval):
        return {**params, merge.start: part.start, merge.end: part.end}
    raise ValueError(f"source {source.name} cannot ask for {part}")


def _joined_range(source: Source, merge: MergeRange, one: Interval, other: Interval) -> Interval | None:
    kind = source.request.params[merge.start].type
    step = _STEP[kind] if merge.end_inclusive else 0
    first, second = sorted((one, other), key=lambda part: part.low)
    if second.low > first.high + step:
        return None
    last = max(one, other, key=lambda part: part.high)
    whole = Interval(low=first.low, high=last.high, start=first.start, end=last.end)
    too_long = merge.max_length is not None and whole.high - whole.low + step > merge.max_length * _UNIT[kind]
    return None if too_long else whole


def _position(kind: ParamType, value: Scalar) -> float:
    """Where a canonical value stands among those of its type: numbers as they are, days, microseconds."""
    if kind is ParamType.DATE:
        return date.fromisoformat(str(value)).toordinal()
    if kind is ParamType.DATETIME:
        return (datetime.fromisoformat(str(value)) - _EPOCH) // timedelta(microseconds=1)
    if not isinstance(value, int | float):
        raise TypeError(f"a value of type {kind} must be a number, got {value!r}")
    return value
