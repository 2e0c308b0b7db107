"""Paging against simulated servers: whatever they cap and whenever we stop, every row comes once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.collectors import json_body
from collect_ops.collectors.errors import PageTooLong, PagingValueUnusable
from collect_ops.collectors.page import Span
from collect_ops.collectors.paging import (
    CursorPager,
    LinkHeaderPager,
    NextUrlPager,
    OffsetPager,
    PagePager,
    Pager,
    Reply,
)
from collect_ops.sources.model import CursorPaging, LinkHeaderPaging, NextUrlPaging, OffsetPaging, PagePaging

Server = Callable[[Mapping[str, Any]], list[int]]


def offset_server(rows: int, cap: int) -> Server:
    def serve(params: Mapping[str, Any]) -> list[int]:
        start = params["offset"]
        return list(range(min(start, rows), min(rows, start + min(cap, params["limit"]))))

    return serve


def page_server(rows: int, cap: int, first_page: int) -> Server:
    def serve(params: Mapping[str, Any]) -> list[int]:
        size = min(cap, params["size"])
        start = (params["page"] - first_page) * size
        return list(range(min(start, rows), min(rows, start + size)))

    return serve


def walk(
    pager: Pager,
    server: Server,
    span: Span,
    *,
    total: int | None = None,
    position: Mapping[str, Any] | None = None,
) -> list[tuple[list[int], dict[str, Any] | None]]:
    """The kept pages, each with the position after it."""
    pages: list[tuple[list[int], dict[str, Any] | None]] = []
    here: Mapping[str, Any] | None = pager.begin(span) if position is None else position
    for _ in range(5_000):
        ask = None if here is None else pager.ask(span, here)
        if ask is None or here is None:
            return pages
        rows = server(ask.params)
        step = pager.step(span, here, Reply(rows=len(rows), total=total))
        if not step.discard:
            pages.append((rows[step.first : step.stop], step.next))
        here = step.next
    raise AssertionError("paging does not end")


def flat(pages: list[tuple[list[int], dict[str, Any] | None]]) -> list[int]:
    return [row for rows, _ in pages for row in rows]


@st.composite
def situations(draw: st.DrawFn) -> tuple[int, int, int, Span, int | None]:
    """rows of the server, its cap, our page size, the span, the total it names."""
    rows = draw(st.integers(0, 120))
    offset = draw(st.integers(0, 130))
    size = draw(st.none() | st.integers(0, 130))
    total = draw(st.sampled_from([None, rows]))
    return rows, draw(st.integers(1, 40)), draw(st.integers(1, 40)), Span(offset=offset, size=size), total


@given(situations())
def test_offset_paging_gives_exactly_the_span(situation: tuple[int, int, int, Span, int | None]) -> None:
    rows, cap, size, span, total = situation
    pager = OffsetPager(paging=OffsetPaging(type="offset"), size=size)
    check(pager, offset_server(rows, cap), span, rows, total)


@given(situations(), st.integers(0, 1))
def test_page_paging_gives_exactly_the_span(
    situation: tuple[int, int, int, Span, int | None], first_page: int
) -> None:
    rows, cap, size, span, total = situation
    pager = PagePager(paging=PagePaging(type="page", first_page=first_page), size=size)
    check(pager, page_server(rows, cap, first_page), span, rows, total)


def check(pager: Pager, server: Server, span: Span, rows: int, total: int | None) -> None:
    expected = list(range(rows))[span.offset : span.end]
    pages = walk(pager, server, span, total=total)
    assert flat(pages) == expected
    if pages:
        assert pages[-1][1] is None or pager.ask(span, pages[-1][1]) is None
    for number, (_, position) in enumerate(pages):
        if position is not None:
            before = flat(pages[: number + 1])
            assert before + flat(walk(pager, server, span, total=total, position=position)) == expected


def test_a_short_page_that_looks_like_the_end_but_is_a_capped_one() -> None:
    # 1,000 rows, cap 100: page 3 of 300 "must" have 100 rows and has 100, but they are rows 300 to 399.
    pager = PagePager(paging=PagePaging(type="page"), size=300)
    span = Span(offset=900, size=100)
    assert flat(walk(pager, page_server(1000, 100, 1), span)) == list(range(900, 1000))


def test_full_pages_cost_one_request_each() -> None:
    asked: list[Mapping[str, Any]] = []

    def server(params: Mapping[str, Any]) -> list[int]:
        asked.append(params)
        return page_server(1000, 1000, 1)(params)

    pager = PagePager(paging=PagePaging(type="page"), size=100)
    walk(pager, server, Span(offset=500, size=500))
    assert [params["page"] for params in asked] == [6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    "pager",
    [
        OffsetPager(paging=OffsetPaging(type="offset"), size=10),
        PagePager(paging=PagePaging(type="page"), size=10),
    ],
)
def test_more_rows_than_asked_for_is_an_error(pager: Pager) -> None:
    span = Span(offset=0, size=30)
    with pytest.raises(PageTooLong, match="11 rows came where 10 were asked for"):
        pager.step(span, pager.begin(span), Reply(rows=11))


@pytest.mark.parametrize("cursor", [None, False, "", 0, -1, 0.0, "0", "-1"])
def test_these_cursors_end(cursor: Any) -> None:
    pager = CursorPager(paging=CursorPaging(type="cursor", cursor="c"), size=10)
    assert pager.step(Span(), {"cursor": None}, Reply(rows=1, document={"c": cursor})).next is None
    assert pager.step(Span(), {"cursor": None}, Reply(rows=1, document={})).next is None


@pytest.mark.parametrize("cursor", ["a", 1, 17, 1.5, "00", "-10", "1"])
def test_these_cursors_go_on(cursor: Any) -> None:
    pager = CursorPager(paging=CursorPaging(type="cursor", cursor="c"), size=10)
    following = pager.step(Span(), {"cursor": None}, Reply(rows=0, document={"c": cursor})).next
    assert following == {"cursor": cursor}
    ask = pager.ask(Span(), following)
    assert ask is not None
    assert ask.params == {"cursor": cursor}


@pytest.mark.parametrize("digits", ["1700000000.123456789", "1.50", "2e3", "100000000000000000000.5"])
def test_a_cursor_that_is_a_number_goes_back_as_it_came(digits: str) -> None:
    pager = CursorPager(paging=CursorPaging(type="cursor", cursor="c"), size=10)
    document = json_body.parse(b'{"c": %b}' % digits.encode(), max_depth=9)
    following = pager.step(Span(), {"cursor": None}, Reply(rows=1, document=document)).next
    assert following == {"cursor": digits}


def test_a_cursor_in_a_body_keeps_its_digits_or_is_refused() -> None:
    pager = CursorPager(paging=CursorPaging(type="cursor", cursor="c", location="body"), size=10)

    def step(digits: bytes) -> Any:
        document = json_body.parse(b'{"c": %b}' % digits, max_depth=9)
        return pager.step(Span(), {"cursor": None}, Reply(rows=1, document=document)).next

    assert step(b"1.50") == {"cursor": 1.5}
    assert step(b"0.0") is None
    with pytest.raises(PagingValueUnusable, match="digits"):
        step(b"1700000000.123456789")


@pytest.mark.parametrize("cursor", [True, {"a": 1}, [1]])
def test_these_are_no_cursors_for_a_query(cursor: Any) -> None:
    pager = CursorPager(paging=CursorPaging(type="cursor", cursor="c"), size=10)
    with pytest.raises(PagingValueUnusable, match=r"paging\.cursor gives"):
        pager.step(Span(), {"cursor": None}, Reply(rows=1, document={"c": cursor}))


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        ("?page=2", "http://h/api/rows?page=2"),
        ("/v2?page=2#x", "http://h/v2?page=2"),
        ("//other/x", "http://other/x"),
        ("https://u:p@other/x", "https://other/x"),
        ("file:///etc/passwd", "file:///etc/passwd"),  # The guard refuses it.
    ],
)
def test_next_urls_are_resolved(value: str, becomes: str) -> None:
    pager = NextUrlPager(paging=NextUrlPaging(type="next_url", next_url="n"), size=10)
    reply = Reply(rows=1, document={"n": value}, url="http://h/api/rows?page=1")
    assert pager.step(Span(), {"url": None}, reply).next == {"url": becomes}


@pytest.mark.parametrize("value", [7, ["x"], "http://h:99999/", "http://[]@/x", "//[]@"])
def test_next_urls_that_are_none(value: Any) -> None:
    pager = NextUrlPager(paging=NextUrlPaging(type="next_url", next_url="n"), size=10)
    with pytest.raises(PagingValueUnusable, match=r"paging\.next_url gives"):
        pager.step(Span(), {"url": None}, Reply(rows=1, document={"n": value}, url="http://h/"))


def test_the_size_is_sent_with_the_first_page_only() -> None:
    pager = LinkHeaderPager(paging=LinkHeaderPaging(type="link_header", limit_param="per_page"), size=10)
    first, later = pager.ask(Span(), {"url": None}), pager.ask(Span(), {"url": "http://h/2"})
    assert first is not None
    assert first.params == {"per_page": 10}
    assert later is not None
    assert (later.url, later.params) == ("http://h/2", {})
