"""What a page is known by: its rows' keys as sent, whole rows without a key, and nothing where that says nothing."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.collectors.repeated_pages import PagePrints
from collect_ops.sources.file_defaults import with_file_defaults
from tests.factories import source


def prints(*key: str, paging: dict[str, Any] | None = None, **paths: str) -> PagePrints:
    columns = {name: {"type": "text", "path": paths.get(name)} for name in ("id", "day", "note")}
    target = {"table": "things", "columns": columns, "key": list(key)}
    paging = paging or {"type": "offset"}
    return PagePrints(with_file_defaults(source(target=target, paging=paging, page_size=None)))


def rows(*numbers: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": number, "day": f"d{number % 7}", **more} for number in numbers]


def test_a_key_is_all_that_counts() -> None:
    keyed = prints("id", "day")
    assert keyed.of(rows(1, 2, note="read at 1")) == keyed.of(rows(1, 2, note="read at 2"))
    assert keyed.of(rows(1, 2)) != keyed.of(rows(2, 1))
    assert keyed.of(rows(1, 2)) != keyed.of(rows(1, 2, 3))
    assert keyed.of(rows(1)) is not None


def test_without_a_key_the_whole_row_counts() -> None:
    whole = prints()
    assert whole.of(rows(1, 2)) == whole.of(rows(1, 2))
    assert whole.of(rows(1, 2, note="a")) != whole.of(rows(1, 2, note="b"))
    assert whole.of(rows(1)) is None


@pytest.mark.parametrize("keyed", [prints(), prints("id")])
def test_a_page_without_rows_says_nothing(keyed: PagePrints) -> None:
    assert keyed.of([]) is None


@pytest.mark.parametrize("record", [{"day": "d1"}, {"id": None}, 7, None, ["id"], "id"])
def test_records_that_lack_the_key_count_whole(record: Any) -> None:
    keyed = prints("id")
    page = [*rows(1), record]
    assert keyed.of(page) == keyed.of(deepcopy(page))
    assert keyed.of(page) != keyed.of([*rows(2), record])
    assert keyed.of([record]) is None


def test_a_key_is_read_where_the_record_holds_it() -> None:
    below = prints("id", id="of.thing.id")
    assert below.of([{"of": {"thing": {"id": 1}}, "at": 1}]) == below.of(
        [{"of": {"thing": {"id": 1}}, "at": 2}]
    )
    joined = prints("id", id="join('-', [a, b])")
    assert joined.of([{"a": "x", "b": "y", "at": 1}]) == joined.of([{"a": "x", "b": "y", "at": 2}])
    assert joined.of([{"a": "x", "b": "z"}]) != joined.of([{"a": "x", "b": "y"}])


@given(st.lists(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)), min_size=2, max_size=6))  # fmt: skip # noqa: E501
def test_any_page_has_a_fingerprint_that_is_its_own(page: list[dict[str, Any]]) -> None:
    whole = prints()
    assert whole.of(page) == whole.of(deepcopy(page))
    assert whole.of(page) != whole.of([*page, {"another": "row"}])
    assert whole.of(page, b"1") != whole.of(page, b"2")


def test_what_orjson_cannot_write() -> None:
    whole = prints()
    page = [{"id": 10**30, "name": "\ud800"}, {"id": 1}]
    assert whole.of(page) == whole.of(deepcopy(page))


@pytest.mark.parametrize("whole", [prints(), prints("id", "day")])
def test_of_a_long_page_rows_all_over_it_count(whole: PagePrints) -> None:
    many = 5_000
    page = rows(*range(many))
    assert whole.of(page) == whole.of(deepcopy(page))
    assert whole.of(page) != whole.of(rows(*range(many - 1), many))
    assert whole.of(page) != whole.of(rows(*range(1, many + 1)))


@pytest.mark.parametrize(
    ("paging", "wanted"),
    [
        ({"type": "offset"}, True),
        ({"type": "page", "equal_pages": "end"}, True),
        ({"type": "page", "equal_pages": "allow"}, False),
        ({"type": "none"}, False),
    ],
)
def test_who_wants_them(paging: dict[str, Any], wanted: bool) -> None:
    assert prints(paging=paging).wanted is wanted
