"""However an address is spelled: what the system would connect to is what the guard has judged."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collect_ops.collectors.errors import AddressRefused, UrlRefused
from collect_ops.collectors.guard import Guard
from collect_ops.collectors.urls import parse_url

INSIDE = [
    ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
    )
]  # fmt: skip
FULL_WIDTH = {**{ord("0") + n: 0xFF10 + n for n in range(10)}, ord("."): 0x3002}
CIRCLED = {ord("1") + n: 0x2460 + n for n in range(9)}


def inside() -> st.SearchStrategy[IPv4Address]:
    """Addresses of networks that are not asked."""
    return st.sampled_from(INSIDE).flatmap(
        lambda net: st.integers(int(net[0]), int(net[-1])).map(IPv4Address)
    )


@st.composite
def spellings(draw: st.DrawFn) -> tuple[IPv4Address, str]:
    """An address and a host that `inet_aton`, IDNA or IPv6 take for it."""
    address = draw(inside())
    if draw(st.booleans()):
        return address, draw(st.sampled_from(_wrapped(address)))
    number, parts = int(address), draw(st.integers(1, 4))
    values = [(number >> (24 - 8 * place)) & 0xFF for place in range(parts - 1)]
    values.append(number & ((1 << (8 * (5 - parts))) - 1))
    texts = [draw(st.sampled_from(_numerals(value, draw(st.integers(0, 8))))) for value in values]
    host = ".".join(texts) + draw(st.sampled_from(["", "."]))
    scripts = [host, host.translate(FULL_WIDTH), host.translate(CIRCLED), host.replace(".", "\uff0e")]
    return address, draw(st.sampled_from(scripts))


def _numerals(value: int, zeros: int) -> list[str]:
    padding = "0" * zeros
    return [str(value), f"0{padding}{value:o}", f"0x{padding}{value:x}", f"0X{padding}{value:X}"]


def _wrapped(address: IPv4Address) -> list[str]:
    number = int(address)
    prefixes = [0xFFFF << 32, 0xFFFF << 48, 0x64FF9B << 96, 0x2606_4700 << 96 | 0x5EFE << 32]
    wrapped = [IPv6Address(prefix | number) for prefix in prefixes]
    wrapped.append(IPv6Address(0x2002 << 112 | number << 80 | 1))
    wrapped.append(IPv6Address(0x20010000_08080808 << 64 | number ^ 0xFFFF_FFFF))
    wrapped.append(IPv6Address(0x20010000 << 96 | number << 64 | 0x08080808 ^ 0xFFFF_FFFF))
    if number > 0xFFFF:  # below is ::/96's own: the loopback and the unspecified address
        wrapped.append(IPv6Address(number))
    dotted = [f"[::ffff:{address}]", f"[0:0:0:0:0:FFFF:{address}]", f"[64:ff9b::{address}]"]
    return [f"[{form}]" for one in wrapped for form in (one.compressed, one.exploded.upper())] + dotted


def refused(url: str, *, allow_private: bool = False) -> bool:
    """Whether the guard refuses a URL without asking anybody."""
    try:
        Guard(allow_private=allow_private).check_url(parse_url(url), url)
    except (AddressRefused, UrlRefused, ValueError):
        return True
    return False


@given(
    spellings(),
    st.sampled_from(["", "8.8.8.8@", "user:8.8.8.8@", "localhost%40@"]),
    st.sampled_from(["", ":80"]),
)
def test_every_spelling_of_an_inside_address_is_refused(
    spelled: tuple[IPv4Address, str], user: str, port: str
) -> None:
    address, host = spelled
    assert refused(f"http://{user}{host}{port}/"), address


@given(
    st.text(
        alphabet="0123456789abcdefxXoO.:[]%@/\\?#-_ \t\n\u3002\uff0e\u2460\uff17\u0667\u00ad\u200b",
        min_size=1,
        max_size=40,
    )
)
@example("127.0.0.1 ")
@example("127.0.0.1\tx")
@example("0x7f.1%00")
@example("[::1%25lo]")
@example("[fd00:ec2::254%25eth0]")
@example("017700000001")
@example("[]@")
def test_what_the_system_takes_for_an_inside_address_is_refused(host: str) -> None:
    """The system's own reading, not ours, says which address a host is."""
    try:
        url = parse_url(f"http://{host}/")
    except ValueError:
        return
    for address in _numerically(url.raw_host or ""):
        if not _outside(address):
            assert refused(str(url)), (host, address)
            assert refused(f"http://{host}/")


def _numerically(host: str) -> list[IPv4Address | IPv6Address]:
    """What the system's resolver makes of a host without asking a name server."""
    try:
        found = socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError, ValueError):
        return []
    return [ip_address(str(where[0]).partition("%")[0]) for *_, where in found]


def _outside(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return address in ip_network("2000::/3")
        address = address.ipv4_mapped
    return not any(address in network for network in INSIDE)


@given(st.integers(0, 2**32 - 1).map(IPv4Address).filter(lambda one: one.is_global and not one.is_multicast))
def test_public_addresses_are_let_through(address: IPv4Address) -> None:
    if address not in ip_network("192.0.0.0/24") and str(address) not in ("168.63.129.16", "100.100.100.200"):
        assert not refused(f"http://{address}/")
        assert not refused(f"http://[::ffff:{address}]/")


@pytest.mark.parametrize(
    "host",
    ["a b", "x%00.example", "[::1%25lo]", "exam%70le.com", "a!b", "a'b", "a(b)"],
)
def test_hosts_that_parsers_might_read_differently(host: str) -> None:
    assert refused(f"http://{host}/", allow_private=True)


@pytest.mark.parametrize(
    "host", ["example.com", "a_b.example", "xn--bcher-kva.example", "bücher.example", "h-1."]
)
def test_names_are_let_through(host: str) -> None:
    assert not refused(f"http://{host}/")


@pytest.mark.parametrize(
    "where", ["127.0.0.1", "127.1", "2130706433", "::1", "::ffff:10.0.0.1", "169.254.169.254"]
)
def test_no_socket_is_made_to_an_address_that_is_refused(where: str) -> None:
    family = socket.AF_INET6 if ":" in where else socket.AF_INET
    with pytest.raises(AddressRefused):
        Guard().socket_to((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (where, 80)))


def test_no_socket_is_made_to_a_name() -> None:
    with pytest.raises(UrlRefused, match="is no address"):
        Guard(allow_private=True).socket_to(
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("localhost", 80))
        )


def test_a_socket_is_made_to_one_that_is_not() -> None:
    Guard().socket_to((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("8.8.8.8", 80))).close()
