"""Every paging style and authentication against a real server."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import orjson
import pytest

from collect_ops.collectors.conditional import Validator
from collect_ops.collectors.content import Records
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import (
    AuthenticationRefused,
    PageTooLong,
    PagingLoop,
    TooManyPages,
)
from collect_ops.collectors.http import HttpCollector
from collect_ops.collectors.page import Page, Span
from collect_ops.kernel.errors import Permanent
from collect_ops.landing.typed_rows import RowType
from collect_ops.sources.model import Source
from collect_ops.sources.request import render
from tests.plugins.standstill import turns
from tests.servers.paged import Failure, PagedServer, basic, row

STYLES: dict[str, dict[str, Any]] = {
    "/offset": {"type": "offset"},
    "/page": {"type": "page"},
    "/cursor": {"type": "cursor", "cursor": "next_cursor", "limit_param": "limit"},
    "/next": {"type": "next_url", "next_url": "next", "limit_param": "limit"},
    "/link": {"type": "link_header", "limit_param": "limit"},
    "/single": {"type": "none"},
}


def source(path: str, **changes: Any) -> Source:
    """A source of `path`; pages of 25 where the style lets us say so."""
    paging = changes.get("paging", STYLES.get(path, {"type": "none"}))
    sized = paging["type"] in ("offset", "page") or "limit_param" in paging
    declared: dict[str, Any] = {
        "name": "tested",
        "connection": "example_api",
        "request": {"path": path},
        "records": "@" if path == "/link" else "rows",
        "paging": paging,
        "batch_size": 50,
        "page_size": 25 if sized else None,
        "target": {"table": "tested"},
        "retries": {"http_backoff_s": 0.01, "http_max_backoff_s": 0.2},
        **changes,
    }
    return Source.model_validate(declared)


def endpoint(server: PagedServer, **changes: Any) -> Endpoint:
    return Endpoint(base_url=server.base_url, allow_private_networks=True, **changes)


def collector(server: PagedServer, path: str, **changes: Any) -> HttpCollector:
    declared = source(path, **changes)
    return HttpCollector(declared, render(declared, {}), endpoint(server))


async def collect(
    collecting: HttpCollector, span: Span | None = None, position: Mapping[str, Any] | None = None
) -> list[Page]:
    async with collecting, aclosing(collecting.pages(span or Span(), position)) as pages:
        return [page async for page in pages]


def ids(pages: list[Page]) -> list[int]:
    return [record["id"] for page in pages for record in page.records]


@pytest.mark.parametrize("path", STYLES)
async def test_a_stream_gives_every_row_once_and_in_order(path: str) -> None:
    with PagedServer(rows=95, gzip=True) as server:
        pages = await collect(collector(server, path))
        assert ids(pages) == list(range(95))
        assert pages[0].records[3] == row(3)
        assert pages[-1].next_position is None
        assert all(page.next_position is not None for page in pages[:-1])
        assert [page.number for page in pages] == list(range(len(pages)))
        assert all(page.sent_at < page.received_at for page in pages)
        assert all(page.wire_bytes < len(page.raw) for page in pages if len(page.records) > 10)
        assert all(page.attempts == 1 for page in pages)


@pytest.mark.parametrize("path", STYLES)
async def test_it_resumes_after_any_page(path: str) -> None:
    with PagedServer(rows=95, cap=7) as server:
        pages = await collect(collector(server, path))
        assert ids(pages) == list(range(95))
        for page in pages[:-1]:
            rest = await collect(collector(server, path), position=page.next_position)
            assert ids(rest) == list(range(page.records[-1]["id"] + 1, 95))
            assert rest[0].number == page.number + 1


@pytest.mark.parametrize("path", ["/offset", "/page"])
@pytest.mark.parametrize("cap", [None, 1, 3, 20, 49])
async def test_shards_together_are_the_whole(path: str, cap: int | None) -> None:
    with PagedServer(rows=130, cap=cap) as server:
        shards = [Span(offset=0, size=50), Span(offset=50, size=50), Span(offset=100, size=30)]
        collecting = collector(server, path)
        async with collecting:
            got = [[page async for page in collecting.pages(shard)] for shard in shards]
        assert [ids(pages) for pages in got] == [
            list(range(50)),
            list(range(50, 100)),
            list(range(100, 130)),
        ]
        assert all(pages[-1].next_position is None for pages in got)


@pytest.mark.parametrize("path", ["/offset", "/page", "/cursor"])
async def test_paging_parameters_travel_in_the_body(path: str) -> None:
    changes = {
        "request": {"path": path, "method": "POST", "body": {"filter": "all"}},
        "paging": {**STYLES[path], "location": "body"},
    }
    with PagedServer(rows=45) as server:
        assert ids(await collect(collector(server, path, **changes))) == list(range(45))
        assert all(request.body["filter"] == "all" and not request.query for request in server.requests)
        assert server.requests[0].headers["Content-Type"] == "application/json"


async def test_a_known_total_saves_the_last_empty_page() -> None:
    total = {"type": "body", "path": "total"}
    with PagedServer(rows=40) as server:
        pages = await collect(collector(server, "/offset", total=total))
        assert [page.total for page in pages] == [40, 40]
        assert len(server.requests) == 2
        pages = await collect(collector(server, "/offset"))
        assert [len(page.records) for page in pages] == [25, 15, 0]


@pytest.mark.parametrize(
    ("path", "total"),
    [
        ("/offset", {"type": "body", "path": "total"}),
        ("/page", {"type": "body", "path": "total"}),
        ("/single", {"type": "body", "path": "total"}),
        ("/link", {"type": "header", "name": "X-Total-Count"}),
        ("/cursor", {"type": "request", "path": "/count", "value": "count"}),
    ],
)
async def test_the_total_is_found_where_the_source_says(path: str, total: dict[str, Any]) -> None:
    with PagedServer(rows=1234, total_header="X-Total-Count") as server:
        async with collector(server, path, total=total) as collecting:
            assert await collecting.total() == 1234
        limit = [request.query.get("size" if path == "/page" else "limit") for request in server.requests]
        assert limit == ["25" if path in ("/offset", "/page", "/link") else None]


async def test_an_unknown_total_is_not_asked_for() -> None:
    with PagedServer() as server:
        async with collector(server, "/offset") as collecting:
            assert await collecting.total() is None
        assert server.requests == []


async def test_a_total_that_is_missing_is_unknown() -> None:
    with PagedServer() as server:
        async with collector(server, "/offset", total={"type": "body", "path": "meta.count"}) as collecting:
            assert await collecting.total() is None


async def test_a_total_below_the_rows_that_came_with_it_is_none() -> None:
    with PagedServer(rows=20) as server:
        async with collector(server, "/offset", total={"type": "body", "path": "rows[3].id"}) as collecting:
            named = await collecting.named_total()
    assert named.rows is None
    assert "holds 20 rows" in (named.problem or "")


async def test_a_server_that_ignores_the_limit_is_found_out() -> None:
    with PagedServer(rows=100) as server:
        with pytest.raises(PageTooLong, match="100 rows came where 25 were asked for") as caught:
            await collect(collector(server, "/ignores_limit", paging={"type": "offset"}))
        assert isinstance(caught.value, Permanent)


@pytest.mark.parametrize(
    "paging", [{"type": "next_url", "next_url": "next"}, {"type": "cursor", "cursor": "next_cursor"}]
)
async def test_a_loop_ends_after_the_pages_before_it(paging: dict[str, Any]) -> None:
    with PagedServer() as server:
        async with collector(server, "/loop", paging=paging) as collecting:
            pages = collecting.pages(Span())
            assert [(await anext(pages)).number for _ in range(2)] == [0, 1]
            with pytest.raises(PagingLoop):
                await anext(pages)
        assert len(server.requests) == 2


async def test_empty_pages_do_not_go_on_for_ever() -> None:
    changes = {"paging": {"type": "next_url", "next_url": "next"}, "limits": {"max_empty_pages": 100}}
    with PagedServer() as server, pytest.raises(PagingLoop, match="100 pages in a row were empty"):
        await collect(collector(server, "/loop_empty", **changes))


async def test_more_pages_than_allowed_is_an_error() -> None:
    changes = {"paging": {"type": "next_url", "next_url": "next"}, "limits": {"max_pages": 5}}
    with PagedServer() as server:
        with pytest.raises(TooManyPages, match=r"limits.max_pages 5"):
            await collect(collector(server, "/grow", **changes))
        assert len(server.requests) == 5


AUTHS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"type": "basic"}, {"required_headers": basic("me", "s3cret-ü")}),
    ({"type": "bearer"}, {"required_headers": {"Authorization": "Bearer s3cret-ü"}}),
    ({"type": "api_key"}, {"required_headers": {"X-Api-Key": "s3cret-ü"}}),
    (
        {"type": "api_key", "location": "query", "name": "api_key"},
        {"required_query": {"api_key": "s3cret-ü"}},
    ),
]


@pytest.mark.parametrize("path", ["/offset", "/next", "/link"])
@pytest.mark.parametrize(("auth", "server_says"), AUTHS)
async def test_every_authentication(path: str, auth: dict[str, Any], server_says: dict[str, Any]) -> None:
    server_says = {**server_says, "echo_key": "api_key"}
    declared = source(path, auth=auth)
    with PagedServer(rows=50, **server_says) as server:
        allowed = endpoint(server, login="me", password="s3cret-ü")
        pages = await collect(HttpCollector(declared, render(declared, {}), allowed))
        assert ids(pages) == list(range(50))
        told = repr([(page.request, page.response, page.next_position) for page in pages])
        assert "s3cret" not in told
        wrong = endpoint(server, login="me", password="wr0ng")
        with pytest.raises(AuthenticationRefused, match="answered 401, connection 'example_api'") as caught:
            await collect(HttpCollector(declared, render(declared, {}), wrong))
        assert isinstance(caught.value, Permanent)
        assert "wr0ng" not in str(caught.value)
        assert len([request for request in server.requests if "wr0ng" in repr(request.query)]) <= 1


async def test_headers_of_the_connection_and_the_source_are_sent() -> None:
    declared = source(
        "/offset", request={"path": "/offset", "headers": {"X-Source": "1", "accept": "text/json"}}
    )
    with PagedServer(rows=1) as server:
        sending = endpoint(server, headers={"X-Connection": "2"})
        await collect(HttpCollector(declared, render(declared, {}), sending))
        headers = server.requests[0].headers
        assert (headers["X-Source"], headers["X-Connection"]) == ("1", "2")
        assert headers["Accept"] == "text/json"
        assert headers["User-Agent"].startswith("collect-ops/")


@pytest.mark.parametrize("path", [path for path in STYLES if path != "/single"])
async def test_pages_are_read_as_rows_once_it_is_known_what_stands_beside_them(path: str) -> None:
    declared = source(path, target={"table": "tested", "columns": {"id": {"type": "bigint"}}})
    row_type = RowType.of(declared.target)
    with PagedServer(rows=100) as server:
        reading = HttpCollector(declared, render(declared, {}), endpoint(server), row_type=row_type)
        pages = await collect(reading)
    assert [isinstance(page.records, Records) for page in pages] == [False, *[True] * (len(pages) - 1)]
    assert len(pages) >= 4
    assert ids(pages) == list(range(100))
    assert all(page.records.encoded for page in pages if isinstance(page.records, Records))


@pytest.mark.parametrize("total", [{"type": "unknown"}, {"type": "header", "name": "X-Total"}])
@pytest.mark.parametrize("path", STYLES)
async def test_what_is_unchanged_does_not_end_paging_where_it_ended(path: str, total: dict[str, Any]) -> None:
    """An entity tag of the body alone stays the same when a header begins to name more rows, or a next page."""
    known: dict[bytes, Validator] = {}

    async def recall(request: bytes) -> Validator | None:
        return known.get(request)

    async def rows_seen() -> int:
        seen = 0
        collecting = collector(server, path, total=total)
        async with collecting, aclosing(collecting.pages(Span(), recall=recall)) as pages:
            async for page in pages:
                seen += len(page.records) if page.unchanged_rows is None else page.unchanged_rows
                assert page.known is not None
                if page.known.validator is not None:
                    known[page.known.request] = page.known.validator
        return seen

    with PagedServer(rows=100, etags="body", total_header="X-Total", total_in_body=False) as server:
        for rows in (100, 100, 101, 125, 150, 149, 50):
            server.rows = rows
            assert await rows_seen() == rows


async def test_expressions_that_take_long_leave_the_event_loop_free() -> None:
    """Leases are renewed meanwhile."""
    groups = [{"items": [{"id": group * 200 + number} for number in range(200)]} for group in range(400)]
    body = orjson.dumps({"groups": groups, "seen": list(range(200_000))})
    records = "groups[].items[] | sort_by(@, &id) | [?id >= `0`].{id: id}"
    total = {"type": "body", "path": "length(seen[?@ >= `0`]) && length(groups[].items[])"}
    with PagedServer() as server:
        server.fail_next(
            "/single", Failure(status=200, headers={"Content-Type": "application/json"}, body=body)
        )
        async with turns() as loop:
            (page,) = await collect(collector(server, "/single", records=records, total=total))
    assert page.total == len(page.records) == 80_000
    assert loop.total_s > 0.3, "the page is too light to show anything"
    assert loop.longest_s < loop.total_s / 3
