"""Sizes that follow a source's pace: bounded, damped, monotone, in whole pages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from collect_ops.execution.policy import split
from collect_ops.execution.sizing import MIN_HISTORY, SPREAD, History, SizeBounds, aimed_size, spread
from tests.factories import source

RATES = st.lists(st.floats(1e-6, 1e12), min_size=MIN_HISTORY, max_size=30)
TARGETS = st.floats(0.01, 10_000)


@st.composite
def bounds(draw: st.DrawFn) -> SizeBounds:
    grain = draw(st.integers(1, 500))
    declared = draw(st.integers(grain, 50_000))
    return SizeBounds(
        declared=declared,
        least=draw(st.integers(grain, declared)),
        most=draw(st.integers(declared, 10**9)),
        grain=grain,
    )


@st.composite
def histories(draw: st.DrawFn) -> History:
    return History(size=draw(st.none() | st.integers(1, 10**8)), rates=draw(RATES))


@given(history=histories(), allowed=bounds(), target_s=TARGETS)
def test_a_size_is_bounded_damped_and_in_whole_pages(
    history: History, allowed: SizeBounds, target_s: float
) -> None:
    sized = aimed_size(history, allowed, target_s)
    assert sized == aimed_size(history, allowed, target_s), "deterministic"
    assert allowed.least <= sized.size <= allowed.most
    assert sized.aimed == sized.size
    assert sized.size % allowed.grain == 0 or sized.size == allowed.declared
    assert f"shard size {sized.size:,}: " in sized.why
    before = min(max(history.size or allowed.declared, allowed.least), allowed.most)
    if sized.why.endswith("as declared"):
        assert sized.size == allowed.declared
    else:
        assert sized.size <= max(
            2 * before, allowed.grain, -(-allowed.least // allowed.grain) * allowed.grain
        )
        assert 2 * sized.size >= before or sized.size >= allowed.most // allowed.grain * allowed.grain


@given(
    history=histories(),
    allowed=bounds(),
    target_s=TARGETS,
    faster=st.floats(1, 1000),
    longer=st.floats(1, 1000),
)
def test_a_faster_source_or_a_longer_target_never_makes_shards_smaller(
    history: History, allowed: SizeBounds, target_s: float, faster: float, longer: float
) -> None:
    sized = aimed_size(history, allowed, target_s).size
    quick = History(size=history.size, rates=[rate * faster for rate in history.rates])
    assert aimed_size(quick, allowed, target_s).size >= sized
    assert aimed_size(history, allowed, target_s * longer).size >= sized


@given(rate=st.floats(1, 1e5), start=st.integers(1_000, 100_000))
def test_it_settles_where_a_shard_takes_its_time(rate: float, start: int) -> None:
    allowed = SizeBounds(declared=start, least=100, most=10**9, grain=100)
    size: int | None = None
    for _ in range(40):
        size = aimed_size(History(size=size, rates=[rate] * 20), allowed, 20).aimed
    assert size is not None
    assert size == max(100, rate * 20 // 100 * 100) or abs(size - rate * 20) <= 100


@given(allowed=bounds(), rates=st.lists(st.floats(1, 1e6), max_size=MIN_HISTORY - 1))
def test_too_little_history_keeps_what_is_declared(allowed: SizeBounds, rates: list[float]) -> None:
    assert aimed_size(History(size=77, rates=rates), allowed, 20).size == allowed.declared


def test_outliers_change_nothing() -> None:
    allowed = SizeBounds(declared=40_000, least=1_000, most=10**6, grain=1_000)
    steady = aimed_size(History(rates=[2_000.0] * 20), allowed, 20)
    disturbed = aimed_size(History(rates=[2_000.0] * 15 + [1e9] * 3 + [0.001] * 2), allowed, 20)
    assert steady.size == disturbed.size == 40_000
    assert steady.why == "shard size 40,000: 2,000 rows/s over the last 20 shards, target 20 s"


@given(history=histories(), allowed=bounds(), total=st.integers(0, 10**9), concurrency=st.integers(1, 64))
def test_what_is_slow_is_spread_over_the_requests_in_flight(
    history: History, allowed: SizeBounds, total: int, concurrency: int
) -> None:
    aimed = aimed_size(history, allowed, 20)
    spread_out = spread(aimed, allowed, total, concurrency)
    assert spread_out.aimed == aimed.aimed
    assert spread_out.size <= aimed.size
    if spread_out.size > allowed.declared:
        assert (
            -(-total // spread_out.size) >= SPREAD * concurrency / 2
            or total <= allowed.grain * SPREAD * concurrency
        )
    if spread_out.size < aimed.size:
        assert spread_out.size >= allowed.declared


@given(total=st.integers(0, 100_000), size=st.integers(1, 30_000), page=st.integers(1, 100))
def test_shards_of_any_size_cover_every_row_once(total: int, size: int, page: int) -> None:
    assume(total / size < 5_000)
    position = 0
    for number, shard in enumerate(split(source(batch_size=page, page_size=page), total, size)):
        assert (shard.number, shard.offset) == (number, position)
        assert shard.size is not None
        assert 1 <= shard.size <= max(page, size)
        assert shard.offset % page == 0
        position += shard.size
    assert position == total


@pytest.mark.parametrize(
    ("fields", "least", "most", "grain"),
    [
        ({}, 50, 50 * 100_000, 50),
        ({"page_size": None}, 100, 100 * 100_000, 100),
        ({"shards": {"by": "count", "min_size": 100, "max_size": 400}}, 100, 400, 50),
    ],
)
def test_what_a_source_allows(fields: dict[str, Any], least: int, most: int, grain: int) -> None:
    from collect_ops.execution.cutting import size_bounds

    declared = source(**fields)
    found = size_bounds(declared, declared.shards)  # type: ignore[arg-type]
    assert found == SizeBounds(declared=100, least=least, most=most, grain=grain)
