"""Cutting a task into shards, by the rule that its source declares."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Any

from collect_ops.collectors.http import HttpCollector
from collect_ops.collectors.totals import NamedTotal
from collect_ops.execution.entry_point import ShardContext, described_shards
from collect_ops.execution.policy import MAX_SHARDS, ShardSpan, TooManyShards, split
from collect_ops.execution.ranges import closed_windows, hands, key_ranges, moment_of, windows
from collect_ops.execution.sizing import History, ShardSize, SizeBounds, aimed_size, spread
from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.sources.declaration import Scalar
from collect_ops.sources.model import (
    AskedRange,
    CountShards,
    DateWindowShards,
    EntryPointShards,
    KeyRangeShards,
    RequestTotal,
    Source,
    ValuesShards,
)
from collect_ops.sources.paging_rules import can_be_split
from collect_ops.sources.params import ParamType, Unfit
from collect_ops.sources.request import RenderedRequest, admitted_params, render_admitted, render_asked
from collect_ops.sources.templates import text_of
from collect_ops.sources.window import Window

#: Characters of a shard's label.
_LABEL = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A task in parts.

    Args:
        shards: Them; none when there is nothing to collect.
        total: Rows of the whole that the source has named, None when it has not.
        why: How they came about, for people.
        aimed: What the size of the next task's shards is damped against; None where sizes do not adapt.
    """

    shards: tuple[ShardSpan, ...]
    total: int | None
    why: str
    aimed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CutTask:
    """What is cut.

    Args:
        source: As the task was admitted with.
        params: The task's parameters.
        history: How fast its source was.
        target_s: Seconds that a shard shall take, where the source says nothing.
        task_id: None for a preview.
        attempt: None for a preview.
    """

    source: Source
    params: Mapping[str, Scalar]
    history: History
    target_s: float
    task_id: int | None = None
    attempt: int | None = None


def pace_unit(source: Source) -> str | None:
    """What a source's pace is measured in, `rows` or `keys`; None where its shards have the size that it declares."""
    rule = source.shards
    if isinstance(rule, CountShards) and can_be_split(source):
        return "rows"
    adapts = isinstance(rule, KeyRangeShards) and (rule.min_step is not None or rule.max_step is not None)
    return "keys" if adapts else None


async def cut(task: CutTask, collector: HttpCollector) -> Cut:
    """Cut a task.

    Args:
        task: The task.
        collector: Asks the source for what has to be known: its total, the ends of a range.

    Raises:
        CollectOpsError: It cannot be cut; `Transient` or `Permanent` says whether it stays so.
    """
    if isinstance(task.source.shards, CountShards):
        return _by_count(task, task.source.shards, await collector.named_total())
    found, counting = await divide(task, collector)
    return found if counting is None else replace(found, total=await collector.total(counting))


async def divide(task: CutTask, collector: HttpCollector) -> tuple[Cut, RenderedRequest | None]:
    """Cut a task by something else than its total, which is not asked for.

    Args:
        task: The task; its shards are not by count.
        collector: Asks the source for the ends of a range.

    Returns:
        The parts, and the request that counts the whole of them; None where nothing does: then each shard's pages are
        held to the total that they name.

    Raises:
        CollectOpsError: It cannot be cut; `Transient` or `Permanent` says whether it stays so.
    """
    found, whole = await _divided(task, collector)
    if not found.shards or whole is None or not isinstance(task.source.total, RequestTotal):
        return found, None
    return found, render_admitted(task.source, {**task.params, **whole}).total


async def _divided(task: CutTask, collector: HttpCollector) -> tuple[Cut, Mapping[str, Scalar] | None]:
    """The parts, and the parameters that ask for the whole of them, where anything can."""
    match task.source.shards:
        case CountShards():
            raise ValueError("shards by count are cut by their total")
        case KeyRangeShards() as rule:
            ends = await _ends(task, collector, rule.low, rule.high, rule.range)
            return _by_key(task, rule, ends), dict(zip((rule.low, rule.high), ends or (), strict=False))
        case DateWindowShards() as rule:
            ends = await _ends(task, collector, rule.start, rule.end, rule.range)
            return _by_window(task, rule, ends), dict(zip((rule.start, rule.end), ends or (), strict=False))
        case ValuesShards() as rule:
            return _by_values(task, rule)
        case EntryPointShards() as rule:
            # In a thread: the function may run an event loop of its own.
            return await asyncio.to_thread(_by_entry_point, task, rule), {}


def size_bounds(source: Source, rule: CountShards) -> SizeBounds:
    """What a source allows the shards by count."""
    page = source.page_size or source.batch_size
    most = rule.max_size or max(source.batch_size, page * source.limits.max_pages)
    return SizeBounds(declared=source.batch_size, least=rule.min_size or page, most=most, grain=page)


def _by_count(task: CutTask, rule: CountShards, named: NamedTotal) -> Cut:
    source, total = task.source, named.rows
    if total is None or pace_unit(source) is None:
        reason = named.problem or "the total is unknown"
        if total is not None:
            reason = f"paging {source.paging.type} cannot be split"
        return Cut(shards=tuple(split(source, None)), total=total, why=f"one shard streams: {reason}")
    bounds = size_bounds(source, rule)
    aimed = aimed_size(task.history, bounds, rule.target_s or task.target_s)
    sized = spread(aimed, bounds, total, source.limits.concurrency)
    open_end = named.at_least or named.pages_tell_end
    shards = tuple(split(source, total, sized.size, open_end=open_end))
    reason = (
        f"there may be more than {total:,} rows"
        if named.at_least
        else "pages say themselves whether there are more"
    )
    why = f"{sized.why}; the last one has no end, since {reason}" if open_end else sized.why
    return Cut(shards=shards, total=total, why=why, aimed=sized.aimed)


async def _ends(
    task: CutTask, collector: HttpCollector, low: str, high: str, asked: AskedRange | None
) -> tuple[Scalar, Scalar] | None:
    """The first value and the end that the task asks for, canonical; None when there is nothing to collect."""
    params = admitted_params(task.source, task.params)
    found = {name: params[name] for name in (low, high) if name in params}
    if len(found) < 2:
        if asked is None:
            raise ValidationFailed(
                f"shards of source {task.source.name}",
                [
                    Fault(
                        field=f"params.{name}", value=None, problem="is missing: nothing else tells the range"
                    )
                    for name in (low, high)
                    if name not in found
                ],
            )
        request = render_asked(task.source, asked, params)
        told = await collector.values(
            request, {"shards.range.low": asked.low, "shards.range.high": asked.high}
        )
        given = dict(zip((low, high), told, strict=True))
        if any(value is None for value in given.values()):
            return None
        for name in (low, high):
            try:
                found.setdefault(name, _told(task.source, name, given[name], end=name == high))
            except (Unfit, OverflowError) as error:
                end_name = "high" if name == high else "low"
                value = collector.excerpt(given[name])
                fault = Fault(
                    field=f"shards.range.{end_name}",
                    value=value,
                    problem=f"for {name}: {collector.excerpt(str(error))}",
                )
                raise ValidationFailed(f"shards of source {task.source.name}", [fault]) from error
        if _place(task.source, low, found[low]) > _place(task.source, high, found[high]):
            return None  # who asks for what comes after the last one there is asks for nothing that is wrong
    return found[low], found[high]


def _place(source: Source, name: str, value: Scalar) -> Any:
    """Where a canonical value stands among those of its parameter: a number, or a moment."""
    match source.request.params[name].type:
        case ParamType.DATE:
            return moment_of(date.fromisoformat(str(value)))
        case ParamType.DATETIME:
            return datetime.fromisoformat(str(value))
        case _:
            return int(str(value))


def _told(source: Source, name: str, value: object, *, end: bool) -> Scalar:
    """A value that a request told; the greatest value there is becomes the end that the API means."""
    param = source.request.params[name]
    told = param.coerce(value)
    return param.coerce(_following(source, param.type, told)) if end else told


def _following(source: Source, kind: ParamType, value: Scalar) -> object:
    """The end of a range whose last value this is: itself with closed bounds, else the next value there can be."""
    rule = source.shards
    if isinstance(rule, KeyRangeShards | DateWindowShards) and rule.bounds == "closed":
        return value
    if kind is ParamType.INTEGER:
        return int(str(value)) + 1
    if kind is ParamType.DATE:
        return date.fromisoformat(str(value)) + timedelta(days=1)
    return datetime.fromisoformat(str(value)) + timedelta(microseconds=1)


def _by_key(task: CutTask, rule: KeyRangeShards, ends: tuple[Scalar, Scalar] | None) -> Cut:
    if ends is None:
        return _nothing()
    low, high = _place(task.source, rule.low, ends[0]), _place(task.source, rule.high, ends[1])
    closed = rule.bounds == "closed"
    _in_order(task, rule.low, low, rule.high, high)
    sized = ShardSize(aimed=rule.step, size=rule.step, why=f"ranges of {rule.step:,} keys")
    if pace_unit(task.source) is not None:
        bounds = SizeBounds(
            declared=rule.step,
            least=rule.min_step or rule.step,
            most=rule.max_step or rule.step,
            grain=1,
            unit="keys",
        )
        sized = aimed_size(task.history, bounds, rule.target_s or task.target_s)
        sized = spread(sized, bounds, high + closed - low, task.source.limits.concurrency)
    many = -(-(high + closed - low) // sized.size)
    if many > MAX_SHARDS:
        raise TooManyShards(
            task.source.name, f"asks for keys {low:,} to {high:,}, which are {many:.4g} shards of step {sized.size:,}",
            "raise shards.step, or see whether the range is one",
        )  # fmt: skip
    ranges = key_ranges(low, high, sized.size, closed=closed)
    shards = tuple(
        ShardSpan(
            number=number,
            offset=0,
            size=None,
            params={rule.low: first, rule.high: last},
            label=f"{first:,}..{last:,}",
            units=last - first + closed,
        )
        for number, (first, last) in enumerate(ranges)
    )
    aimed = None if pace_unit(task.source) is None else sized.aimed
    return Cut(shards=shards, total=None, why=f"{len(shards)} key ranges, {sized.why}", aimed=aimed)


def _by_window(task: CutTask, rule: DateWindowShards, ends: tuple[Scalar, Scalar] | None) -> Cut:
    if ends is None:
        return _nothing()
    source = task.source
    kind = source.request.params[rule.start].type
    low, high = _place(source, rule.start, ends[0]), _place(source, rule.end, ends[1])
    _in_order(task, rule.start, low, rule.end, high, shown=ends)
    window = Window.of(rule.window or f"P{rule.days}D")
    if rule.bounds == "half_open":
        parts = windows(low, high, window)
    else:
        resolution = Window.of(rule.resolution).length if rule.resolution else timedelta(days=1)
        parts = closed_windows(low, high, window, resolution)
    found = _limited(
        source.name,
        parts,
        f"asks for {ends[0]} to {ends[1]} in windows of {rule.window or f'{rule.days} days'}",
        "make the window longer",
    )
    start, end = source.request.params[rule.start], source.request.params[rule.end]
    shards = []
    for number, (first, last) in enumerate(found):
        values = (first.date(), last.date()) if kind is ParamType.DATE else (first, last)
        params = {rule.start: start.coerce(values[0]), rule.end: end.coerce(values[1])}
        label = f"{params[rule.start]}..{params[rule.end]}"
        shards.append(ShardSpan(number=number, offset=0, size=None, params=params, label=label))
    return Cut(
        shards=tuple(shards), total=None, why=f"{len(shards)} windows of {rule.window or f'{rule.days} days'}"
    )


def _by_values(task: CutTask, rule: ValuesShards) -> tuple[Cut, dict[str, Scalar] | None]:
    """The shards, and what asks for the whole of them in one request, where anything can."""
    source = task.source
    given = admitted_params(source, task.params).get(rule.param)
    if given is None:
        values = [source.request.params[rule.param].canonical(value) for value in rule.values]
    elif rule.separator is None:
        values = [given]
    else:
        values = [part.strip() for part in str(given).split(rule.separator) if part.strip()]
    values = list(dict.fromkeys(values))
    dealt = _limited(
        source.name,
        hands(values, rule.per_shard),
        f"asks for {len(values):,} values, {rule.per_shard} a shard",
        "raise shards.per_shard",
    )
    shards = tuple(
        ShardSpan(
            number=number,
            offset=0,
            size=None,
            params={rule.param: _joined(hand, rule.separator)},
            label=_short(", ".join(map(text_of, hand))),
        )
        for number, hand in enumerate(dealt)
    )
    # A parameter that holds one value cannot ask for several: then no request counts the whole.
    askable = len(values) == 1 or (values and rule.separator)
    whole = {rule.param: _joined(values, rule.separator)} if askable else None
    return Cut(shards=shards, total=None, why=f"{len(values)} values, {rule.per_shard} a shard"), whole


def _joined(values: Iterable[Scalar], separator: str | None) -> Scalar:
    if separator is None:
        (value,) = values
        return value
    return separator.join(map(text_of, values))


def _by_entry_point(task: CutTask, rule: EntryPointShards) -> Cut:
    source = task.source
    context = ShardContext(
        source=source.name, task_id=task.task_id, attempt=task.attempt, options=rule.options
    )
    described = described_shards(
        source, rule, admitted_params(source, task.params), context, limit=MAX_SHARDS + 1
    )
    found = _limited(source.name, described, f"has {rule.entry_point} describe more", "describe larger ones")
    shards = tuple(
        ShardSpan(
            number=number,
            offset=0,
            size=None,
            params=one.params,
            label=_short(one.label or ", ".join(map(text_of, one.params.values()))),
        )
        for number, one in enumerate(found)
    )
    return Cut(shards=shards, total=None, why=f"{len(shards)} shards described by {rule.entry_point}")


def _limited(source: str, parts: Iterable[Any], made_of: str, remedy: str) -> Iterator[Any]:
    found = list(islice(parts, MAX_SHARDS + 1))
    if len(found) > MAX_SHARDS:
        raise TooManyShards(source, f"{made_of}, which are more than {MAX_SHARDS} shards", remedy)
    return iter(found)


def _in_order(
    task: CutTask,
    low_name: str,
    low: Any,
    high_name: str,
    high: Any,
    *,
    shown: tuple[Scalar, Scalar] | None = None,
) -> None:
    if low > high:
        first, last = shown or (low, high)
        fault = Fault(
            field=f"params.{low_name}", value=first, problem=f"must not be above {high_name}, {last}"
        )
        raise ValidationFailed(f"shards of source {task.source.name}", [fault])


def _nothing() -> Cut:
    return Cut(shards=(), total=None, why="the source says that there is nothing to collect")


def _short(text: str) -> str:
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}…"
