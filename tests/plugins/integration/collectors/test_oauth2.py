"""OAuth2 client credentials: one token for all, renewed in time, never seen, never sent elsewhere."""

from __future__ import annotations

import asyncio
import base64
import socket
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson
import pytest

from collect_ops.collectors import token_keeper
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import (
    AddressRefused,
    AuthenticationRefused,
    CollectorError,
    CredentialsMissing,
    HostBusy,
    HostUnreachable,
    RedirectRefused,
    RequestTimedOut,
    TokenRefused,
    TokenServerFailed,
    TokenUnusable,
    TokenUrlRefused,
)
from collect_ops.collectors.http import HttpCollector
from collect_ops.collectors.page import Page, Span
from collect_ops.kernel.errors import Permanent, Transient
from collect_ops.sources.model import Source
from collect_ops.sources.request import render
from tests.servers.elsewhere import stand_elsewhere
from tests.servers.paged import Failure, PagedServer

SECRET = "s3cr:t %&ß"
CLIENT = ("client+1", SECRET)


@pytest.fixture(autouse=True)
def no_tokens() -> None:
    """What an earlier test was given."""
    token_keeper._tokens.clear()


@pytest.fixture
async def server() -> AsyncIterator[PagedServer]:
    async with PagedServer(rows=100, oauth2=CLIENT) as server:
        yield server


def source(**changes: Any) -> Source:
    declared: dict[str, Any] = {
        "name": "tested",
        "connection": "example_api",
        "request": {"path": "/offset"},
        "records": "rows",
        "paging": {"type": "offset"},
        "total": {"type": "body", "path": "total"},
        "batch_size": 100,
        "page_size": 10,
        "target": {"table": "tested"},
        "auth": {"type": "oauth2", "token_url": "/token"},
        "retries": {"http_attempts": 2, "http_backoff_s": 0.01, "http_max_backoff_s": 0.3},
        **changes,
    }
    return Source.model_validate(declared)


def collector(server: PagedServer, declared: Source, **changes: Any) -> HttpCollector:
    fields = {"login": CLIENT[0], "password": SECRET, "allow_private_networks": True, **changes}
    return HttpCollector(declared, render(declared, {}), Endpoint(base_url=server.base_url, **fields))


async def collect(server: PagedServer, declared: Source, **changes: Any) -> list[Page]:
    collecting = collector(server, declared, **changes)
    async with collecting, aclosing(collecting.pages(Span())) as pages:
        return [page async for page in pages]


async def failure(server: PagedServer, kind: type[CollectorError], **changes: Any) -> str:
    with pytest.raises(kind) as caught:
        await collect(server, changes.pop("declared", source()), **changes)
    everything = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)
    assert SECRET not in everything
    assert not any(token in everything for token in server.issued)
    assert isinstance(caught.value, Transient) != isinstance(caught.value, Permanent)
    return str(caught.value)


async def test_one_token_serves_all_requests_and_is_not_shown(server: PagedServer) -> None:
    pages = await collect(
        server, source(auth={"type": "oauth2", "token_url": "/token", "scope": "read write"})
    )
    assert sum(len(page.records) for page in pages) == 100
    (asked,) = server.asked("/token")
    assert (asked.method, asked.body) == (
        "POST",
        {"grant_type": "client_credentials", "scope": "read write"},
    )
    assert asked.headers["Content-Type"] == "application/x-www-form-urlencoded"
    (token,) = server.issued
    shown = repr([(page.request, page.response) for page in pages])
    assert token not in shown
    assert "'Authorization': '***'" in shown


async def test_id_and_secret_in_the_body(server: PagedServer) -> None:
    auth = {"type": "oauth2", "token_url": "/token", "client_auth": "body", "audience": "https://api"}
    await collect(server, source(auth=auth))
    (asked,) = server.asked("/token")
    assert "Authorization" not in asked.headers
    assert asked.body == {
        "grant_type": "client_credentials",
        "audience": "https://api",
        "client_id": CLIENT[0],
        "client_secret": SECRET,
    }


async def test_concurrent_requests_share_one_renewal(server: PagedServer) -> None:
    held = server.hold_where(lambda request: request.path == "/token")

    async def shard(collecting: HttpCollector, number: int) -> int:
        async with aclosing(collecting.pages(Span(offset=number * 10, size=10))) as pages:
            return sum([len(page.records) async for page in pages])

    # Two clients of one connection in one process, ten requests at once.
    async with collector(server, source()) as one, collector(server, source()) as other:
        running = [asyncio.create_task(shard((one, other)[n % 2], n)) for n in range(10)]
        await asyncio.to_thread(held.wait)
        await asyncio.sleep(0.05)
        held.release()
        assert sum(await asyncio.gather(*running)) == 100
    assert len(server.issued) == 1


async def test_who_is_cancelled_while_renewing_leaves_it_to_the_next(server: PagedServer) -> None:
    held = server.hold_where(lambda request: request.path == "/token")
    async with collector(server, source()) as collecting:
        first = asyncio.create_task(collecting.total())
        await asyncio.to_thread(held.wait)
        second = asyncio.create_task(collecting.total())
        await asyncio.sleep(0.01)
        first.cancel()
        held.release()
        assert await second == 100
        with pytest.raises(asyncio.CancelledError):
            await first
    assert len(server.asked("/token")) == 2


async def test_a_renewal_that_fails_fails_for_all_who_wait(server: PagedServer) -> None:
    held = server.hold_where(lambda request: request.path == "/token")
    server.fail_next("/token", Failure(status=401, body=b'{"error": "invalid_client"}'))
    async with collector(server, source()) as collecting:
        running = [asyncio.create_task(collecting.total()) for _ in range(5)]
        await asyncio.to_thread(held.wait)
        await asyncio.sleep(0.05)
        held.release()
        results = await asyncio.gather(*running, return_exceptions=True)
    # The semaphore lets four at once; the fifth asks on its own.
    assert sum(isinstance(result, TokenRefused) for result in results) == 4
    assert len(server.asked("/token")) == 2


async def test_a_token_is_renewed_before_it_ends(
    server: PagedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token_answer = {"token_type": "bearer", "expires_in": "1"}
    async with collector(server, source()) as collecting:
        assert await collecting.total() == 100
        assert await collecting.total() == 100
        assert len(server.issued) == 1
        await asyncio.sleep(0.85)  # 0.8 s: its life less a fifth
        assert await collecting.total() == 100
    assert len(server.issued) == 2


async def test_a_revoked_token_is_renewed_once(server: PagedServer) -> None:
    async with collector(server, source()) as collecting:
        await collecting.total()
        server.revoke()
        assert await collecting.total() == 100
        assert len(server.issued) == 2


async def test_requests_that_are_refused_together_renew_once(server: PagedServer) -> None:
    async with collector(server, source()) as collecting:
        await collecting.total()
        server.revoke()
        assert await asyncio.gather(*(collecting.total() for _ in range(4))) == [100] * 4
        assert len(server.issued) == 2


async def test_a_new_token_that_is_refused_too_ends_it(server: PagedServer) -> None:
    server.fail_where(lambda request: request.path == "/offset", Failure(status=401))
    text = await failure(server, AuthenticationRefused)
    assert "answered 401" in text
    assert (len(server.issued), len(server.asked("/offset"))) == (2, 2)


async def test_403_renews_nothing(server: PagedServer) -> None:
    server.fail_where(lambda request: request.path == "/offset", Failure(status=403))
    await failure(server, AuthenticationRefused)
    assert (len(server.issued), len(server.asked("/offset"))) == (1, 1)


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (Failure(status=400, body=b'{"error": "invalid_scope"}'), TokenRefused, "invalid_scope"),
        (Failure(status=401, body=b'{"error": "invalid_client"}'), TokenRefused, "invalid_client"),
        (Failure(status=404, body=b"no such page"), TokenRefused, "it answered 404"),
        (Failure(status=403, body=b"[]"), TokenRefused, "it answered 403"),
        (Failure(status=200, body=b'{"error": "invalid_client"}'), TokenRefused, "invalid_client"),
        (Failure(status=400, body=b'{"error": "\\u0000<b>"}'), TokenRefused, "an error code that is none"),
        (Failure(status=500), TokenServerFailed, "answered 500"),
        (Failure(status=502, body=b"<html>"), TokenServerFailed, "answered 502"),
        (Failure(status=400, body=b'{"error": "temporarily_unavailable"}'), TokenServerFailed, "temporarily"),
        (Failure(status=429), HostBusy, "answered 429"),
        (Failure(status=503, headers={"Retry-After": "9"}), HostBusy, "asks to wait 9 s"),
        (Failure(status=200, body=b"access_token=abc123"), TokenUnusable, "not JSON"),
        (Failure(status=200, body=b""), TokenUnusable, "not JSON"),
        (Failure(status=200, body=b"[]"), TokenUnusable, "answer is a list"),
        (Failure(status=200, body=b"{}"), TokenUnusable, "access_token is missing"),
        (Failure(status=200, body=b'{"access_token": ""}'), TokenUnusable, "no text that a header can carry"),
        (Failure(status=200, body=b'{"access_token": "a\\r\\nb"}'), TokenUnusable, "visible ASCII"),
        (Failure(status=200, body=b'{"access_token": 12}'), TokenUnusable, "access_token is a number"),
        (Failure(status=200, body=b" " * 70_000), TokenUnusable, "longer than 65536 bytes"),
        (Failure(status=302, headers={"Location": "/elsewhere"}), RedirectRefused, "name the address"),
        (Failure(reset_after=10), CollectorError, "broke off"),
    ],
)
async def test_answers_of_the_token_endpoint(
    server: PagedServer, answer: Failure, kind: type[CollectorError], text: str
) -> None:
    server.fail_where(lambda request: request.path == "/token", answer)
    assert text in await failure(server, kind)
    assert server.asked("/offset") == []
    assert server.asked("/elsewhere") == []


@pytest.mark.parametrize("odd", ["0", "-1", "true", '"soon"', '""', "[]", "{}", "-0.5", '"-5"', '"1e3"'])
async def test_an_odd_life(server: PagedServer, odd: str) -> None:
    body = f'{{"access_token": "abc", "expires_in": {odd}}}'.encode()
    server.fail_where(lambda request: request.path == "/token", Failure(status=200, body=body))
    assert "expires_in" in await failure(server, TokenUnusable)


@pytest.mark.parametrize("kind", ["mac", 5, "DPoP"])
async def test_a_token_of_another_type(server: PagedServer, kind: Any) -> None:
    server.token_answer = {"token_type": kind, "expires_in": 3600}
    assert "token_type" in await failure(server, TokenUnusable)


@pytest.mark.parametrize("life", ["null", "1e30", "3600.5", '"3600"', "99999999999999999999"])
async def test_lives_that_will_do(server: PagedServer, life: str) -> None:
    body = f'{{"access_token": "abc", "expires_in": {life}}}'.encode()
    server.issued.append("abc")
    server.fail_where(lambda request: request.path == "/token", Failure(status=200, body=body))
    assert len(await collect(server, source())) == 10


async def test_what_the_endpoint_says_is_masked(server: PagedServer) -> None:
    said = orjson.dumps(
        {"error": "invalid_client", "error_description": f"{CLIENT[0]} with {SECRET} is wrong"}
    )
    server.fail_where(lambda request: request.path == "/token", Failure(status=401, body=said))
    text = await failure(server, TokenRefused)
    assert "*** with *** is wrong" in text
    assert CLIENT[0] not in text


async def test_a_transient_failure_is_tried_again(server: PagedServer) -> None:
    server.fail_next("/token", Failure(status=500))
    pages = await collect(server, source())
    assert pages[0].attempts == 2


async def test_an_endpoint_that_does_not_answer(server: PagedServer) -> None:
    held = server.hold_where(lambda request: request.path == "/token")
    declared = source(timeouts={"read_s": 0.2}, retries={"http_attempts": 1})
    assert "/token" in await failure(server, RequestTimedOut, declared=declared)
    held.release()


async def test_an_endpoint_that_is_not_there(server: PagedServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/token"
        declared = source(auth={"type": "oauth2"}, retries={"http_attempts": 1})
        assert url in await failure(server, HostUnreachable, declared=declared, token_url=url)


async def test_the_token_goes_to_no_other_host(server: PagedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with PagedServer(rows=3) as other:
        stand_elsewhere(monkeypatch, other.base_url)
        to = f"{other.base_url}/single"
        declared = source(
            request={"path": "/redirect", "query": {"to": to}},
            paging={"type": "none"}, page_size=None, total={"type": "unknown"},
        )  # fmt: skip
        await collect(server, declared)
        (asked,) = other.requests
        assert "Authorization" not in asked.headers


async def test_401_of_another_host_renews_nothing(
    server: PagedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with PagedServer(required_headers={"X-None": "1"}) as other:
        stand_elsewhere(monkeypatch, other.base_url)
        declared = source(request={"path": "/redirect", "query": {"to": f"{other.base_url}/single"}})
        assert "credentials were not sent" in await failure(server, AuthenticationRefused, declared=declared)
    assert len(server.issued) == 1


@pytest.mark.parametrize("missing", ["login", "password"])
async def test_a_connection_without_client(server: PagedServer, missing: str) -> None:
    text = await failure(server, CredentialsMissing, **{missing: None})
    assert f"it needs the {missing}" in text
    assert server.requests == []


async def test_nobody_names_the_endpoint(server: PagedServer) -> None:
    text = await failure(server, CredentialsMissing, declared=source(auth={"type": "oauth2"}))
    assert "extra.token_url (or the source's auth.token_url)" in text


async def test_a_source_cannot_send_the_secret_elsewhere(server: PagedServer) -> None:
    async with PagedServer() as thief:
        declared = source(auth={"type": "oauth2", "token_url": f"{thief.base_url}/token"})
        assert "the connection does not know it" in await failure(server, TokenUrlRefused, declared=declared)
        assert thief.requests == []


async def test_the_connection_may_name_another_host(server: PagedServer) -> None:
    async with PagedServer(oauth2=CLIENT) as issuer:
        server.issued = issuer.issued
        declared = source(auth={"type": "oauth2"})
        assert len(await collect(server, declared, token_url=f"{issuer.base_url}/token")) == 10
        (asked,) = issuer.requests
        pair = base64.b64encode(b"client%2B1:s3cr%3At+%25%26%C3%9F").decode()
        assert asked.headers["Authorization"] == f"Basic {pair}"


async def test_the_secret_does_not_go_unencrypted(server: PagedServer) -> None:
    text = await failure(server, TokenUrlRefused, allow_private_networks=False)
    assert "unencrypted" in text
    assert server.requests == []


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "0x7f.1", "localhost"])
async def test_the_endpoint_is_guarded(server: PagedServer, host: str) -> None:
    endpoint = Endpoint(
        base_url="https://api.example.com",
        login="id",
        password=SECRET,
        token_url=f"https://{host}:{server.port}/token",
        allow_private_networks=host.startswith(("169", "[")),  # metadata is refused even then
    )
    declared = source(auth={"type": "oauth2"})
    async with HttpCollector(declared, render(declared, {}), endpoint) as collecting:
        with pytest.raises(AddressRefused):
            await collecting.total()
    assert server.requests == []
