"""How large the shards of a task are, from what the shards of its source did before. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

#: Finished shards below which nothing is concluded from them.
MIN_HISTORY = 3
#: A size is at most this many times that of the task before, and at least that part of it.
DAMPING = 2
#: Shards a request in flight at least, where a size above the declared one would leave fewer: what is slow is spread.
SPREAD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a source did before.

    Args:
        size: Aimed at when its newest task was cut, None for none.
        rates: Units a second of the shards that finished last.
    """

    size: int | None = None
    rates: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeBounds:
    """What a source allows.

    Args:
        declared: The size while nothing is known.
        least: At least.
        most: At most; not below `least`.
        grain: A size that is not the declared one is a multiple of this: the rows of a page.
        unit: What is counted, in the plural.
    """

    declared: int
    least: int
    most: int
    grain: int
    unit: str = "rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSize:
    """A size.

    Args:
        aimed: What the next task's is damped against.
        size: What this task is cut by.
        why: For people.
    """

    aimed: int
    size: int
    why: str


def aimed_size(history: History, bounds: SizeBounds, target_s: float) -> ShardSize:
    """The size whose shards take `target_s`, at most twice and at least half that of the task before.

    Args:
        history: What the source did before.
        bounds: What it allows.
        target_s: Seconds that a shard shall take.
    """
    least, most = _up(bounds.least, bounds.grain), _down(bounds.most, bounds.grain)
    if bounds.least == bounds.most or least > most:
        return _as_declared(bounds, "as declared")
    if len(history.rates) < MIN_HISTORY:
        return _as_declared(bounds, f"as declared, {len(history.rates)} finished shards say too little")
    rate = median(history.rates)
    before = min(max(history.size or bounds.declared, bounds.least), bounds.most)
    wanted = rate * target_s
    # A rate beyond all measure is cut before it becomes a whole number.
    size = math.floor(min(max(wanted, before / DAMPING), before * DAMPING))
    lowest = _up(before / DAMPING, bounds.grain)
    highest = max(lowest, _down(before * DAMPING, bounds.grain))
    size = min(max(_down(size, bounds.grain), lowest), highest)
    size = min(max(size, least), most)
    why = f"{rate:,.4g} {bounds.unit}/s over the last {len(history.rates)} shards, target {target_s:g} s"
    if wanted > size * DAMPING or wanted < size / DAMPING:
        why += f"; {before:,} before, bounds {bounds.least:,} to {bounds.most:,}"
    return ShardSize(aimed=size, size=size, why=f"shard size {size:,}: {why}")


def spread(sized: ShardSize, bounds: SizeBounds, total: int, concurrency: int) -> ShardSize:
    """A size that leaves every request in flight its shards.

    Only what is above the declared size is taken back: that one is what somebody wanted.

    Args:
        sized: From `aimed_size`.
        bounds: What the source allows.
        total: Units of the task.
        concurrency: Requests in flight.
    """
    most = max(bounds.declared, _up(total / (SPREAD * concurrency), bounds.grain))
    if sized.size <= most:
        return sized
    why = f"{sized.why}; cut to {most:,} for {total:,} {bounds.unit} and {concurrency} requests in flight"
    return ShardSize(aimed=sized.aimed, size=most, why=why)


def _as_declared(bounds: SizeBounds, why: str) -> ShardSize:
    return ShardSize(
        aimed=bounds.declared, size=bounds.declared, why=f"shard size {bounds.declared:,}: {why}"
    )


def _down(size: float, grain: int) -> int:
    return int(size // grain) * grain


def _up(size: float, grain: int) -> int:
    return math.ceil(size / grain) * grain
