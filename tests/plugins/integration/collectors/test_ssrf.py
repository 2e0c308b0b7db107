"""Requests that are talked into our own network: by names, redirects, links, counts and token endpoints.

Real servers on 127.0.0.1 stand for the internet and for what is inside. The system's resolver answers what a test says;
a connection to an address of the internet goes to the server that stands for it, every other where it was meant to.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio.selector_events import BaseSelectorEventLoop
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import orjson
import pytest

from collect_ops.collectors import token_keeper
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import (
    AddressRefused,
    CollectorError,
    HostUnreachable,
    PagingValueUnusable,
    UrlRefused,
)
from collect_ops.collectors.http import HttpCollector
from collect_ops.collectors.page import Page, Span
from collect_ops.sources.model import Source
from collect_ops.sources.request import render
from tests.servers.paged import Failure, PagedServer

PUBLIC = "93.184.216.34"
SITE = "api.example.com"
METADATA = (
    "169.254.169.254",
    "[fd00:ec2::254]",
    "100.100.100.200",
    "168.63.129.16",
    "[::ffff:169.254.169.254]",
)
INSIDE = (
    "127.0.0.1", "2130706433", "0177.0.0.1", "0x7f.1", "127.1", "127.0.0.1.", "0.0.0.0", "[::]", "[::1]",
    "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::1]", "10.0.0.1", "100.64.0.1",
    "192.0.0.8", "224.0.0.1", "255.255.255.255", "\uff11\uff12\uff17\u30020\u30020\u30021", "8.8.8.8@127.0.0.1",
    "localhost", "[::1%25lo]",
)  # fmt: skip


class Net:
    """The resolver and the roads.

    Attributes:
        names: What a name resolves to: the first answer once, then the next; the last for ever.
        asked: The names that were resolved, in order.
        connected: The addresses that were connected to.
    """

    def __init__(self) -> None:
        self.names: defaultdict[str, deque[list[str]]] = defaultdict(deque)
        self.asked: list[str] = []
        self.connected: list[str] = []

    def resolves(self, name: str, *answers: list[str]) -> None:
        self.names[name] = deque(answers)


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    net = Net()
    system, connect = socket.getaddrinfo, BaseSelectorEventLoop.sock_connect

    def getaddrinfo(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        if not (answers := net.names.get(host)):
            return system(host, port, *rest, **options)
        net.asked.append(host)
        found = answers.popleft() if len(answers) > 1 else answers[0]
        return [entry for one in found for entry in system(one, port, type=socket.SOCK_STREAM)]

    async def sock_connect(loop: Any, sock: socket.socket, address: tuple[Any, ...]) -> None:
        net.connected.append(address[0])
        await connect(loop, sock, ("127.0.0.1", address[1]) if address[0] == PUBLIC else address)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", sock_connect)
    net.resolves(SITE, [PUBLIC])
    token_keeper._tokens.clear()
    return net


@pytest.fixture
def server() -> Iterator[PagedServer]:
    with PagedServer(rows=30) as server:
        yield server


def source(path: str = "/single", **changes: Any) -> Source:
    declared: dict[str, Any] = {
        "name": "tested",
        "connection": "example_api",
        "request": {"path": path},
        "records": "rows",
        "target": {"table": "tested"},
        "retries": {"http_attempts": 1},
        **changes,
    }
    return Source.model_validate(declared)


async def collect(server: PagedServer, declared: Source, **changes: Any) -> list[Page]:
    endpoint = Endpoint(base_url=f"http://{SITE}:{server.port}", **changes)
    collecting = HttpCollector(declared, render(declared, {}), endpoint)
    async with collecting, aclosing(collecting.pages(Span())) as pages:
        return [page async for page in pages]


async def test_what_is_outside_is_asked(net: Net, server: PagedServer) -> None:
    (page,) = await collect(server, source())
    assert len(page.records) == 30
    assert (net.asked, net.connected) == ([SITE], [PUBLIC])


async def test_a_name_that_changes_its_address(net: Net, server: PagedServer) -> None:
    """The address that was checked is connected to: there is no second look-up that could say otherwise."""
    net.resolves(SITE, [PUBLIC], ["127.0.0.1"])
    await collect(server, source())
    assert (net.asked, net.connected) == ([SITE], [PUBLIC])
    with pytest.raises(AddressRefused, match="loopback"):
        await collect(server, source())
    assert (net.asked, net.connected) == ([SITE] * 2, [PUBLIC])
    assert len(server.requests) == 1


async def test_a_name_that_changes_its_address_between_two_pages(net: Net, server: PagedServer) -> None:
    """A server closes the connection after each page, so that the next one needs another."""
    net.resolves(SITE, [PUBLIC], [PUBLIC], ["169.254.169.254"])
    server.fail_next(
        "/next",
        *(
            Failure(
                status=200,
                headers={"Connection": "close"},
                body=orjson.dumps({"rows": [{"id": n}], "next": f"/next?start={n + 1}"}),
            )
            for n in range(3)
        ),
    )
    with pytest.raises(AddressRefused, match="link-local"):
        await collect(server, source("/next", paging={"type": "next_url", "next_url": "next"}))
    assert len(server.requests) == 2
    assert net.connected == [PUBLIC] * 2


@pytest.mark.parametrize("answer", [[PUBLIC, "127.0.0.1"], ["127.0.0.1", PUBLIC], [PUBLIC, "::1"]])
async def test_a_name_that_is_inside_and_outside(net: Net, server: PagedServer, answer: list[str]) -> None:
    net.resolves(SITE, answer)
    with pytest.raises(AddressRefused):
        await collect(server, source())
    assert (net.connected, server.requests) == ([], [])


@pytest.mark.parametrize(
    "answer", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "::ffff:169.254.169.254"]
)
async def test_the_metadata_service_by_its_name(net: Net, server: PagedServer, answer: str) -> None:
    net.resolves(SITE, [answer])
    net.resolves("metadata.google.internal", [answer])
    for private in (False, True):
        with pytest.raises(AddressRefused, match="never allowed"):
            await collect(server, source(), allow_private_networks=private)
        with pytest.raises(AddressRefused, match="never allowed"):
            await collect_from("http://metadata.google.internal", allow_private_networks=private)
    assert net.connected == []


async def collect_from(base_url: str, **changes: Any) -> None:
    declared = source()
    endpoint = Endpoint(base_url=base_url, **changes)
    async with HttpCollector(declared, render(declared, {}), endpoint) as collecting:
        await anext(collecting.pages(Span()))


@pytest.mark.parametrize("name", ["localhost", "localhost.", "LOCALHOST", "app.localhost", "\u24dbocalhost"])
async def test_names_of_this_machine(net: Net, server: PagedServer, name: str) -> None:
    """The system's own resolver answers; one that does not know `*.localhost` says so."""
    base_url = Endpoint.from_mapping({"host": f"http://{name}:{server.port}"}).base_url
    with pytest.raises((AddressRefused, HostUnreachable)) as caught:
        await collect_from(base_url)
    assert isinstance(caught.value, AddressRefused) or name in ("app.localhost", "localhost.")
    assert (net.connected, server.requests) == ([], [])


def redirect(to: str) -> tuple[Source, Callable[[PagedServer], None]]:
    declared = source("/redirect")
    declared = declared.model_copy(
        update={"request": declared.request.model_copy(update={"query": {"to": to}})}
    )
    return declared, lambda _: None


def second_redirect(to: str) -> tuple[Source, Callable[[PagedServer], None]]:
    def prepare(server: PagedServer) -> None:
        server.fail_next("/single", Failure(status=307, headers={"Location": to}))

    return redirect("/single")[0], prepare


def next_url(to: str) -> tuple[Source, Callable[[PagedServer], None]]:
    def prepare(server: PagedServer) -> None:
        body = orjson.dumps({"rows": [{"id": 1}], "next": to})
        server.fail_next("/next", Failure(status=200, body=body))

    return source("/next", paging={"type": "next_url", "next_url": "next"}), prepare


def link_header(to: str) -> tuple[Source, Callable[[PagedServer], None]]:
    def prepare(server: PagedServer) -> None:
        server.fail_next("/link", Failure(status=200, headers={"Link": f'<{to}>; rel="next"'}, body=b"[{}]"))

    return source("/link", records="@", paging={"type": "link_header"}), prepare


WAYS = [redirect, second_redirect, next_url, link_header]


@pytest.mark.parametrize("host", [*INSIDE, *METADATA])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_every_hop_is_checked(net: Net, server: PagedServer, way: Any, host: str) -> None:
    with PagedServer() as inside:
        declared, prepare = way(f"http://{host}:{inside.port}/single")
        prepare(server)
        with pytest.raises(CollectorError) as caught:
            await collect(server, declared)
        assert isinstance(caught.value, AddressRefused | UrlRefused | PagingValueUnusable)
        assert inside.requests == []
    assert set(net.connected) == {PUBLIC}


@pytest.mark.parametrize("host", METADATA)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_metadata_is_refused_on_every_hop_whatever_the_connection_allows(
    net: Net, server: PagedServer, way: Any, host: str
) -> None:
    declared, prepare = way(f"http://{host}/latest/meta-data/")
    prepare(server)
    with pytest.raises(AddressRefused, match="never allowed"):
        await collect(server, declared, allow_private_networks=True)
    assert set(net.connected) == {PUBLIC}


LOOPBACK = [
    host
    for host in INSIDE
    if host not in ("0.0.0.0", "[::]", "10.0.0.1", "100.64.0.1", "192.0.0.8", "224.0.0.1")
]


@pytest.mark.parametrize("host", LOOPBACK)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_no_hop_leads_to_this_machine_though_private_networks_are_allowed(
    net: Net, server: PagedServer, way: Any, host: str
) -> None:
    with PagedServer() as inside:
        declared, prepare = way(f"http://{host}:{inside.port}/single")
        prepare(server)
        with pytest.raises(CollectorError) as caught:
            await collect(server, declared, allow_private_networks=True)
        assert isinstance(caught.value, AddressRefused | UrlRefused | PagingValueUnusable)
        assert inside.requests == []
    assert set(net.connected) == {PUBLIC}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_no_hop_leads_to_a_name_of_this_machine(net: Net, server: PagedServer, way: Any) -> None:
    net.resolves("innocent.example.com", ["127.0.0.1"])
    with PagedServer() as inside:
        declared, prepare = way(f"http://innocent.example.com:{inside.port}/single")
        prepare(server)
        with pytest.raises((AddressRefused, PagingValueUnusable)):
            await collect(server, declared, allow_private_networks=True)
        assert inside.requests == []
    assert set(net.connected) == {PUBLIC}


async def test_a_connection_on_this_machine_is_redirected_within_its_port(
    net: Net, server: PagedServer
) -> None:
    """Its API may listen here; PostgreSQL, Redis and RabbitMQ do, too."""
    endpoint = Endpoint(base_url=server.base_url, allow_private_networks=True)
    with PagedServer() as other:
        for host in ("127.0.0.1", "localhost"):
            declared, _ = redirect(f"http://{host}:{server.port}/single")
            async with HttpCollector(declared, render(declared, {}), endpoint) as collecting:
                await anext(collecting.pages(Span()))
            declared, _ = redirect(f"http://{host}:{other.port}/single")
            async with HttpCollector(declared, render(declared, {}), endpoint) as collecting:
                with pytest.raises(AddressRefused) as caught:
                    await anext(collecting.pages(Span()))
            assert (caught.value.allowable, caught.value.own) == (True, False)
        assert other.requests == []


@pytest.mark.parametrize("scheme", ["file", "ftp", "gopher", "data", "javascript"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_other_schemes_are_refused_on_every_hop(
    net: Net, server: PagedServer, way: Any, scheme: str
) -> None:
    declared, prepare = way(f"{scheme}://etc/passwd")
    prepare(server)
    with pytest.raises(CollectorError) as caught:
        await collect(server, declared, allow_private_networks=True)
    assert "passwd" in str(caught.value)
    assert set(net.connected) == {PUBLIC}


@pytest.mark.parametrize("host", [*INSIDE[:6], *METADATA])
async def test_the_count_request_is_checked(net: Net, server: PagedServer, host: str) -> None:
    declared = source(
        total={"type": "request", "path": "/redirect", "query": {"to": f"http://{host}/"}, "value": "n"}
    )
    endpoint = Endpoint(base_url=f"http://{SITE}:{server.port}")
    async with HttpCollector(declared, render(declared, {}), endpoint) as collecting:
        with pytest.raises((AddressRefused, UrlRefused)):
            await collecting.total()
    assert set(net.connected) == {PUBLIC}


@pytest.mark.parametrize("answers", [["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["fd00:ec2::254"]])
async def test_a_token_endpoint_is_checked(net: Net, server: PagedServer, answers: list[str]) -> None:
    net.resolves("login.example.com", answers)
    endpoint = Endpoint(
        base_url=f"http://{SITE}:{server.port}",
        login="id",
        password="secret",
        token_url=f"https://login.example.com:{server.port}/token",
    )
    declared = source(auth={"type": "oauth2"}, total={"type": "request", "path": "/count", "value": "count"})
    async with HttpCollector(declared, render(declared, {}), endpoint) as collecting:
        with pytest.raises(AddressRefused):
            await collecting.total()
    assert (net.connected, server.requests) == ([], [])


async def test_a_redirect_by_name_to_the_inside(net: Net, server: PagedServer) -> None:
    net.resolves("rebound.example.com", [PUBLIC], ["127.0.0.1"])
    declared, _ = redirect(f"http://rebound.example.com:{server.port}/single")
    await collect(server, declared)
    with pytest.raises(AddressRefused):
        await collect(server, declared)
    assert net.connected.count("127.0.0.1") == 0


async def test_concurrent_connections_are_each_checked(net: Net, server: PagedServer) -> None:
    """Four at once: what the second to fourth look-ups say counts for their own connections only."""
    net.resolves(SITE, [PUBLIC], ["127.0.0.1"])
    declared = source("/offset", paging={"type": "offset"}, page_size=5, batch_size=10)
    endpoint = Endpoint(base_url=f"http://{SITE}:{server.port}")

    async def first(collecting: HttpCollector, offset: int) -> Page:
        async with aclosing(collecting.pages(Span(offset=offset, size=5))) as pages:
            return await anext(pages)

    async with HttpCollector(declared, render(declared, {}), endpoint) as collecting:
        results = await asyncio.gather(*(first(collecting, n * 5) for n in range(4)), return_exceptions=True)
    assert sum(isinstance(result, AddressRefused) for result in results) == 3
    assert net.connected == [PUBLIC]
