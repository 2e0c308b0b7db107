from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from collect_ops.collectors.errors import AddressRefused, UrlRefused
from collect_ops.collectors.guard import Guard, GuardedResolver, literal, objection

PUBLIC = [
    "8.8.8.8",
    "93.184.216.34",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]
ALLOWABLE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "::1",
    "fd12::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::1",
    "2606:4700::5efe:10.0.0.1",
    "fd12::5efe:8.8.8.8",
    "2001:db8::1",
    "192.0.0.9",
    "fec0::1",
    "3fff::1",
    "64:ff9b:1::808:808",
    "::ffff:0:127.0.0.1",
    "2001:0:808:808::f5ff:fffe",
    "2001:0:7f00:1:0:0:f7f7:f7f7",
    "::1%lo",
]
NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "169.254.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "::",
    "fe80::1",
    "ff02::1",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "::ffff:0.0.0.0",
    "fd00:ec2::254%eth0",
    "fd00:ec2::23",
    "fd00:42::42",
    "fd20:ce::254%1",
    "fe80::a9fe:a9fe%eth0",
    "::ffff:0:169.254.169.254",
    "::ffff:100.100.100.200",
    "2001:0:a9fe:a9fe::f7f7:f7f7",
    "::1:0:0:0:1",
    "5f00::1",
    "4000::1",
]


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_asked(text: str) -> None:
    assert objection(ip_address(text)) is None


@pytest.mark.parametrize("text", ALLOWABLE)
def test_private_ones_need_the_connections_word(text: str) -> None:
    found = objection(ip_address(text))
    assert found is not None
    assert found.allowable, found
    with pytest.raises(AddressRefused, match="allow_private_networks"):
        Guard().check_address(ip_address(text), "h", 80, "u")
    Guard.of(("http://h",), allow_private=True).check_address(ip_address(text), "h", 80, "u")


LOOPBACK = ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1"]


@pytest.mark.parametrize("text", LOOPBACK)
@pytest.mark.parametrize(
    "own", ["http://api.example.com", "http://10.0.0.7/api", "http://localhost.example.com"]
)
def test_this_machine_needs_a_connection_that_is_there_itself(text: str, own: str) -> None:
    guard = Guard.of((own, None), allow_private=True)
    with pytest.raises(AddressRefused) as caught:
        guard.check_address(ip_address(text), "elsewhere.example.com", 80, "u")
    assert (caught.value.allowable, caught.value.own) == (True, False)
    guard.check_address(ip_address("10.0.0.8"), "elsewhere.example.com", 80, "u")


@pytest.mark.parametrize("text", LOOPBACK)
@pytest.mark.parametrize(
    "own",
    [
        "http://127.0.0.1:8000",
        "http://127.9.9.9:8000",
        "http://[::1]:8000/x",
        "http://LOCALHOST.:8000",
        "http://app.localhost:8000",
    ],
)
def test_a_connection_on_this_machine_may_ask_this_machine_at_its_port(text: str, own: str) -> None:
    guard = Guard.of((own, None), allow_private=True)
    host = f"[{text}]" if ":" in text else text
    guard.check_url(URL(f"http://{host}:8000/next"), "u")
    guard.check_address(ip_address(text), "localhost", 8000, "u")
    for refused in (f"http://{host}:15672/api", f"http://{host}/", f"https://{host}/"):
        with pytest.raises(AddressRefused) as caught:
            guard.check_url(URL(refused), "u")
        assert (caught.value.allowable, caught.value.own) == (True, False)
    for name, port in (("localhost", 6379), ("elsewhere.example.com", 8000)):
        with pytest.raises(AddressRefused):
            guard.check_address(ip_address(text), name, port, "u")
    with pytest.raises(AddressRefused):
        Guard.of((own, None), allow_private=False).check_address(ip_address(text), "localhost", 8000, "u")


def test_the_port_may_be_that_of_the_scheme() -> None:
    guard = Guard.of(("https://localhost", "http://localhost/token"), allow_private=True)
    for url in ("https://127.0.0.1:443/x", "http://[::1]"):
        guard.check_url(URL(url), url)


def sockets(guard: Guard, address: str, port: int) -> None:
    target = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
    guard.socket_to(target).close()


def test_a_connections_own_name_may_be_this_machine_at_its_port_only() -> None:
    """`/etc/hosts` names this machine, too. Where its name leads, nothing else of this machine is asked."""
    guard = Guard.of(("http://devbox:8000", "http://login:8001/token"), allow_private=True)
    with pytest.raises(AddressRefused):
        sockets(guard, "127.0.1.1", 8000)
    guard.check_resolved(ip_address("127.0.1.1"), "DevBox", 8000)
    guard.check_resolved(ip_address("127.0.0.2"), "login.", 8001)
    sockets(guard, "127.0.1.1", 8000)
    sockets(guard, "127.0.0.2", 8001)
    for name, port in (("devbox", 6379), ("devbox", 8001), ("login", 8000), ("elsewhere", 8000)):
        with pytest.raises(AddressRefused):
            guard.check_resolved(ip_address("127.0.1.1"), name, port)
    for url in ("http://127.0.1.1:8000/api", "http://127.0.1.1:15672/api", "http://[::1]:8000"):
        with pytest.raises(AddressRefused):
            guard.check_url(URL(url), "u")
    for address, port in (("127.0.1.1", 8001), ("127.0.1.1", 15672), ("127.0.0.1", 8000)):
        with pytest.raises(AddressRefused):
            sockets(guard, address, port)


async def test_a_name_that_resolves_to_this_machine_opens_no_other_port() -> None:
    guard = Guard.of(("http://localhost.localdomain:8000",), allow_private=True)
    guard.check_resolved(ip_address("127.0.0.1"), "localhost.localdomain", 8000)
    with pytest.raises(AddressRefused):
        await GuardedResolver(guard).resolve("localhost", 8000)
    with pytest.raises(AddressRefused):
        await GuardedResolver(guard).resolve("localhost", 6379)


@pytest.mark.parametrize("text", NEVER)
def test_some_are_never_asked(text: str) -> None:
    with pytest.raises(AddressRefused, match="never allowed"):
        Guard(allow_private=True).check_address(ip_address(text), "h", 80, "u")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0x7F.0.0.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("[::1]", "::1"),
        ("::ffff:7f00:1", "::ffff:127.0.0.1"),
        ("fe80::1%25eth0", "fe80::1"),
    ],
)
def test_literal_forms(host: str, address: str) -> None:
    assert literal(host) == ip_address(address)


@pytest.mark.parametrize(
    "host", ["example.com", "1e100.net", "localhost", "face.b00k", "1.2.3.4.5", "999.1.1.1"]
)
def test_these_are_no_addresses(host: str) -> None:
    assert literal(host) is None


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://h/x", "gopher://h", "http:///x", "http://999.1.1.1/"]
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(UrlRefused, match="allowed are http:// and https://"):
        Guard(allow_private=True).check_url(URL(url), url)


def test_digits_in_other_scripts_are_seen_through() -> None:
    with pytest.raises(AddressRefused):
        Guard().check_url(URL("http://①②⑦.⓪.⓪.①/"), "shown")


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f.1"])
async def test_the_resolver_checks_what_it_gives(host: str) -> None:
    with pytest.raises(AddressRefused):
        await GuardedResolver(Guard()).resolve(host, 80)
    results = await GuardedResolver(Guard.of((f"http://{host}",), allow_private=True)).resolve(host, 80)
    assert {ip_address(result["host"]).is_loopback for result in results} == {True}


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_wrapping_an_address_changes_no_verdict(address: IPv4Address) -> None:
    verdict = objection(address)
    number = int(address)
    for wrapped in ((0xFFFF << 32) + number, (0x64FF9B << 96) + number, (0x2002 << 112) + (number << 80)):
        found = objection(IPv6Address(wrapped))
        assert (found is None) == (verdict is None)
        assert found is None or verdict is None or found.allowable == verdict.allowable
