"""What cutting a task into shards demands of a source: parameters of a type that can be cut, bounds that fit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from collect_ops.kernel.errors import Fault
from collect_ops.sources.model import (
    AskedRange,
    CountShards,
    DateWindowShards,
    KeyRangeShards,
    MergeList,
    MergeRange,
    OffsetPaging,
    PagePaging,
    Source,
    ValuesShards,
)
from collect_ops.sources.params import ParamType, Unfit
from collect_ops.sources.window import Window


def shard_faults(source: Source) -> Iterator[Fault]:
    """What is wrong with `shards`."""
    match source.shards:
        case CountShards() as rule:
            yield from _count_faults(source, rule)
        case KeyRangeShards() as rule:
            yield from _range_faults(source, "low", "high", (ParamType.INTEGER,))
            yield from _step_faults(rule)
        case DateWindowShards() as rule:
            yield from _range_faults(source, "start", "end", (ParamType.DATE, ParamType.DATETIME))
            yield from _window_faults(source, rule)
        case ValuesShards() as rule:
            yield from _values_faults(source, rule)
    yield from _merge_faults(source)


def asked_range_of(source: Source) -> AskedRange | None:
    """The request that tells the range, when the source has one."""
    rule = source.shards
    return rule.range if isinstance(rule, KeyRangeShards | DateWindowShards) else None


def _count_faults(source: Source, rule: CountShards) -> Iterator[Fault]:
    if not isinstance(source.paging, OffsetPaging | PagePaging):
        for name in ("target_s", "min_size", "max_size"):
            if (value := getattr(rule, name)) is not None:
                problem = f"means nothing with paging.type {source.paging.type}, which cannot be split"
                yield Fault(field=f"shards.{name}", value=value, problem=problem)
        return
    page, batch = source.page_size or source.batch_size, source.batch_size
    if rule.min_size is not None and not page <= rule.min_size <= batch:
        problem = f"must be {page}, the rows of a page, to {batch}, the batch_size"
        yield Fault(field="shards.min_size", value=rule.min_size, problem=problem)
    if rule.max_size is not None and rule.max_size < batch:
        problem = f"must not be below batch_size, {batch}"
        yield Fault(field="shards.max_size", value=rule.max_size, problem=problem)


def _step_faults(rule: KeyRangeShards) -> Iterator[Fault]:
    if rule.min_step is not None and rule.min_step > rule.step:
        problem = f"must not be above step, {rule.step}"
        yield Fault(field="shards.min_step", value=rule.min_step, problem=problem)
    if rule.max_step is not None and rule.max_step < rule.step:
        problem = f"must not be below step, {rule.step}"
        yield Fault(field="shards.max_step", value=rule.max_step, problem=problem)
    if rule.target_s is not None and rule.min_step is None and rule.max_step is None:
        problem = "means nothing without min_step or max_step: the step does not adapt"
        yield Fault(field="shards.target_s", value=rule.target_s, problem=problem)


def _range_faults(source: Source, low: str, high: str, types: tuple[ParamType, ...]) -> Iterator[Fault]:
    rule, params = source.shards, source.request.params
    names = getattr(rule, low), getattr(rule, high)
    for field, name in zip((low, high), names, strict=True):
        yield from _param_faults(source, field, name, types)
    if names[0] == names[1]:
        yield Fault(
            field=f"shards.{high}", value=names[1], problem=f"must not be the parameter that {low} is"
        )
    elif all(name in params and params[name].type in types for name in names) and (
        params[names[0]].type != params[names[1]].type
    ):
        problem = f"must be of the same type as {low}, {params[names[0]].type}"
        yield Fault(field=f"shards.{high}", value=names[1], problem=problem)


def _param_faults(source: Source, field: str, name: str, types: tuple[ParamType, ...]) -> Iterator[Fault]:
    param = source.request.params.get(name)
    if param is None:
        yield Fault(
            field=f"shards.{field}",
            value=name,
            problem="is not a parameter of request.params",
            allowed=tuple(source.request.params),
        )
    elif param.type not in types:
        problem = f"must be a parameter of type {' or '.join(types)}, is {param.type}"
        yield Fault(field=f"shards.{field}", value=name, problem=problem)
    elif param.allowed or param.pattern:
        problem = "must not have allowed values or a pattern: what a shard asks for would not fit them"
        yield Fault(field=f"shards.{field}", value=name, problem=problem)
    elif asked_range_of(source) is None and not param.required and param.default is None:
        problem = "must be required or have a default: nothing else tells the range (or declare shards.range)"
        yield Fault(field=f"request.params.{name}", value=None, problem=problem)


def _window_faults(source: Source, rule: DateWindowShards) -> Iterator[Fault]:
    if (rule.window is None) == (rule.days is None):
        problem = "is needed: window or days" if rule.window is None else "must not be given beside days"
        yield Fault(field="shards.window", value=rule.window, problem=problem)
    param = source.request.params.get(rule.start)
    kind = None if param is None else param.type
    if kind is ParamType.DATE:
        if rule.window is not None and Window.of(rule.window).length % timedelta(days=1):
            problem = "must be whole days: the parameters are dates"
            yield Fault(field="shards.window", value=rule.window, problem=problem)
        if rule.resolution is not None:
            problem = "is for datetimes: dates have days"
            yield Fault(field="shards.resolution", value=rule.resolution, problem=problem)
    elif kind is ParamType.DATETIME:
        yield from _resolution_faults(rule)


def _resolution_faults(rule: DateWindowShards) -> Iterator[Fault]:
    if rule.bounds == "half_open":
        if rule.resolution is not None:
            problem = "means nothing with half_open bounds"
            yield Fault(field="shards.resolution", value=rule.resolution, problem=problem)
    elif rule.resolution is None:
        problem = "is needed with closed bounds: where one window ends and the next begins (PT1S)"
        yield Fault(field="shards.resolution", value=None, problem=problem)
    elif Window.of(rule.resolution).months or timedelta(days=1) % Window.of(rule.resolution).length:
        problem = "must be a part of a day that divides it, such as PT1S or PT0.001S"
        yield Fault(field="shards.resolution", value=rule.resolution, problem=problem)
    elif rule.window is not None and Window.of(rule.resolution).least >= Window.of(rule.window).least:
        problem = f"must be shorter than window, {rule.window}"
        yield Fault(field="shards.resolution", value=rule.resolution, problem=problem)


def _values_faults(source: Source, rule: ValuesShards) -> Iterator[Fault]:
    param = source.request.params.get(rule.param)
    if param is None:
        yield Fault(
            field="shards.param",
            value=rule.param,
            problem="is not a parameter of request.params",
            allowed=tuple(source.request.params),
        )
        return
    if rule.separator is not None and param.type is not ParamType.STRING:
        problem = f"must be a parameter of type string to hold a list, is {param.type}"
        yield Fault(field="shards.param", value=rule.param, problem=problem)
    elif rule.separator is not None and (param.allowed or param.pattern):
        problem = "must not have allowed values or a pattern: a list of values would not fit them"
        yield Fault(field="shards.param", value=rule.param, problem=problem)
    if rule.per_shard > 1 and rule.separator is None:
        problem = "needs shards.separator: without it the parameter holds one value"
        yield Fault(field="shards.per_shard", value=rule.per_shard, problem=problem)
    if not rule.values and not param.required and param.default is None:
        problem = f"is needed: {rule.param} is neither required nor has a default"
        yield Fault(field="shards.values", value=None, problem=problem)
    for index, value in enumerate(rule.values):
        try:
            text = param.coerce_declared(value)
        except Unfit as unfit:
            yield Fault(
                field=f"shards.values.{index}", value=value, problem=unfit.problem, allowed=unfit.allowed
            )
            continue
        if rule.separator is not None and (not str(text).strip() or rule.separator in str(text)):
            problem = f"must not be blank or hold the separator {rule.separator!r}"
            yield Fault(field=f"shards.values.{index}", value=value, problem=problem)


def _merge_faults(source: Source) -> Iterator[Fault]:
    """Merging joins what sharding cuts: both must mean the same by it."""
    merge, rule = source.merge, source.shards
    if isinstance(merge, MergeList) and isinstance(rule, ValuesShards) and merge.param == rule.param:
        if merge.separator != rule.separator:
            problem = f"must be merge.separator, {merge.separator!r}"
            yield Fault(field="shards.separator", value=rule.separator, problem=problem)
    elif isinstance(merge, MergeRange) and isinstance(rule, KeyRangeShards | DateWindowShards):
        ends = (rule.low, rule.high) if isinstance(rule, KeyRangeShards) else (rule.start, rule.end)
        if {merge.start, merge.end} & set(ends) and merge.end_inclusive != (rule.bounds == "closed"):
            wanted = "closed" if merge.end_inclusive else "half_open"
            problem = f"must be {wanted}, as merge.end_inclusive says"
            yield Fault(field="shards.bounds", value=rule.bounds, problem=problem)
