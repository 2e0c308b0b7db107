"""What a column takes a value for."""

from __future__ import annotations

from typing import Any

import pytest

from collect_ops.kernel.json_numbers import spelled
from collect_ops.landing.values import reader_of, whole
from collect_ops.sources.model import Column


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (spelled("1.0"), 1), (spelled("2e0"), 2), ("3.0", 3), (" 3.0 ", 3), ("3e2", 300), (spelled("-0.0"), 0),
        (spelled("9007199254740993.0"), 9007199254740993), (4.0, 4), (spelled("120e-1"), 12),
    ],
)  # fmt: skip
def test_whole_numbers_in_other_spellings(value: Any, expected: int) -> None:
    found = whole(value)
    assert type(found) is int
    assert found == expected


@pytest.mark.parametrize(
    "value",
    [
        spelled("1.5"), "3", "003", "1.5", "", "x", "e", ".", "1.", "0x1p0", "1e999", spelled("1e400"), "1_0.0", "٣.0",
        None, True, 5, 1.5, float("inf"), "1." + "0" * 2000, [], {},
    ],
)  # fmt: skip
def test_anything_else_is_left_as_it_is(value: Any) -> None:
    assert whole(value) is value


def test_null_if_tells_one_true_and_a_text_apart() -> None:
    read = reader_of("a", Column(type="text", null_if=("", 1, "N/A", 0.5)))
    assert read is not None
    given = ["", 1, "N/A", spelled("0.5"), "1", True, spelled("1.0"), "n/a", None, [1], "\ud800"]
    assert list(map(read, given)) == [None, None, None, None, "1", True, 1.0, "n/a", None, [1], "\ud800"]


def test_nothing_is_read_where_nothing_is_declared() -> None:
    assert reader_of("a", Column(type="timestamptz")) is None
    assert reader_of("a", Column(type="timestamptz", format="iso")) is None
    assert reader_of("a", Column(type="text")) is None


def test_null_if_comes_before_the_time() -> None:
    read = reader_of("a", Column(type="date", format="%d.%m.%Y", null_if=("-",)))
    assert read is not None
    assert [read("-"), read("13.02.2024")] == [None, "2024-02-13"]
