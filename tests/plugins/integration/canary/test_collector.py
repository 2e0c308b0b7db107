"""What leaves the collector holds no secret: each kind of authentication with each way to repeat what was sent."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from collect_ops.collectors import client, token_keeper
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.http import HttpCollector
from collect_ops.collectors.page import Span
from collect_ops.collectors.retry import RetryNotice
from collect_ops.journal.trace import describe_failure
from collect_ops.sources.request import render
from tests.canaries import escaped
from tests.factories import source
from tests.plugins.integration.canary.test_canary import (
    ALL,
    AUTHS,
    DECLARED,
    HEADER,
    LOGIN,
    PASSWORD,
    RETRIES,
    TENANT,
    TOKEN,
)
from tests.servers.echo import GOOD, WAYS, EchoServer
from tests.servers.paged import PagedServer


async def shown(server: EchoServer, way: str, auth: dict[str, Any]) -> list[str]:
    """All that a caller of the collector can write down: retries, requests, responses, positions, the error."""
    found: list[str] = []
    endpoint = Endpoint(
        base_url=server.base_url,
        allow_private_networks=True,
        login=LOGIN.text,
        password=PASSWORD.text,
        headers={"X-Tenant": TENANT.text, "X-Tenant-Key": HEADER.text},
        token_url=f"{server.base_url}/token",
    )
    declared = source(
        auth=auth, request={"path": f"/{way}"}, retries=RETRIES, **DECLARED.get(way, {"batch_size": 100})
    )

    def tried(notice: RetryNotice) -> None:
        found.append(f"{notice!r} {notice.error}")

    try:
        async with HttpCollector(declared, render(declared, {}), endpoint, on_retry=tried) as collector:
            async for page in collector.pages(Span(offset=0, size=100)):
                found += [repr((page.request, page.response, page.next_position))]
    except Exception as error:  # noqa: BLE001 - whatever it is must hold no secret
        trace = "".join(traceback.format_exception(error))
        return [*found, trace, repr(vars(error)), repr(describe_failure(error))]
    assert way in GOOD or found, way
    return found


@pytest.mark.parametrize("auth", AUTHS)
def test_nothing_that_leaves_the_collector_holds_a_secret(auth: str) -> None:
    token_keeper._tokens.clear()
    places: dict[str, str] = {}
    with EchoServer(TOKEN.text) as server:
        for way in WAYS:
            texts = asyncio.run(shown(server, way, AUTHS[auth][0]))
            places |= {f"{way} {number}": text for number, text in enumerate(texts)}
    assert escaped(ALL, places) == []
    assert {place.split(" ")[0] for place in places} == set(WAYS)
    assert sum("***" in text for text in places.values()) > len(WAYS) / 2


def test_rows_are_not_masked_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking through a page would cost more than fetching it."""
    looked_at: list[object] = []

    def recorded(masking: Callable[..., Any]) -> Callable[..., Any]:
        def record(value: object, *arguments: Any, **options: Any) -> Any:
            looked_at.append(value)
            return masking(value, *arguments, **options)

        return record

    monkeypatch.setattr(client, "mask", recorded(client.mask))
    monkeypatch.setattr(client, "mask_beginning", recorded(client.mask_beginning))
    monkeypatch.setattr(client, "mask_error", lambda *_, **__: pytest.fail("there is no error"))
    declared = source(auth={"type": "basic"})

    async def collected() -> list[Any]:
        with PagedServer(rows=100) as server:
            endpoint = Endpoint(
                base_url=server.base_url,
                allow_private_networks=True,
                login="somebody",
                password=PASSWORD.text,
            )
            async with HttpCollector(declared, render(declared, {"day": "x"}), endpoint) as collector:
                return [row async for page in collector.pages(Span(offset=0)) for row in page.records]

    rows = asyncio.run(collected())
    assert len(rows) == 100
    assert len(looked_at) <= 6 * 10, (
        "a page: its address where it is named, its request, its response's headers"
    )
    assert max(len(str(value)) for value in looked_at) < 1000
    assert not any(str(row["name"]) in str(value) for row in rows for value in looked_at)
