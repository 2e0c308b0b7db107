"""Texts that a server makes as hard to search as it can: neither a page nor its neighbours wait for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import orjson
import pytest

from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import PagingValueUnusable
from collect_ops.collectors.http import HttpCollector
from collect_ops.collectors.page import Page, Span
from collect_ops.sources.model import Source
from collect_ops.sources.request import render
from tests.servers.paged import Failure, PagedServer

HARD = "\\"
#: Far below a lease of 30 s, on a machine that does much else, too.
STALLS_AT_MOST_S = 6.0


async def fetched(answer: Mapping[str, Any], headers: Mapping[str, str], paging: Mapping[str, Any]) -> Page:
    """The first page, while something else goes on beside it."""
    declared = Source.model_validate(
        {
            "name": "tested",
            "connection": "example_api",
            "request": {"path": "/single"},
            "records": "rows",
            "paging": paging,
            "target": {"table": "tested"},
            "auth": {"type": "bearer"},
        }
    )
    body = orjson.dumps(answer)
    with PagedServer(rows=1) as server:
        server.fail_next(
            "/single",
            Failure(status=200, headers={"Content-Type": "application/json", **headers}, body=body),
        )
        endpoint = Endpoint(
            base_url=server.base_url, password="a-pass/word+of=it", allow_private_networks=True
        )
        collecting = HttpCollector(declared, render(declared, {}), endpoint)
        longest = 0.0

        async def beat() -> None:
            nonlocal longest
            while True:
                began = time.monotonic()
                await asyncio.sleep(0.01)
                longest = max(longest, time.monotonic() - began)

        beating = asyncio.create_task(beat())
        try:
            async with collecting, aclosing(collecting.pages(Span())) as pages:
                return await anext(pages)
        finally:
            beating.cancel()
            assert longest < STALLS_AT_MOST_S


@pytest.mark.parametrize("length", [20_000, 1_000_000])
@pytest.mark.parametrize("member", ["next", "next_cursor"])
async def test_a_position_that_nobody_needs_is_refused_before_it_is_searched(
    member: str, length: int
) -> None:
    paging = {"type": "cursor", "cursor": member} if member == "next_cursor" else {"type": "next_url"}
    paging |= {"next_url": "next"} if member == "next" else {}
    value = ("/next?page=" if member == "next" else "") + HARD * length
    with pytest.raises(PagingValueUnusable, match="longer than"):
        await fetched({"rows": [{"id": 1}], member: value}, {}, paging)


async def test_a_long_position_is_searched_beside_the_event_loop() -> None:
    paging = {"type": "cursor", "cursor": "next_cursor"}
    cursor = HARD * 8_000
    page = await fetched({"rows": [{"id": 1}], "next_cursor": cursor}, {}, paging)
    assert page.next_position is not None
    assert page.next_position["cursor"] == cursor
    with pytest.raises(PagingValueUnusable, match="secret"):
        await fetched({"rows": [{"id": 1}], "next_cursor": HARD + "a-pass%2fword+of=it" * 300}, {}, paging)


async def test_headers_are_shown_as_far_as_anybody_reads() -> None:
    names = ("server", "etag", "x-ratelimit-limit", *(f"x-ratelimit-{n}" for n in range(15)))
    headers = dict.fromkeys(names, HARD * 3_000) | {"server": HARD * 60_000}
    page = await fetched({"rows": [{"id": 1}]}, headers, {"type": "none"})
    shown = page.response["headers"]
    assert all(len(value) <= 256 for value in shown.values())
    assert len(shown) <= 20
