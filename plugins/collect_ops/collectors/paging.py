"""How each paging style asks for a page, and what comes after it. Pure.

A pager keeps nothing: everything it has to know stands in the position, which is JSON and is stored with the
rows of the page before it, so that any process can go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from math import isfinite
from typing import Any, Literal, Protocol

from typing_extensions import override

from collect_ops.collectors.errors import (
    ExpressionFailed,
    PageTooLong,
    PagingLoop,
    PagingValueUnusable,
    PositionUnusable,
)
from collect_ops.collectors.links import LinkMalformed, find_next
from collect_ops.collectors.page import Json, Position, Span
from collect_ops.collectors.urls import parse_url
from collect_ops.kernel.json_numbers import SpelledNumber
from collect_ops.sources.expressions import Expression, ExpressionFails, compiled
from collect_ops.sources.model import (
    CursorPaging,
    LinkHeaderPaging,
    NextUrlPaging,
    NoPaging,
    OffsetPaging,
    PagePaging,
    Paging,
    Source,
)
from collect_ops.sources.paging_rules import can_be_split

Location = Literal["query", "body"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What one page's request adds to the source's.

    Args:
        params: Paging parameters by name.
        location: Where they go.
        url: An absolute URL that is asked instead of the source's own.
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    location: Location = "query"
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a pager looks at in an answer.

    Args:
        rows: How many records came.
        document: The parsed body.
        links: Values of the `Link` headers.
        url: The URL that answered, after redirects.
        shown: The same, masked.
        total: The source's total, when the answer names it and there are neither more nor fewer.
        more: What the answer says of further pages; None where it says nothing.
    """

    rows: int
    document: Json = None
    links: Sequence[str] = ()
    url: str = ""
    shown: str = ""
    total: int | None = None
    more: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What follows from an answer.

    Args:
        next: Position after this page; None when it was the last.
        first: First record that belongs to the span.
        stop: The record after the last one that does; None means all.
        discard: The rows are not those that were meant: ask again, at `next`.
        seen: How many rows there are at least, by the place of this page's last one; 0 where nothing tells its place.
    """

    next: dict[str, Any] | None
    first: int = 0
    stop: int | None = None
    discard: bool = False
    seen: int = 0


class Pager(Protocol):
    """One paging style."""

    def begin(self, span: Span) -> dict[str, Any]:
        """The position of the span's first page."""

    def ask(self, span: Span, position: Position) -> Ask | None:
        """The request of the page at `position`; None when nothing of the span is left there.

        Raises:
            PositionUnusable: The position is of another paging style.
        """

    def step(self, span: Span, position: Position, reply: Reply) -> Step:
        """What to keep of an answer to the page at `position`, and where to go on.

        Raises:
            PageTooLong: More rows came than were asked for.
            PagingValueUnusable: The next page's cursor or address cannot be one.
            PagingLoop: An empty page says that there are more rows, and nothing says where.
            ExpressionFailed: The JMESPath to it cannot be applied.
        """

    def probe(self) -> Ask:
        """A request whose answer names the total: that of a first page, whose size every server takes."""


def pager_for(source: Source) -> Pager:
    """The pager of a source."""
    size = source.page_size or source.batch_size
    match source.paging:
        case OffsetPaging():
            return OffsetPager(paging=source.paging, size=size)
        case PagePaging():
            return PagePager(paging=source.paging, size=size if can_be_split(source) else None)
        case CursorPaging():
            return CursorPager(paging=source.paging, size=size)
        case NextUrlPaging():
            return NextUrlPager(paging=source.paging, size=size)
        case LinkHeaderPaging():
            return LinkHeaderPager(paging=source.paging, size=size)
        case NoPaging():
            return SinglePager()


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetPager(Pager):
    """`offset` and `limit`. Position: `offset`, the next row, counted from 0.

    A page shorter than asked is no end: servers cap page sizes silently. It goes on from the rows received until the
    span's end, the total, or an empty page; with `advance_by: page_size` from the rows asked for, and an empty page is
    an end only where nothing says that there are more. Every page is asked for with the same limit, since there are
    servers that take the offset for a number of pages of that size, and servers that know one size only; what lies
    behind the span is dropped.
    """

    paging: OffsetPaging
    size: int

    @override
    def begin(self, span: Span) -> dict[str, Any]:
        return {"offset": span.offset}

    @override
    def ask(self, span: Span, position: Position) -> Ask | None:
        offset = _integer(position, "offset", at_least=span.offset)
        return None if _reached(offset, span, None) else self._ask(offset)

    @override
    def step(self, span: Span, position: Position, reply: Reply) -> Step:
        offset, rows = _integer(position, "offset"), reply.rows
        if self.paging.limit_param is not None and rows > self.size:
            raise PageTooLong(reply.shown, self.size, rows)
        by_size = self.paging.advance_by == "page_size"
        after = offset + (self.size if by_size else rows)
        total = _believed(reply, offset + rows)
        finished = _reached(after, span, total) or (rows == 0 and _is_last(reply, span, by_size=by_size))
        return Step(
            next=None if finished else {"offset": after},
            stop=None if span.end is None else min(rows, span.end - offset),
            seen=offset + rows if rows else 0,
        )

    @override
    def probe(self) -> Ask:
        return self._ask(0)

    def _ask(self, offset: int) -> Ask:
        params = {self.paging.offset_param: self.paging.first_offset + offset}
        if self.paging.limit_param is not None:
            params[self.paging.limit_param] = self.size
        return Ask(params=params, location=self.paging.location)


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePager(Pager):
    """Page number and page size.

    **From the first row to the end** one page follows the other, all asked for with the same size: whatever size the
    server really uses and whatever it leaves out, its pages lie side by side. Position: `turn`, the page counted from
    0; `offset`, the rows before it.

    **A range of rows** begins where nobody has been before. Position: `offset`, the next row; `size`, the page size to
    ask for; `honoured`, whether the server has filled a page of that size. Where page N begins depends on the size the
    server really uses, so a silent cap moves every page but the first: a page that is shorter than asked, of a size
    never seen filled, may hold rows from elsewhere. It is dropped, and the row is asked for again with the size that
    came, until a page comes filled. A full page proves its size and hence its place; a short page of a proven size is
    the end of the data, or a page that the server thinned out. With `advance_by: page_size` every short page is one of
    these.

    Args:
        paging: As declared.
        size: Rows of a page; None where the server decides and nobody knows: then there are no ranges.
    """

    paging: PagePaging
    size: int | None

    @override
    def begin(self, span: Span) -> dict[str, Any]:
        if self.size is None or (span.offset == 0 and span.size is None):
            return {"turn": 0, "offset": 0}
        return {"offset": span.offset, "size": self.size, "honoured": self._by_size}

    @override
    def ask(self, span: Span, position: Position) -> Ask | None:
        if "turn" in position:
            return self._ask(_integer(position, "turn"), self.size)
        offset = _integer(position, "offset", at_least=span.offset)
        size = _integer(position, "size", at_least=1)
        return None if _reached(offset, span, None) else self._ask(offset // size, size)

    @override
    def step(self, span: Span, position: Position, reply: Reply) -> Step:
        return (
            self._next_turn(span, position, reply)
            if "turn" in position
            else self._range(span, position, reply)
        )

    @override
    def probe(self) -> Ask:
        return self._ask(0, self.size)

    def _next_turn(self, span: Span, position: Position, reply: Reply) -> Step:
        turn, rows = _integer(position, "turn") + 1, reply.rows
        after = _integer(position, "offset") + rows
        self._check_length(reply, self.size)
        place = turn * self.size if self._by_size and self.size is not None else after
        last = rows == 0 and reply.more is not True and (not self._by_size or reply.total is None)
        finished = last or _reached(place, span, _believed(reply, after))
        # Processes of release 0.1.0 go on from offset and size, and make sure of both.
        following = {"turn": turn, "offset": after, "size": max(1, -(-after // turn)), "honoured": False}
        return Step(next=None if finished else following, seen=after)

    def _range(self, span: Span, position: Position, reply: Reply) -> Step:
        offset, size = _integer(position, "offset"), _integer(position, "size")
        rows, start = reply.rows, offset - offset % size
        self._check_length(reply, size)
        if rows == 0 and _is_last(reply, span, by_size=self._by_size):
            return Step(next=None)
        honoured = rows == size or position.get("honoured") is True
        if not honoured and (start > 0 or rows <= offset):
            return Step(next={"offset": offset, "size": rows, "honoured": False}, discard=True)
        after = start + size if honoured else rows
        following = {"offset": after, "size": size if honoured else rows, "honoured": honoured}
        return Step(
            next=None if _reached(after, span, _believed(reply, start + rows)) else following,
            first=min(rows, offset - start),
            stop=None if span.end is None else min(rows, span.end - start),
            seen=start + rows,
        )

    @property
    def _by_size(self) -> bool:
        return self.paging.advance_by == "page_size"

    def _check_length(self, reply: Reply, size: int | None) -> None:
        if size is not None and reply.rows > size:
            raise PageTooLong(reply.shown, size, reply.rows)

    def _ask(self, page: int, size: int | None) -> Ask:
        params = {self.paging.page_param: self.paging.first_page + page}
        if self.paging.size_param is not None and size is not None:
            params[self.paging.size_param] = size
        return Ask(params=params, location=self.paging.location)


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorPager(Pager):
    """A token in the body that asks for the next page. Position: `cursor`, None before the first page.

    Null, false, an empty text or a missing one ends, and so do 0 and -1, which no place behind a page can be. An empty
    page that names a cursor does not: filtered scans answer so.
    """

    paging: CursorPaging
    size: int

    @override
    def begin(self, span: Span) -> dict[str, Any]:
        return {"cursor": None}

    @override
    def ask(self, span: Span, position: Position) -> Ask | None:
        if "cursor" not in position:
            raise PositionUnusable("", "cursor", None, "a cursor")
        params = {} if self.paging.limit_param is None else {self.paging.limit_param: self.size}
        if position["cursor"] is not None:
            params[self.paging.cursor_param] = position["cursor"]
        return Ask(params=params, location=self.paging.location)

    @override
    def step(self, span: Span, position: Position, reply: Reply) -> Step:
        cursor = _search("paging.cursor", self.paging.cursor, reply, exact=True)
        if (
            cursor is None
            or cursor is False
            or (isinstance(cursor, str | int | float) and cursor in _NO_CURSOR)
        ):
            return Step(next=None)
        if isinstance(cursor, float) and not isfinite(cursor):
            raise PagingValueUnusable(
                reply.shown, "cursor", "a number beyond what a double holds", "text or a number"
            )
        if cursor is True or (self.paging.location == "query" and isinstance(cursor, dict | list)):
            raise PagingValueUnusable(
                reply.shown, "cursor", kind_of(cursor), "text, a number, or null at the end"
            )
        if isinstance(cursor, SpelledNumber):
            cursor = self._as_sent_back(cursor, reply)
        return Step(next={"cursor": cursor})

    def _as_sent_back(self, cursor: SpelledNumber, reply: Reply) -> Json:
        """A number as it goes into a request, and into a stored position, where numbers are doubles."""
        if self.paging.location == "query":
            return cursor.text
        number = float(cursor)
        if Decimal(cursor.text) != Decimal(repr(number)):
            found, allowed = (
                "a number with more digits than a double has",
                "a number of fewer digits, or text",
            )
            raise PagingValueUnusable(reply.shown, "cursor", found, allowed)
        return number

    @override
    def probe(self) -> Ask:
        params = {} if self.paging.limit_param is None else {self.paging.limit_param: self.size}
        return Ask(params=params, location=self.paging.location)


@dataclass(frozen=True, slots=True, kw_only=True)
class NextUrlPager(Pager):
    """The next page's address in the body. Position: `url`, None before the first page."""

    paging: NextUrlPaging
    size: int

    @override
    def begin(self, span: Span) -> dict[str, Any]:
        return {"url": None}

    @override
    def ask(self, span: Span, position: Position) -> Ask | None:
        return _ask_url(position, self.paging.limit_param, self.size)

    @override
    def step(self, span: Span, position: Position, reply: Reply) -> Step:
        return _step_url("next_url", _search("paging.next_url", self.paging.next_url, reply), reply)

    @override
    def probe(self) -> Ask:
        return _ask_url({"url": None}, self.paging.limit_param, self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkHeaderPager(Pager):
    """The next page's address in the `Link` header. Position: `url`, None before the first page."""

    paging: LinkHeaderPaging
    size: int

    @override
    def begin(self, span: Span) -> dict[str, Any]:
        return {"url": None}

    @override
    def ask(self, span: Span, position: Position) -> Ask | None:
        return _ask_url(position, self.paging.limit_param, self.size)

    @override
    def step(self, span: Span, position: Position, reply: Reply) -> Step:
        try:
            link = find_next(reply.links)
        except LinkMalformed as error:
            raise PagingValueUnusable(
                reply.shown, "link_header", str(error), '<address>; rel="next" (RFC 8288)'
            ) from error
        return _step_url("link_header", None if link is None else link.target, reply)

    @override
    def probe(self) -> Ask:
        return _ask_url({"url": None}, self.paging.limit_param, self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class SinglePager(Pager):
    """One response holds everything. Position: empty."""

    @override
    def begin(self, span: Span) -> dict[str, Any]:
        return {}

    @override
    def ask(self, span: Span, position: Position) -> Ask | None:
        return Ask()

    @override
    def step(self, span: Span, position: Position, reply: Reply) -> Step:
        return Step(next=None)

    @override
    def probe(self) -> Ask:
        return Ask()


def counts_rows(pager: Pager) -> bool:
    """Whether where paging goes on follows from how many rows came, not from what stands in the page."""
    return isinstance(pager, OffsetPager | PagePager)


def named_parameter(paging: Paging) -> str:
    """What a source seems to ignore that gives one page again and again, for people."""
    match paging:
        case OffsetPaging(offset_param=name):
            return f"paging.offset_param {name!r}"
        case PagePaging(page_param=name):
            return f"paging.page_param {name!r}"
        case CursorPaging(cursor_param=name):
            return f"paging.cursor_param {name!r}"
        case NextUrlPaging(next_url=path):
            return f"the address at paging.next_url {path!r}"
        case _:
            return "the next address of its Link header"


def place_of_next(paging: Paging) -> str:
    """Where a page that follows no arithmetic names the next one, for people."""
    match paging:
        case CursorPaging(cursor=path):
            return f"paging.cursor {path!r}"
        case NextUrlPaging(next_url=path):
            return f"paging.next_url {path!r}"
        case _:
            return "its Link header"


def names_itself(position: Position, following: Position) -> bool:
    """Whether a page names as the next one what was asked for to get it."""
    return all(position.get(name) == value for name, value in following.items())


_NO_CURSOR = ("", "0", "-1", 0, -1)


def _is_last(reply: Reply, span: Span, *, by_size: bool) -> bool:
    """Whether a page without rows is the last one.

    Raises:
        PagingLoop: It says that it is not, and nothing says how to go on.
    """
    if by_size:
        # All of its rows were left out: the next page may have some. Without an end that is known, it must say so.
        return reply.more is not True and reply.total is None and span.end is None
    if reply.more is True:
        raise PagingLoop(
            reply.shown,
            "an empty page says that there are more; where the source leaves rows out of its pages, declare "
            "paging.advance_by: page_size",
        )
    return True


def _believed(reply: Reply, seen: int) -> int | None:
    """The total, where it may say the end: not where more rows have been seen, or the page says that there are more."""
    total = reply.total
    return None if total is None or seen > total or reply.more is True else total


def _reached(row: int, span: Span, total: int | None) -> bool:
    end = total if span.end is None else span.end
    return end is not None and row >= end


def _integer(position: Position, field: str, *, at_least: int = 0) -> int:
    value = position.get(field)
    if isinstance(value, int) and not isinstance(value, bool) and value >= at_least:
        return value
    raise PositionUnusable("", field, value, f"a whole number, {at_least} or more")


def _ask_url(position: Position, limit_param: str | None, size: int) -> Ask:
    url = position.get("url", 0)
    if url is None:
        return Ask(params={} if limit_param is None else {limit_param: size})
    if not isinstance(url, str):
        raise PositionUnusable("", "url", url, "an absolute URL, or null before the first page")
    return Ask(url=url)


def _step_url(field: str, value: Json, reply: Reply) -> Step:
    if value is None or value is False or value == "":
        return Step(next=None)
    if not isinstance(value, str):
        raise PagingValueUnusable(
            reply.shown, field, kind_of(value), "an absolute or relative URL, or null at the end"
        )
    try:
        url = parse_url(reply.url).join(parse_url(value.strip()))
    except ValueError as error:
        raise PagingValueUnusable(
            reply.shown, field, f"no URL ({error})", "an absolute or relative URL"
        ) from error
    # Credentials in an address would be sent by whoever asks it later; ours come from the connection alone.
    if url.raw_user is not None or url.raw_password is not None:
        url = url.with_user(None)
    return Step(next={"url": str(url)})


def _search(field: str, expression: str, reply: Reply, *, exact: bool = False) -> Json:
    try:
        return (_compiled_exactly if exact else compiled)(expression).search(reply.document)
    except ExpressionFails as error:
        raise ExpressionFailed(reply.shown, field, expression, str(error)) from error


@lru_cache(maxsize=256)
def _compiled_exactly(expression: str) -> Expression:
    return Expression(expression, exact=True)


def kind_of(value: Json) -> str:
    """What kind of JSON value it is, in words."""
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            return "text"
        case None:
            return "null"
        case _:
            return "a number"
