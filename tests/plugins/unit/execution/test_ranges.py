"""Cutting ranges: every key, moment and value falls into exactly one part."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.execution.ranges import closed_windows, hands, key_ranges, windows
from collect_ops.sources.window import Window, duration_problem

MOMENTS = st.datetimes(datetime(1999, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
WINDOWS = st.builds(
    Window, months=st.integers(0, 14), length=st.timedeltas(timedelta(), timedelta(days=40))
).filter(lambda window: window.least > timedelta(hours=12))
RESOLUTIONS = st.sampled_from([timedelta(milliseconds=1), timedelta(seconds=1), timedelta(minutes=15)])


@given(
    low=st.integers(-(2**62), 2**62), many=st.integers(0, 300), step=st.integers(1, 400), closed=st.booleans()
)
def test_every_key_is_in_exactly_one_range(low: int, many: int, step: int, closed: bool) -> None:
    high = low + many - closed
    found = [
        key
        for first, last in key_ranges(low, high, step, closed=closed)
        for key in range(first, last + closed)
    ]
    assert found == list(range(low, low + many))


@given(start=MOMENTS, length=st.timedeltas(timedelta(), timedelta(days=900)), window=WINDOWS)
def test_half_open_windows_follow_one_another(start: datetime, length: timedelta, window: Window) -> None:
    found = list(windows(start, start + length, window))
    position = start
    for first, last in found:
        assert first == position
        assert first < last
        position = last
    assert position == start + length
    assert all(window.after(start, n) == last for n, (_, last) in enumerate(found[:-1], 1))


@given(
    start=MOMENTS,
    length=st.timedeltas(timedelta(), timedelta(days=900)),
    window=WINDOWS,
    resolution=RESOLUTIONS,
    data=st.data(),
)
def test_every_told_moment_is_in_exactly_one_closed_window(
    start: datetime, length: timedelta, window: Window, resolution: timedelta, data: st.DataObject
) -> None:
    end = start + length
    found = list(closed_windows(start, end, window, resolution))
    assert (found[0][0], found[-1][1]) == (start, end)
    assert all(first <= last for first, last in found)
    edge = data.draw(st.sampled_from([moment for pair in found for moment in pair]))
    over = (edge - datetime(1, 1, 1, tzinfo=UTC)) % resolution
    for steps in range(-2, 3):
        told = edge - over + steps * resolution
        holders = [pair for pair in found if pair[0] <= told <= pair[1]]
        assert len(holders) == (start <= told <= end), (told, found)


def test_months_are_those_of_the_calendar() -> None:
    start = datetime(2024, 1, 31, tzinfo=UTC)
    firsts = [
        first.date().isoformat()
        for first, _ in windows(start, datetime(2024, 5, 31, tzinfo=UTC), Window.of("P1M"))
    ]
    assert firsts == ["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30"]


def test_the_calendars_end_is_reached() -> None:
    start, end = datetime(9999, 12, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    assert list(windows(start, end, Window.of("P1M"))) == [(start, end)]
    assert list(closed_windows(start, end, Window.of("P1Y"), timedelta(seconds=1))) == [(start, end)]


@given(values=st.lists(st.integers()), size=st.integers(1, 20))
def test_every_value_is_dealt_once(values: list[int], size: int) -> None:
    dealt = list(hands(values, size))
    assert [value for hand in dealt for value in hand] == values
    assert all(len(hand) == size for hand in dealt[:-1])
    assert all(dealt)


@pytest.mark.parametrize(
    ("text", "months", "length"),
    [
        ("P1D", 0, timedelta(days=1)),
        ("P1Y2M", 14, timedelta()),
        ("P2W", 0, timedelta(days=14)),
        ("P1DT12H30M", 0, timedelta(days=1, hours=12, minutes=30)),
        ("PT0.001S", 0, timedelta(milliseconds=1)),
    ],
)
def test_durations(text: str, months: int, length: timedelta) -> None:
    assert Window.of(text) == Window(months=months, length=length)
    assert duration_problem(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "P",
        "PT",
        "1D",
        "P-1D",
        "P0D",
        "P1.5D",
        "PT5",
        "P1H",
        "p1d",
        "P1D ",
        "P9999999999D",
        "P999999Y",
        "P\u0661D",
    ],
)
def test_what_is_no_duration(text: str) -> None:
    assert duration_problem(text) == "must be an ISO 8601 duration above zero, such as P1D, P1M or PT6H"
