"""What goes wrong between us and a server: each thing gives one clear error, or is tried again."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import resource
import socket
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import (
    AddressRefused,
    AuthenticationRefused,
    CertificateRefused,
    CollectorError,
    ConnectionBroken,
    CredentialsMissing,
    ExpressionFailed,
    HostBusy,
    HostUnreachable,
    NestedTooDeep,
    NotJson,
    NotModifiedUnasked,
    PageTooLarge,
    PositionUnusable,
    RecordsNotAList,
    RedirectRefused,
    RequestRefused,
    RequestTimedOut,
    ServerFailed,
    TooManyGzipMembers,
    TruncatedBody,
    UrlNotFound,
    UrlRefused,
)
from collect_ops.collectors.gate import LocalGate, LocalTurn, Turn
from collect_ops.collectors.http import HttpCollector
from collect_ops.collectors.pacing import Pacer
from collect_ops.collectors.page import Page, Span
from collect_ops.collectors.retry import RetryNotice
from collect_ops.kernel.errors import Permanent, Transient
from collect_ops.sources.model import Source
from collect_ops.sources.request import render
from tests.servers.certificates import self_signed, server_context
from tests.servers.elsewhere import stand_elsewhere
from tests.servers.paged import Failure, PagedServer

SECRET = "pa55-w0rd"


def source(path: str = "/single", **changes: Any) -> Source:
    declared: dict[str, Any] = {
        "name": "tested",
        "connection": "example_api",
        "request": {"path": path.partition("?")[0], "query": _query(path)},
        "records": "rows",
        "target": {"table": "tested"},
        "auth": {"type": "api_key", "location": "query", "name": "key"},
        "retries": {"http_attempts": 3, "http_backoff_s": 0.01, "http_max_backoff_s": 0.3},
        **changes,
    }
    return Source.model_validate(declared)


def _query(path: str) -> dict[str, Any]:
    return dict(part.split("=", 1) for part in path.partition("?")[2].split("&") if part)


async def collect(
    base_url: str, declared: Source, notices: list[RetryNotice] | None = None, **changes: Any
) -> list[Page]:
    endpoint = Endpoint(base_url=base_url, **{"password": SECRET, "allow_private_networks": True, **changes})
    collecting = HttpCollector(
        declared, render(declared, {}), endpoint, on_retry=None if notices is None else notices.append
    )
    async with collecting, aclosing(collecting.pages(Span())) as pages:
        return [page async for page in pages]


async def failure(base_url: str, declared: Source, kind: type[CollectorError], **changes: Any) -> str:
    """The text of the error that collecting ends with."""
    with pytest.raises(kind) as caught:
        await collect(base_url, declared, **changes)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__dict__)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert isinstance(caught.value, Transient) != isinstance(caught.value, Permanent)
    return str(caught.value)


TRANSIENT = [
    Failure(status=408),
    Failure(status=425),
    Failure(status=429),
    Failure(status=500),
    Failure(status=502),
    Failure(status=503),
    Failure(status=504),
    Failure(reset_after=500),
    Failure(status=200, headers={"Content-Type": "application/json"}, body=b'{"rows": [{"id"'),
    Failure(
        status=200, headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"
    ),
]


@pytest.mark.parametrize("one", TRANSIENT)
async def test_what_is_transient_is_tried_again(one: Failure) -> None:
    notices: list[RetryNotice] = []
    with PagedServer(rows=3) as server:
        server.fail_next("/single", one, one)
        pages = await collect(server.base_url, source(), notices)
    assert [len(page.records) for page in pages] == [3]
    assert pages[0].attempts == 3
    assert [notice.attempt for notice in notices] == [1, 2]
    assert all(isinstance(notice.error, Transient) and notice.wait_s <= 0.3 for notice in notices)


@pytest.mark.parametrize("one", TRANSIENT)
async def test_what_stays_transient_ends_as_a_transient_error(one: Failure) -> None:
    with PagedServer() as server:
        server.fail_next("/single", *[one] * 3)
        with pytest.raises(CollectorError) as caught:
            await collect(server.base_url, source())
        assert isinstance(caught.value, Transient)
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (400, RequestRefused, "answered 400"),
        (401, AuthenticationRefused, "connection 'example_api': check login and password"),
        (403, AuthenticationRefused, "answered 403, connection 'example_api'"),
        (404, UrlNotFound, "/status/404: answered 404: nothing is there; check request.path"),
        (410, UrlNotFound, "answered 410"),
        (422, RequestRefused, "as asked"),
        (501, RequestRefused, "answered 501"),
        (304, NotModifiedUnasked, "neither If-None-Match nor If-Modified-Since was sent"),
    ],
)
async def test_what_is_permanent_is_not_tried_again(
    status: int, kind: type[CollectorError], text: str
) -> None:
    with PagedServer() as server:
        assert text in await failure(server.base_url, source(f"/status/{status}"), kind)
        assert len(server.requests) == 1


async def test_retry_after_is_waited_for() -> None:
    with PagedServer(rows=1) as server:
        declared = source(retries={"http_attempts": 2, "http_backoff_s": 0.001, "http_max_backoff_s": 2})
        server.fail_next("/single", Failure(status=429, headers={"Retry-After": "1"}))
        await collect(server.base_url, declared)
        first, second = server.requests
        assert 1 <= second.at - first.at < 3


async def test_a_long_retry_after_is_left_to_the_task() -> None:
    with PagedServer() as server:
        server.fail_next("/single", Failure(status=503, headers={"Retry-After": "120"}))
        with pytest.raises(HostBusy, match="asks to wait 120 s") as caught:
            await collect(server.base_url, source())
        assert caught.value.retry_after_s == 120
        assert isinstance(caught.value, Transient)
        assert len(server.requests) == 1


async def test_html_where_json_is_due() -> None:
    with PagedServer() as server:
        text = await failure(server.base_url, source("/html"), NotJson)
    assert "text/html" in text
    assert "<!DOCTYPE html> <html><body>Please log in" in text


@pytest.mark.parametrize("body", ["", '{"rows": [1e999,]}', '{"rows": [NAN]}', "[1,]", '{"rows": []} x'])
async def test_not_json(body: str) -> None:
    with PagedServer() as server:
        await failure(
            server.base_url, source("/raw", request={"path": "/raw", "query": {"body": body}}), NotJson
        )


async def test_truncated_json_stays_transient() -> None:
    with PagedServer() as server:
        text = await failure(server.base_url, source("/truncated"), TruncatedBody)
        assert "ends in the middle, after 26 bytes" in text
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("records", "gave"), [("nothing", "null"), ("@", "an object with rows, total"), ("total", "a number")]
)
async def test_records_that_are_no_list(records: str, gave: str) -> None:
    with PagedServer(rows=1) as server:
        text = await failure(server.base_url, source(records=records), RecordsNotAList)
    assert f"records {records!r} must give a list, but gives {gave}" in text


async def test_an_expression_that_cannot_be_applied() -> None:
    with PagedServer(rows=1) as server:
        assert "records" in await failure(server.base_url, source(records="sort(total)"), ExpressionFailed)


async def test_nesting_has_a_limit() -> None:
    with PagedServer() as server:
        assert "max_depth 64" in await failure(
            server.base_url, source("/deep?depth=65", records="@"), NestedTooDeep
        )
        assert "max_depth 64" in await failure(
            server.base_url, source("/deep?depth=100000", records="@"), NestedTooDeep
        )
        assert len(await collect(server.base_url, source("/deep?depth=64", records="@"))) == 1


@pytest.mark.parametrize("path", ["/huge", "/endless", "/bomb"])
async def test_ten_gigabytes_cost_nothing(path: str) -> None:
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with PagedServer() as server:
        declared = source(path, limits={"max_page_bytes": 1024 * 1024})
        assert "max_page_bytes 1048576" in await failure(server.base_url, declared, PageTooLarge)
        assert len(server.requests) == 1
        assert server.bytes_sent < 32 * 1024 * 1024
    # The bomb's own server needs 16 MiB to pack it.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 64 * 1024


async def test_strange_strings_and_numbers_survive() -> None:
    with PagedServer() as server:
        (page,) = await collect(server.base_url, source("/strange"))
    assert [record.get("name") for record in page.records] == ["\ud800", "a\0b", None]
    assert page.records[2]["id"] == 123456789012345678901234567890
    assert b"\\" in page.raw


async def test_nothing_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        text = await failure(url, source(), HostUnreachable)
    assert "check the host and port" in text


async def test_a_name_that_does_not_resolve() -> None:
    assert "nowhere.invalid" in await failure("http://nowhere.invalid", source(), HostUnreachable)


@pytest.mark.parametrize(
    ("timeouts", "limit"),
    [({"read_s": 0.1}, "timeouts.read_s is 0.1 s"), ({"request_s": 0.1}, "timeouts.request_s is 0.1 s")],
)
async def test_slow_answers(timeouts: dict[str, float], limit: str) -> None:
    with PagedServer() as server:
        declared = source(
            "/slow?s=5", timeouts=timeouts, retries={"http_attempts": 2, "http_backoff_s": 0.01}
        )
        assert limit in await failure(server.base_url, declared, RequestTimedOut)
        assert len(server.requests) == 2


async def test_a_server_that_speaks_no_http() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await failure(f"http://127.0.0.1:{port}", source(), ConnectionBroken)


async def test_a_certificate_nobody_signed(tmp_path: Path) -> None:
    with PagedServer(tls=server_context(self_signed(tmp_path))) as server:
        text = await failure(server.base_url, source(), CertificateRefused)
        assert "certificate" in text
        assert server.requests == []


async def test_missing_credentials_are_named_before_anything_is_asked() -> None:
    text = await failure("http://127.0.0.1", source(), CredentialsMissing, password=None)
    assert "needs the password of connection 'example_api'" in text


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9",
        "http://localhost:9",
        "http://2130706433:9",
        "http://0x7f.1:9",
        "http://0177.0.0.1:9",
        "http://[::1]:9",
        "http://[::ffff:10.0.0.1]:9",
        "http://192.168.1.1",
        "http://100.64.0.1",
    ],
)
async def test_private_addresses_need_the_connections_word(url: str) -> None:
    text = await failure(url, source(), AddressRefused, allow_private_networks=False)
    assert "allow_private_networks" in text


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254", "http://[::ffff:169.254.169.254]", "http://0.0.0.0:9"]
)
async def test_some_addresses_are_never_asked(url: str) -> None:
    assert "never allowed" in await failure(url, source(), AddressRefused, allow_private_networks=True)


async def test_a_redirect_to_the_metadata_service_is_refused() -> None:
    with PagedServer() as server:
        declared = source("/redirect?to=http://169.254.169.254/latest/meta-data/")
        assert "link-local" in await failure(server.base_url, declared, AddressRefused)
        assert "file" in await failure(server.base_url, source("/redirect?to=file:///etc/passwd"), UrlRefused)


async def test_a_redirect_elsewhere_gets_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = source(auth={"type": "bearer"})
    with PagedServer(rows=2) as here, PagedServer(rows=5) as there:
        stand_elsewhere(monkeypatch, there.base_url)
        here.fail_next("/single", Failure(status=302, headers={"Location": f"{there.base_url}/single"}))
        (page,) = await collect(here.base_url, declared, headers={"X-Connection": SECRET, "X-Plain": "1"})
        assert len(page.records) == 5
        assert SECRET in repr(here.requests)
        assert SECRET not in repr(there.requests)
        assert "X-Plain" not in there.requests[0].headers
        there.required_headers = {"Authorization": "Bearer x"}
        here.fail_next("/single", Failure(status=302, headers={"Location": f"{there.base_url}/single"}))
        text = await failure(here.base_url, declared, AuthenticationRefused)
        assert "credentials were not sent" in text


async def test_a_key_in_the_query_does_not_follow_a_redirect_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with PagedServer() as here, PagedServer(rows=5) as there:
        stand_elsewhere(monkeypatch, there.base_url)
        location = f"{there.base_url}/single?key={SECRET}&a=1"
        here.fail_next("/single", Failure(status=307, headers={"Location": location}))
        await collect(here.base_url, source())
        assert there.requests[0].query == {"a": "1"}


async def test_a_redirect_at_home_keeps_credentials_and_method() -> None:
    body = {"path": "/single", "method": "POST", "body": {"a": 1}}
    with PagedServer(required_query={"key": SECRET}) as server:
        for status, method in ((302, "GET"), (307, "POST")):
            server.fail_next("/single", Failure(status=status, headers={"Location": "/single?b=1"}))
            await collect(server.base_url, source(request=body))
            last = server.requests[-1]
            assert (last.method, last.query["b"]) == (method, "1")
            assert last.body == ({"a": 1} if method == "POST" else None)


async def test_redirects_have_an_end() -> None:
    with PagedServer() as server:
        declared = source("/redirect?to=/redirect")
        server.fail_next("/redirect", *[Failure(status=302, headers={"Location": "/redirect"})] * 9)
        assert "more than 5 redirects" in await failure(server.base_url, declared, RedirectRefused)
        assert len(server.requests) == 6
        server.fail_next("/single", Failure(status=302))
        assert "without a Location" in await failure(server.base_url, source(), RedirectRefused)
        for location in ("http://[]@/x", "http://h:99999/"):
            server.fail_next("/single", Failure(status=302, headers={"Location": location}))
            assert "no URL" in await failure(server.base_url, source(), RedirectRefused)


async def test_a_next_link_elsewhere_gets_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = source("/raw", paging={"type": "next_url", "next_url": "next"}, auth={"type": "bearer"})
    with PagedServer() as here, PagedServer(rows=2) as there:
        stand_elsewhere(monkeypatch, there.base_url)
        body = f'{{"rows": [1], "next": "{there.base_url.replace("//", "//u:p@")}/single"}}'.encode()
        here.fail_next("/raw", Failure(status=200, body=body))
        pages = await collect(here.base_url, declared)
        assert [len(page.records) for page in pages] == [1, 2]
        assert "Authorization" in here.requests[0].headers
        assert "Authorization" not in there.requests[0].headers


async def test_cookies_are_not_kept() -> None:
    with PagedServer() as server:
        declared = source("/offset", paging={"type": "offset"}, batch_size=30)
        headers = {"Set-Cookie": "session=1", "Content-Type": "application/json"}
        server.fail_next("/offset", Failure(status=200, headers=headers, body=b'{"rows": [1]}'))
        pages = await collect(server.base_url, declared)
        assert "session=1" not in repr(pages[0].response)
        assert all("Cookie" not in request.headers for request in server.requests)


async def test_environment_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with PagedServer(rows=1) as server:
        assert len(await collect(server.base_url, source())) == 1


async def test_concurrency_and_rate_hold_for_all_spans_together() -> None:
    declared = source("/offset", paging={"type": "offset"}, batch_size=10, limits={"concurrency": 2})
    with PagedServer(rows=80) as server:
        endpoint = Endpoint(base_url=server.base_url, password=SECRET, allow_private_networks=True)
        async with HttpCollector(declared, render(declared, {}), endpoint, requests_per_s=40) as collecting:

            async def walk(number: int) -> list[Page]:
                return [page async for page in collecting.pages(Span(offset=number * 10, size=10))]

            began = time.monotonic()
            shards = await asyncio.gather(*map(walk, range(8)))
            took_s = time.monotonic() - began
        assert sorted(record["id"] for pages in shards for page in pages for record in page.records) == list(
            range(80)
        )
        assert server.most_under_way <= 2
        assert took_s >= 7 / 40  # of the client's own clock: the first request may be long on its way


async def test_the_next_page_is_fetched_while_the_consumer_works() -> None:
    declared = source("/cursor", paging={"type": "cursor", "cursor": "next_cursor"})
    with PagedServer(rows=90) as server:
        endpoint = Endpoint(base_url=server.base_url, password=SECRET, allow_private_networks=True)
        async with (
            HttpCollector(declared, render(declared, {}), endpoint) as collecting,
            aclosing(collecting.pages(Span())) as pages,
        ):
            await anext(pages)
            await _until(lambda: len(server.requests) >= 2, within_s=5)
            # One ahead, not more: memory is bounded by pages.
            with pytest.raises(TimeoutError):
                await _until(lambda: len(server.requests) >= 3, within_s=0.2)


async def test_a_consumer_may_leave_early() -> None:
    declared = source("/slow?s=30", paging={"type": "next_url", "next_url": "next"})
    with PagedServer() as server:
        body = b'{"rows": [1], "next": "/slow?s=31"}'
        server.fail_next("/slow", Failure(status=200, body=body))
        endpoint = Endpoint(base_url=server.base_url, password=SECRET, allow_private_networks=True)
        async with asyncio.timeout(10), HttpCollector(declared, render(declared, {}), endpoint) as collecting:
            async for page in collecting.pages(Span()):
                assert page.records == [1]
                break
        assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("paging", "position"),
    [
        ({"type": "offset"}, {"cursor": "x"}),
        ({"type": "offset"}, {"offset": -1}),
        ({"type": "page"}, {"offset": 0}),
        ({"type": "cursor", "cursor": "c"}, {"offset": 1}),
        ({"type": "next_url", "next_url": "n"}, {"cursor": "x"}),
        ({"type": "link_header"}, {"url": 7}),
        ({"type": "none"}, {"page": "x"}),
    ],
)
async def test_a_position_of_another_kind_is_refused(
    paging: dict[str, Any], position: dict[str, Any]
) -> None:
    declared = source("/single", paging=paging)
    endpoint = Endpoint(base_url="http://127.0.0.1:9", password=SECRET, allow_private_networks=True)
    async with HttpCollector(declared, render(declared, {}), endpoint) as collecting:
        with pytest.raises(PositionUnusable, match="cannot resume: position"):
            await anext(collecting.pages(Span(), position))


async def test_server_errors_show_how_their_answer_begins_but_no_secret() -> None:
    with PagedServer() as server:
        server.fail_next("/single", *[Failure(status=500, body=f"no {SECRET} here".encode())] * 3)
        assert "no *** here" in await failure(server.base_url, source(), ServerFailed)


async def _until(condition: Callable[[], bool], *, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 the server records in a thread of its own
            await asyncio.sleep(0.005)


class SlowTurns(LocalGate):
    """A gate at which others are ahead of a request that is sent once more."""

    @contextlib.asynccontextmanager
    async def turn(self, shown: str, /) -> AsyncIterator[Turn]:
        async with super().turn(shown) as turn:
            yield SlowTurn(turn)


class SlowTurn(LocalTurn):
    def __init__(self, turn: Turn) -> None:
        super().__init__(Pacer(None))
        self.turn = turn

    async def again(self) -> None:
        await asyncio.sleep(1.5)


async def test_waiting_for_its_turn_after_a_redirect_is_not_the_hosts_time() -> None:
    with PagedServer(rows=3) as server:
        server.fail_next("/single", Failure(status=302, headers={"Location": "/single?b=1"}))
        declared = source(
            timeouts={"request_s": 1, "connect_s": 1, "read_s": 1}, retries={"http_attempts": 1}
        )
        endpoint = Endpoint(base_url=server.base_url, password=SECRET, allow_private_networks=True)
        collecting = HttpCollector(declared, render(declared, {}), endpoint, gate=SlowTurns(1, None))
        async with collecting, aclosing(collecting.pages(Span())) as pages:
            assert [len(page.records) async for page in pages] == [3]
        server.fail_next(
            "/single",
            Failure(status=302, headers={"Location": "/single?b=1"}),
            Failure(status=200, body=b"{}", delay_s=3),
        )
        collecting = HttpCollector(declared, render(declared, {}), endpoint, gate=SlowTurns(1, None))
        async with collecting, aclosing(collecting.pages(Span())) as pages:
            with pytest.raises(RequestTimedOut):
                await anext(pages)


EMPTY_BLOCKS = b"\x00\x00\x00\xff\xff" * 20_000


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (
            Failure(status=200, headers={"Content-Encoding": "gzip"}, body=gzip.compress(b"") * 500_000),
            TooManyGzipMembers,
            "more than 20,000 members",
        ),
        (
            # A stream that never becomes anything: blocks without content, and no end.
            Failure(status=200, headers={"Content-Encoding": "deflate"}, body=EMPTY_BLOCKS * 20),
            PageTooLarge,
            "limits.max_page_bytes",
        ),
        (
            Failure(
                status=200,
                headers={"Content-Type": "application/json; charset=undefined"},
                body=b'{"rows": ["\xfc"]}',
            ),
            NotJson,
            "'undefined' is not a character set",
        ),
        (
            Failure(
                status=200,
                headers={"Content-Type": "application/json; charset=hex"},
                body=b'{"rows": ["\xfc"]}',
            ),
            NotJson,
            "not a text encoding",
        ),
    ],
    ids=["members", "empty blocks", "undefined", "hex"],
)
async def test_what_an_encoding_hides_is_a_clear_error_soon(
    answer: Failure, kind: type[CollectorError], says: str
) -> None:
    declared = source(limits={"max_page_bytes": 1024 * 1024 if kind is PageTooLarge else 64 * 1024 * 1024})
    with PagedServer(rows=3) as server:
        server.fail_next("/single", answer)
        async with asyncio.timeout(60):
            text = await failure(server.base_url, declared, kind)
    assert says in text


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"records": "@" + "|[@,@][]" * 40}, "records"),
        ({"records": "rows[::0]"}, "records"),
        ({"records": "rows | [?contains('a', `1`)]"}, "records"),
        ({"total": {"type": "body", "path": "ceil(to_number('1e999'))"}}, "total.path"),
        ({"paging": {"type": "cursor", "cursor": "rows[::0]"}}, "cursor"),
    ],
)
async def test_an_expression_that_fails_otherwise_than_by_jmespath_names_its_field(
    changes: dict[str, Any], field: str
) -> None:
    with PagedServer(rows=3) as server:
        text = await failure(server.base_url, source(**changes), ExpressionFailed)
    assert field in text
