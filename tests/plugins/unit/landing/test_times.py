"""Which spellings of times a column takes, and what PostgreSQL is given for them."""

from __future__ import annotations

from typing import Any

import pytest

from collect_ops.kernel.json_numbers import spelled
from collect_ops.landing.times import IsoCheck, TimeUnusable, iso_problem, time_reader
from collect_ops.sources.model import Column

ISO = [
    "2024-01-02", "20240102", "2024-01-02T03:04", "2024-01-02T03:04:05", "2024-01-02 03:04:05.123456789",
    "20240102T030405", "2024-02-30",
]  # fmt: skip
WITH_OFFSET = [
    "2024-01-02T03:04:05Z", "2024-01-02t03:04:05z", "2024-01-02T03:04:05.5+01:00", "2024-01-02T03:04-0130",
    "20240102T030405+01",
]  # fmt: skip
NOT_ISO = [
    "", "01/02/2024", "13/02/2024", "today", "now", "infinity", "-infinity", "epoch", "2024-1-2", "1700000000", "2024",
    "2024-01", "02.01.2024", "Jan 2 2024", "2024-01-02 03:04:05 UTC", "2024-01-02 03:04:05 +01:00", "2024-01-02T03",
    "J2451187", "\u0662024-01-02", "2024-01-02\n2024-01-02", "2024-01-02T03:04:05.Z", "allballs",
]  # fmt: skip
NUMBERS: list[Any] = [1700000000, 20240102, True, spelled("1700000000.5"), [], {}]


def a_column(kind: str, **fields: Any) -> Column:
    return Column(type=kind, **{"format": "iso", **fields})


def written(column: Column, value: Any) -> Any:
    return time_reader(column)(value)


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
def test_iso_8601_goes_to_postgresql_as_it_came(kind: str) -> None:
    column = a_column(kind)
    for text in ISO + (WITH_OFFSET if kind == "timestamptz" else []):
        assert written(column, text) == text
    assert written(column, None) is None
    assert IsoCheck(column).all_fine([*ISO, None])


@pytest.mark.parametrize("kind", ["date", "time", "timestamp", "timestamptz"])
def test_nothing_else_is_guessed(kind: str) -> None:
    column = a_column(kind)
    for value in [*NOT_ISO, *NUMBERS]:
        if kind == "time" and value == "2024":
            continue  # 20:24
        with pytest.raises(TimeUnusable):
            written(column, value)
        if not isinstance(value, list | dict):
            assert not IsoCheck(column).all_fine([None, value]), value


@pytest.mark.parametrize("kind", ["date", "timestamp"])
def test_an_offset_that_would_be_dropped_is_refused_unless_a_zone_says_whose_time_it_becomes(
    kind: str,
) -> None:
    for text in WITH_OFFSET:
        with pytest.raises(TimeUnusable, match="offset"):
            written(a_column(kind), text)
        assert not IsoCheck(a_column(kind)).all_fine([text])
    berlin = a_column(kind, timezone="Europe/Berlin")
    late = "2024-06-30T23:30:00Z"
    assert written(berlin, late) == {"date": "2024-07-01", "timestamp": "2024-07-01 01:30:00"}[kind]
    assert written(berlin, "2024-06-30T23:30:00") == "2024-06-30T23:30:00"


def test_a_text_without_an_offset_is_of_the_columns_zone() -> None:
    berlin = a_column("timestamptz", timezone="Europe/Berlin")
    assert written(berlin, "2024-07-01T01:30:00") == "2024-07-01T01:30:00+02:00"
    assert written(berlin, "2024-01-01 01:30:00.123456789") == "2024-01-01 01:30:00.123456789+01:00"
    assert written(berlin, "2024-07-01") == "2024-07-01T00:00:00+02:00"
    assert written(berlin, "20240701") == "20240701T00:00:00+02:00"
    assert (
        written(a_column("timestamptz", timezone="Etc/GMT+1"), "20240701T013000") == "20240701T013000-01:00"
    )
    with pytest.raises(TimeUnusable):
        written(berlin, "2024-02-30T01:30:00")
    assert written(berlin, "2024-07-01T01:30:00Z") == "2024-07-01T01:30:00Z"


def test_times_of_day() -> None:
    column = a_column("time")
    for text in ("03:04", "03:04:05.5", "030405"):
        assert written(column, text) == text
        assert IsoCheck(column).all_fine([text])
    for text in ("03:04:05Z", "2024-01-02T03:04:05"):
        with pytest.raises(TimeUnusable):
            written(column, text)


@pytest.mark.parametrize(
    ("format_", "value", "expected"),
    [
        ("epoch_s", 1700000000, "2023-11-14 22:13:20+00:00"),
        ("epoch_s", spelled("1700000000.123456"), "2023-11-14 22:13:20.123456+00:00"),
        ("epoch_s", "1700000000", "2023-11-14 22:13:20+00:00"),
        ("epoch_s", spelled("1.7e9"), "2023-11-14 22:13:20+00:00"),
        ("epoch_s", -1, "1969-12-31 23:59:59+00:00"),
        ("epoch_ms", 1700000000123, "2023-11-14 22:13:20.123000+00:00"),
        ("epoch_us", 1700000000123456, "2023-11-14 22:13:20.123456+00:00"),
        ("%d/%m/%Y", "13/02/2024", "2024-02-13 00:00:00+00:00"),
        ("%m/%d/%Y", "01/02/2024", "2024-01-02 00:00:00+00:00"),
        ("%Y%m%d", 20240102, "2024-01-02 00:00:00+00:00"),
        ("%Y-%m-%d %H:%M:%S %z", "2024-01-02 03:04:05 +0100", "2024-01-02 03:04:05+01:00"),
    ],
)
def test_declared_formats(format_: str, value: Any, expected: str) -> None:
    assert written(a_column("timestamptz", format=format_), value) == expected
    assert written(a_column("timestamptz", format=format_), None) is None


def test_declared_formats_in_a_zone() -> None:
    epoch, pattern = "epoch_s", "%d/%m/%Y %H:%M"
    assert written(a_column("timestamp", format=epoch, timezone="Asia/Tokyo"), 0) == "1970-01-01 09:00:00"
    assert written(a_column("date", format=epoch, timezone="Asia/Tokyo"), 60 * 60 * 15) == "1970-01-02"
    assert written(a_column("time", format=epoch), 61) == "00:01:01"
    berlin = a_column("timestamptz", format=pattern, timezone="Europe/Berlin")
    assert written(berlin, "01/07/2024 01:30") == "2024-07-01 01:30:00+02:00"


@pytest.mark.parametrize("format_", ["epoch_s", "epoch_ms", "epoch_us", "%d/%m/%Y"])
@pytest.mark.parametrize(
    "value", ["", "x", "1e400", 10**30, spelled("1e400"), True, [], "nan", "0x10", "1" * 5000]
)
def test_what_a_declared_format_does_not_take(format_: str, value: Any) -> None:
    with pytest.raises(TimeUnusable):
        written(a_column("timestamptz", format=format_), value)


def test_a_check_remembers_no_more_shapes_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collect_ops.landing.times._MAX_SHAPES", 3)
    check = IsoCheck(a_column("timestamptz"))
    for digits in range(1, 50):
        assert check.all_fine([f"2024-01-02T03:04:05.{'0' * digits}Z"])
    assert not check.all_fine(["2024-01-02T03:04:05.0Z", "today"])
    assert len(check._fine) <= 3


def test_problems_name_what_is_wrong() -> None:
    assert "offset" in str(iso_problem("0000-00-00T00:00Z", "timestamp"))
    assert "ISO 8601" in str(iso_problem("today", "date"))


def test_small_letters_are_iso_8601_in_a_zone_as_well() -> None:
    column = a_column("timestamp", timezone="Europe/Berlin")
    assert written(column, "2026-07-25t00:30:00z") == "2026-07-25 02:30:00"
