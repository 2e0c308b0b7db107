"""Cutting ranges and lists: every key, moment or value falls into exactly one part. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from collect_ops.sources.window import Window

T = TypeVar("T")


def key_ranges(low: int, high: int, step: int, *, closed: bool) -> Iterator[tuple[int, int]]:
    """The ranges of `step` keys, the last one shorter.

    Args:
        low: The first key.
        high: The last key with closed bounds; the one after it with half-open ones.
        step: Keys of a range.
        closed: Whether a range's second number is counted in.
    """
    shut = 1 if closed else 0
    end = high + shut
    for first in range(low, end, step):
        yield first, min(first + step, end) - shut


def windows(start: datetime, end: datetime, window: Window) -> Iterator[tuple[datetime, datetime]]:
    """Half-open windows that follow one another from `start` up to `end`, the last one shorter."""
    number, begin = 1, start
    while begin < end:
        following = window.after(start, number)
        stop = end if following is None else min(following, end)
        yield begin, stop
        number, begin = number + 1, stop


def closed_windows(
    start: datetime, end: datetime, window: Window, resolution: timedelta
) -> Iterator[tuple[datetime, datetime]]:
    """Windows that follow one another from `start` up to `end`, both ends of each counted in.

    A window ends `resolution` before the next one begins. Those moments are multiples of the resolution, as the times
    are that lie there: between them is none.

    Args:
        start: The first moment.
        end: The last moment.
        window: Length of a window, longer than the resolution.
        resolution: How finely times are told; divides a day.
    """
    number, begin = 1, start
    while begin <= end:
        cut = window.after(start, number)
        following = None if cut is None else _aligned(cut, resolution)
        if following is None or following > end:
            yield begin, end
            return
        yield begin, following - resolution
        number, begin = number + 1, following


def _aligned(moment: datetime, resolution: timedelta) -> datetime | None:
    """The first multiple of the resolution at or after a moment; None beyond the year 9999."""
    over = (moment - datetime(1, 1, 1, tzinfo=UTC)) % resolution
    try:
        return moment if not over else moment + (resolution - over)
    except OverflowError:
        return None


def moment_of(value: date | datetime) -> datetime:
    """A date as its first moment in UTC; a datetime as it is."""
    return value if isinstance(value, datetime) else datetime(value.year, value.month, value.day, tzinfo=UTC)


def hands(values: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    """Values dealt out in their order, `size` to each, fewer to the last."""
    for first in range(0, len(values), size):
        yield tuple(values[first : first + size])
