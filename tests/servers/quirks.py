"""Servers that page as no textbook says: each path is one quirk that some API has.

In a test: `with QuirkyServer() as server: ...`; `/quirk/NAME` answers as `QUIRKS[NAME]` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.servers.paged import RECORDED, PagedServer, row


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request: its parameters, from the query or the body; how often this path was asked before."""

    params: Mapping[str, Any]
    before: int
    url: str

    def number(self, name: str, default: int = 0) -> int:
        return int(self.params.get(name, default))


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer."""

    document: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Quirk = Callable[[Asked], Said]
QUIRKS: dict[str, Quirk] = {}
#: Rows of most of them.
ROWS = 45


def quirk(function: Quirk) -> Quirk:
    """Serve a function at `/quirk/` and its name."""
    QUIRKS[function.__name__] = function
    return function


def cut(start: int, size: int, rows: int = ROWS) -> list[dict[str, Any]]:
    return [row(number) for number in range(max(0, start), min(rows, start + size))]


def by_offset(asked: Asked, rows: int = ROWS) -> list[dict[str, Any]]:
    return cut(asked.number("offset"), asked.number("limit", 10), rows)


def by_page(asked: Asked, rows: int = ROWS) -> list[dict[str, Any]]:
    size = asked.number("size", 10)
    return cut((asked.number("page", 1) - 1) * size, size, rows)


# The paging parameter is ignored, or a page is repeated.


@quirk
def offset_ignored(asked: Asked) -> Said:
    return Said(document={"total": ROWS, "rows": cut(0, 10), "at": asked.before})


@quirk
def offset_ignored_total_unknown(asked: Asked) -> Said:
    return Said(document={"rows": [{**each, "read": asked.before} for each in cut(0, 10)]})


@quirk
def new_cursor_same_rows(asked: Asked) -> Said:
    return Said(document={"rows": cut(0, 10), "next_cursor": f"c{asked.before}"})


@quirk
def last_page_for_ever(asked: Asked) -> Said:
    page = min(asked.number("page", 1), 5)
    return Said(document={"rows": cut((page - 1) * 10, 10)})


@quirk
def page_ignored(asked: Asked) -> Said:
    return Said(document={"total": ROWS, "rows": cut(0, 10), "at": asked.before})


@quirk
def next_page_ignored(asked: Asked) -> Said:
    """A next address, in the body and in a header, that is a new one each time and leads to the first page."""
    following = f"{asked.url}?after={asked.before + 1}"
    rows = [{**each, "read": asked.before} for each in cut(0, 10)]
    return Said(document={"rows": rows, "next": following}, headers={"Link": f'<{following}>; rel="next"'})


@quirk
def one_row_pages(asked: Asked) -> Said:
    """Pages of one row that is the same each time, as readings are; rows without a key."""
    following = None if asked.before >= 3 else asked.before + 1
    return Said(document={"rows": [{"name": "calm"}], "next_cursor": following})


@quirk
def empty_scan(asked: Asked) -> Said:
    """A scan with a filter: 150 empty pages, each with a token, then rows."""
    turn = asked.number("cursor")
    if turn < 150:
        return Said(document={"rows": [], "next_cursor": turn + 1})
    return Said(
        document={"rows": cut((turn - 150) * 15, 15), "next_cursor": turn + 1 if turn < 152 else None}
    )


@quirk
def nested(asked: Asked) -> Said:
    """GraphQL: the cursor stands below `variables`."""
    after = (asked.params.get("variables") or {}).get("after") or 0
    assert "variables.after" not in asked.params
    following = after + 10 if after + 10 < ROWS else None
    return Said(document={"data": {"rows": cut(after, 10), "after": following}})


@quirk
def nested_offset(asked: Asked) -> Said:
    """JSON:API in a body: both numbers stand below `page`."""
    assert set(asked.params) == {"page"}
    page = asked.params["page"]
    return Said(document={"total": ROWS, "rows": cut(page["offset"], page["limit"])})


# Where pages begin.


@quirk
def first_is_one(asked: Asked) -> Said:
    """SCIM: startIndex counts from 1, and 0 means 1."""
    start = max(1, asked.number("startIndex", 1))
    return Said(document={"total": ROWS, "rows": cut(start - 1, asked.number("count", 10))})


@quirk
def offset_by_pages(asked: Asked) -> Said:
    """Page = offset // limit."""
    limit = asked.number("limit", 10)
    return Said(document={"total": ROWS, "rows": cut(asked.number("offset") // limit * limit, limit)})


@quirk
def one_size_only(asked: Asked) -> Said:
    """400 for any other limit."""
    if asked.number("limit") != 10:
        return Said(status=400, document={"error": "limit must be 10"})
    return Said(document={"total": ROWS, "rows": by_offset(asked)})


@quirk
def strict_parameters(asked: Asked) -> Said:
    """400 for a parameter that it does not know; pages of 10 by number."""
    if set(asked.params) - {"page"}:
        return Said(status=400, document={"error": "unknown parameter"})
    return Said(document={"total": ROWS, "rows": by_page(asked)})


@quirk
def mixed_kinds(asked: Asked) -> Said:
    return Said(
        document={
            "total": ROWS,
            "rows": [{**each, "kind": "ab"[each["id"] % 2]} for each in by_offset(asked)],
        }
    )


@quirk
def thinned(asked: Asked) -> Said:
    """Rows that the caller may not see are left out of their page; the total counts them."""
    return Said(document={"total": ROWS, "rows": [each for each in by_offset(asked) if each["id"] % 5]})


@quirk
def thinned_to_nothing(asked: Asked) -> Said:
    """Page 2 of 5 holds nothing that the caller may see."""
    page = asked.number("page", asked.number("offset") // 10 + 1)
    rows = [] if page == 2 else cut((page - 1) * 10, 10)
    return Said(document={"has_more": page < 5, "rows": rows})


# Totals.


@quirk
def total_moves(asked: Asked) -> Said:
    rows = ROWS if asked.before == 0 else ROWS + 10
    return Said(document={"total": rows, "rows": by_offset(asked, ROWS + 10)})


@quirk
def total_shrinks(asked: Asked) -> Said:
    """Rows are deleted after the probe has counted them."""
    rows = ROWS if asked.before == 0 else ROWS - 10
    return Said(document={"total": rows, "rows": by_offset(asked, ROWS - 10)})


@quirk
def total_capped(asked: Asked) -> Said:
    return Said(document={"total": 30, "rows": by_offset(asked)})


@quirk
def total_capped_with_more(asked: Asked) -> Said:
    """Nobody has declared that its total is capped, but its pages say that there are more rows."""
    more = asked.number("offset") + 10 < ROWS
    return Said(document={"total": 30, "has_more": more, "rows": by_offset(asked)})


@quirk
def more_after_every_full_page(asked: Asked) -> Said:
    """It takes a full page for a sign that there are more rows."""
    rows = by_offset(asked, 40)
    return Said(document={"total": 40, "has_more": len(rows) == 10, "rows": rows})


@quirk
def more_without_a_place(asked: Asked) -> Said:
    """Its cursor has another name than the declared one."""
    start = asked.number("cursor")
    more = start + 10 < ROWS
    return Said(document={"rows": cut(start, 10), "has_more": more, "after": start + 10 if more else None})


@quirk
def total_capped_by_page(asked: Asked) -> Said:
    return Said(document={"total": 30, "rows": by_page(asked)})


@quirk
def stream_with_one_more(asked: Asked) -> Said:
    start = asked.number("cursor")
    following = start + 10 if start + 10 < ROWS else None
    return Said(document={"total": ROWS - 1, "rows": cut(start, 10), "next_cursor": following})


def odd_total(total: Any) -> Quirk:
    def serve(asked: Asked) -> Said:
        return Said(document={"total": total, "rows": by_offset(asked)})

    return serve


QUIRKS["total_negative"] = odd_total(-1)
QUIRKS["total_with_commas"] = odd_total("1,234")
QUIRKS["total_or_more"] = odd_total({"value": 30, "relation": "gte"})
QUIRKS["total_as_an_object"] = odd_total({"value": ROWS, "relation": "eq"})
QUIRKS["total_null"] = odd_total(None)


def total_in_a_header(total: str | None) -> Quirk:
    def serve(asked: Asked) -> Said:
        return Said(document={"rows": by_offset(asked)}, headers={} if total is None else {"X-Total": total})

    return serve


for _name, _total in {
    "missing": None,
    "negative": "-1",
    "with_commas": "1,234",
    "a_range": "rows 0-9/*",
}.items():
    QUIRKS[f"header_total_{_name}"] = total_in_a_header(_total)
QUIRKS["header_total"] = total_in_a_header(f"rows 0-9/{ROWS}")


@quirk
def count_without_number(asked: Asked) -> Said:
    """What a request for the total alone is answered with."""
    return Said(document={"count": None if asked.before else "many"})


@quirk
def no_content(asked: Asked) -> Said:
    return Said(status=204)


# The end.


def behind_the_end(status: int) -> Quirk:
    def serve(asked: Asked) -> Said:
        rows = by_page(asked)
        return Said(document={"rows": rows}) if rows else Said(status=status, document={"code": "no_page"})

    return serve


def offset_behind_the_end(status: int) -> Quirk:
    def serve(asked: Asked) -> Said:
        rows = by_offset(asked)
        return Said(document={"rows": rows}) if rows else Said(status=status, document={"code": "range"})

    return serve


for _status in (400, 404, 416, 422):
    QUIRKS[f"offset_behind_the_end_{_status}"] = offset_behind_the_end(_status)


for _status in (400, 404, 416, 422):
    QUIRKS[f"behind_the_end_{_status}"] = behind_the_end(_status)


@quirk
def nothing_matches(asked: Asked) -> Said:
    return Said(status=404, document={"message": "no results"})


@quirk
def next_leads_nowhere(asked: Asked) -> Said:
    """The last page has a next one, which is a 404; the total says that all has come."""
    start = asked.number("cursor")
    if start >= ROWS:
        return Said(status=404, document={})
    return Said(document={"total": ROWS, "rows": cut(start, 10), "next_cursor": start + 10})


@quirk
def next_address_leads_nowhere(asked: Asked) -> Said:
    """Every page has a next address, in the body and in a header; that of the last one is a 404."""
    start = asked.number("after")
    if start >= ROWS:
        return Said(status=404, document={})
    following = f"{asked.url}?after={start + 10}"
    return Said(
        document={"rows": cut(start, 10), "next": following}, headers={"Link": f'<{following}>; rel="next"'}
    )


@quirk
def has_more_by_offset(asked: Asked) -> Said:
    start = asked.number("offset")
    if start >= ROWS:
        return Said(status=500, document={})
    return Said(document={"hasMore": start + 10 < ROWS, "rows": by_offset(asked)})


@quirk
def has_more_beside_a_cursor(asked: Asked) -> Said:
    """The last page has a cursor, for those who come back later."""
    start = asked.number("cursor")
    if start >= ROWS:
        return Said(status=500, document={})
    return Said(document={"has_more": start + 10 < ROWS, "rows": cut(start, 10), "next_cursor": start + 10})


@quirk
def has_more(asked: Asked) -> Said:
    """Fails behind the page that says that there are no more."""
    page = asked.number("page", 1)
    if page > 5:
        return Said(status=500, document={})
    return Said(document={"has_more": page < 5, "rows": by_page(asked)})


@quirk
def total_pages(asked: Asked) -> Said:
    page = asked.number("page", 1)
    if page > 5:
        return Said(status=500, document={})
    return Said(document={"page": page, "total_pages": 5, "rows": by_page(asked)})


@quirk
def says_it_in_a_header(asked: Asked) -> Said:
    page = asked.number("page", 1)
    if page > 5:
        return Said(status=500, document={})
    return Said(document={"rows": by_page(asked)}, headers={"X-Has-More": "true" if page < 5 else "FALSE"})


@quirk
def sentry(asked: Asked) -> Said:
    start = asked.number("cursor")
    if start >= ROWS:
        return Said(status=500, document={})
    more = "true" if start + 10 < ROWS else "false"
    link = f'<{asked.url}?cursor={start + 10}>; rel="next"; results="{more}"; cursor="0:{start + 10}:0"'
    return Said(document=cut(start, 10), headers={"Link": link})


def last_cursor(value: Any) -> Quirk:
    def serve(asked: Asked) -> Said:
        start = asked.number("cursor")
        following = start + 10 if start + 10 < ROWS else value
        return Said(document={"rows": cut(start, 10), "next_cursor": following})

    return serve


for _name, _value in {"zero": 0, "zero_text": "0", "minus_one": "-1", "empty": "", "false": False}.items():
    QUIRKS[f"last_cursor_{_name}"] = last_cursor(_value)


@quirk
def names_itself(asked: Asked) -> Said:
    start = asked.number("cursor")
    return Said(document={"rows": cut(start, 10), "next_cursor": min(start + 10, 40)})


@quirk
def names_itself_at_once(asked: Asked) -> Said:
    return Said(document={"rows": cut(0, 10), "next_cursor": "same"})


@quirk
def scroll(asked: Asked) -> Said:
    return Said(document={"rows": cut(10 * asked.before, 10), "next_cursor": "same"})


# No rows, and one row.


@quirk
def records_null(asked: Asked) -> Said:
    return Said(document={"rows": None})


@quirk
def records_null_by_error(asked: Asked) -> Said:
    return Said(document={"rows": None, "errors": [{"message": "out of order"}]})


def fails_on_the_way(**said: Any) -> Quirk:
    def serve(asked: Asked) -> Said:
        page = by_page(asked) if asked.number("page", 1) < 3 else None
        return Said(document={"rows": page, **(said if page is None else {})})

    return serve


for _name, _said in {
    "status": {"status": "error", "message": "the backend timed out"},
    "code": {"code": 504, "message": "the backend timed out"},
    "success": {"success": False, "message": "the backend timed out"},
    "fault": {"fault": {"faultstring": "the backend timed out"}},
}.items():
    QUIRKS[f"records_null_by_{_name}"] = fails_on_the_way(**_said)


@quirk
def records_missing(asked: Asked) -> Said:
    return Said(document={"took": 3})


@quirk
def records_missing_total_0(asked: Asked) -> Said:
    return Said(document={"total": 0})


@quirk
def one_record(asked: Asked) -> Said:
    """The last page's only row stands there without a list around it, as converters from XML write it."""
    rows: Any = by_offset(asked, 41)
    return Said(document={"total": 41, "rows": rows[0] if len(rows) == 1 else rows})


class QuirkyServer(PagedServer):
    """Serves `QUIRKS`, beside what every test server serves.

    `/scroll` pages by cursors that are good for one scroll: `expire` ends those that are under way.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scroll = 0

    def expire(self) -> None:
        """No cursor that was given out is good any more."""
        self.scroll += 1

    def _handlers(self) -> Iterator[tuple[str, Any]]:
        yield from super()._handlers()
        yield "/quirk/{name}", self._quirk
        yield "/scroll", self._scroll

    async def _scroll(self, request: web.Request) -> web.Response:
        scroll, _, start = request.query.get("cursor", f"{self.scroll}-0").partition("-")
        if int(scroll) != self.scroll:
            return web.json_response({"error": "No search context found"}, status=404)
        after = int(start) + 10
        following = f"{scroll}-{after}" if after < self.rows else None
        return web.json_response({"rows": self._cut(int(start), 10), "next_cursor": following})

    async def _quirk(self, request: web.Request) -> web.Response:
        recorded = request[RECORDED]
        params = recorded.body if isinstance(recorded.body, dict) else recorded.query
        before = len(self.asked(request.path)) - 1
        asked = Asked(params=params, before=before, url=f"{self.base_url}{request.path}")
        said = QUIRKS[request.match_info["name"]](asked)
        body = b"" if said.status == 204 else orjson.dumps(said.document)
        return web.Response(
            status=said.status, body=body, headers=said.headers, content_type="application/json"
        )
