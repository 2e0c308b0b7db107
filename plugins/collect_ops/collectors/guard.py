"""Which addresses are asked, and which never.

Collect URLs are attacker-controlled input: a source, a submission, a redirect or a `next` link may point
into our own network. Every address is checked after DNS, and the connection goes to the address that was
checked.
"""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from collect_ops.collectors.errors import AddressRefused, UrlRefused

Address = IPv4Address | IPv6Address

# Metadata services outside 169.254.0.0/16: AWS and GCP over IPv6, Alibaba, Oracle, and Azure's (a public
# address).
_METADATA = frozenset(
    ip_address(text)
    for text in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE = IPv6Network("::/96")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """Why an address is not asked.

    Args:
        kind: What kind of address it is.
        allowable: Whether a connection may allow it (`allow_private_networks`).
    """

    kind: str
    allowable: bool


def objection(address: Address) -> Objection | None:
    """What speaks against asking `address`; None when it is a public unicast address. Pure."""
    never = _never(address)
    if never:
        return Objection(kind=never, allowable=False)
    if isinstance(address, IPv6Address):
        inner = embedded(address)
        found = objection(inner) if inner else None
        if found:
            return Objection(kind=f"{found.kind} (as {inner})", allowable=found.allowable)
        if inner and not _is_isatap(address):
            # The outer address is only how the inner one is written; ISATAP's prefix is an address of its
            # own.
            return None
    if address.is_loopback:
        return Objection(kind="loopback", allowable=True)
    # Private, shared (CGNAT), documentation, benchmarking, unique local: whatever IANA does not call global.
    if not address.is_global or address.is_private:
        return Objection(kind="private", allowable=True)
    return None


def _never(address: Address) -> str | None:
    if address in _METADATA:
        return "cloud metadata"
    if address.is_unspecified or (isinstance(address, IPv4Address) and address in _THIS_NETWORK):
        return "unspecified"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast:
        return "multicast"
    # ipaddress counts ::/8 as reserved, which holds the loopback and embedded forms that are judged on their
    # own.
    if address.is_reserved and not (isinstance(address, IPv6Address) and int(address) >> 120 == 0):
        return "reserved"
    return None


def embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address inside an IPv6 one: mapped, compatible, 6to4, Teredo, NAT64 or ISATAP. Pure."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    low = int(address) & 0xFFFF_FFFF
    if any(address in network for network in _NAT64):
        return IPv4Address(low)
    if address in _COMPATIBLE and not address.is_loopback and not address.is_unspecified:
        return IPv4Address(low)
    return IPv4Address(low) if _is_isatap(address) else None


def _is_isatap(address: IPv6Address) -> bool:
    return (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP


def literal(host: str) -> Address | None:
    """The address that a URL's host is; None for a name.

    The old forms count (`0x7f.1`, `2130706433`, `0177.0.0.1`). Pure: `inet_aton` asks nobody.
    """
    text = host.strip("[]").rstrip(".")
    try:
        return ip_address(text.replace("%25", "%"))
    except ValueError:
        pass  # Not the usual form; it may still be one that the system's resolver takes for an address.
    if not _NUMERIC.fullmatch(text):
        return None
    try:
        return IPv4Address(socket.inet_aton(text))
    except OSError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Checks URLs before they are asked and addresses before they are connected to.

    Args:
        allow_private: Whether private and loopback addresses may be asked.
    """

    allow_private: bool = False

    def check_url(self, url: URL, shown: str) -> None:
        """Refuse what can be refused without DNS.

        Args:
            url: The URL.
            shown: Its masked form, for the error.

        Raises:
            UrlRefused: Scheme or form.
            AddressRefused: The host is a literal address that is not asked.
        """
        if url.scheme not in ("http", "https"):
            raise UrlRefused(shown, f"scheme {url.scheme!r} is not fetched")
        host = url.raw_host
        if not host:
            raise UrlRefused(shown, "the URL names no host")
        address = literal(host)
        if address is not None:
            self.check_address(address, host, shown)
        elif _NUMERIC.fullmatch(host.rstrip(".")):
            raise UrlRefused(shown, f"host {host!r} is neither a name nor an address")

    def check_address(self, address: Address, host: str, shown: str) -> None:
        """Refuse an address.

        Raises:
            AddressRefused: It is not asked.
        """
        found = objection(address)
        if found and not (found.allowable and self.allow_private):
            raise AddressRefused(shown, host, str(address), found.kind, allowable=found.allowable)


class GuardedResolver(AbstractResolver):
    """Resolves names and lets only checked addresses through, so that the connection goes to no other.

    One refused address refuses the name: a host that is public and private at once is a trap or a mistake.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The checked addresses of `host`.

        Raises:
            AddressRefused: One of them is not asked.
            OSError: The name does not resolve.
        """
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, family=family
        )
        results: list[ResolveResult] = []
        for kind, _, protocol, _, address in found:
            text = str(address[0])
            self._guard.check_address(ip_address(text), host, f"//{host}:{port}")
            results.append(
                ResolveResult(
                    hostname=host,
                    host=text,
                    port=port,
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        return results

    async def close(self) -> None:
        """Nothing is held."""
