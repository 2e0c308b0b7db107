"""Which addresses are asked, and which never.

Collect URLs are attacker-controlled input: a source, a submission, a redirect, a `next` link or the address of a
token endpoint may point into our own network. Every address is checked after DNS, and once more, whatever came
before, when the socket is made that connects to it: a name that resolves otherwise the second time, or a spelling
that two parsers read differently, gains nothing.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType
from yarl import URL

from collect_ops.collectors.errors import AddressRefused, UrlRefused

Address = IPv4Address | IPv6Address
#: A host and its port.
Endpoint = tuple[str, int]
_THIS_MACHINE = "localhost"

# Metadata services outside 169.254.0.0/16: Scaleway and GCP over IPv6, Alibaba, Oracle, and Azure's (a public address).
_METADATA = frozenset(
    ip_address(text)
    for text in ("fd00:42::42", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
# AWS: instance metadata, credentials of pods, DNS and time of a VPC.
_METADATA_NETWORK = IPv6Network("fd00:ec2::/32")
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
# Python's tables know single addresses of 192.0.0.0/24 as global (RFC 7723, RFC 8155): none of them serves data.
_PROTOCOLS = IPv4Network("192.0.0.0/24")
_NAT64 = IPv6Network("64:ff9b::/96")
# A network's own translation (RFC 8215): where in it the IPv4 address stands is the network's own matter.
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
# All global unicast addresses (RFC 4291 2.4), less what IANA has set aside since Python's tables were made.
_GLOBAL = IPv6Network("2000::/3")
_DOCUMENTATION = IPv6Network("3fff::/20")
_UNIQUE_LOCAL = IPv6Network("fc00::/7")
_SITE_LOCAL = IPv6Network("fec0::/10")
# Letters, digits, hyphens, dots, and the underscore that some names have; colons in addresses.
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
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

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine, in whatever spelling."""
        return self.kind.startswith("loopback")


def objection(address: Address) -> Objection | None:
    """What speaks against asking `address`; None when it is a public unicast address. Pure."""
    if isinstance(address, IPv4Address):
        return _objection_v4(address)
    address = IPv6Address(int(address))  # without its zone: fd00:ec2::254%eth0 is the metadata service, too
    never = _never_v6(address)
    if never:
        return Objection(kind=never, allowable=False)
    found = [(inner, _objection_v4(inner)) for inner in embedded(address)]
    worst = min(
        ((one.allowable, f"{one.kind} (as {inner})") for inner, one in found if one is not None), default=None
    )
    if worst is not None:
        return Objection(kind=worst[1], allowable=worst[0])
    if found and not _is_isatap(address):
        # The outer address is only how the inner one is written; ISATAP's prefix is an address of its own.
        return None
    return _objection_v6(address)


def _objection_v4(address: IPv4Address) -> Objection | None:
    never = _never_v4(address)
    if never:
        return Objection(kind=never, allowable=False)
    if address.is_loopback:
        return Objection(kind="loopback", allowable=True)
    # Private, shared (CGNAT), documentation, benchmarking: whatever IANA does not call global.
    if not address.is_global or address.is_private or address in _PROTOCOLS:
        return Objection(kind="private", allowable=True)
    return None


def _never_v4(address: IPv4Address) -> str | None:
    if address in _METADATA:
        return "cloud metadata"
    if address in _THIS_NETWORK:
        return "unspecified"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast:
        return "multicast"
    return "reserved" if address.is_reserved else None


def _never_v6(address: IPv6Address) -> str | None:
    if address in _METADATA or address in _METADATA_NETWORK:
        return "cloud metadata"
    if address.is_unspecified:
        return "unspecified"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast:
        return "multicast"
    return None


def _objection_v6(address: IPv6Address) -> Objection | None:
    if address.is_loopback:
        return Objection(kind="loopback", allowable=True)
    if address in _UNIQUE_LOCAL or address in _SITE_LOCAL or address in _LOCAL_NAT64:
        return Objection(kind="private", allowable=True)
    if address not in _GLOBAL:
        return Objection(kind="reserved", allowable=False)
    if not address.is_global or address.is_private or address in _DOCUMENTATION:
        return Objection(kind="private", allowable=True)
    return None


def embedded(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses inside an IPv6 one.

    One in mapped, compatible, translated, 6to4, NAT64 and ISATAP addresses, two in Teredo's: its server's and its
    client's. Pure.
    """
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    low = IPv4Address(int(address) & 0xFFFF_FFFF)
    if address.ipv4_mapped is not None or address in _NAT64 or address in _TRANSLATED or _is_isatap(address):
        return (low,)
    if address in _COMPATIBLE and not address.is_loopback and not address.is_unspecified:
        return (low,)
    return ()


def _is_isatap(address: IPv6Address) -> bool:
    return (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP


def literal(host: str) -> Address | None:
    """The address that a URL's host is; None for a name.

    The old forms count (`0x7f.1`, `2130706433`, `0177.0.0.1`). Pure: `inet_aton` asks nobody.
    """
    text = host.strip("[]").rstrip(".")
    if ":" in text:
        text = text.partition("%")[0]  # a zone says over which interface, not to which address
    try:
        return ip_address(text)
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

    Loopback is this machine: its PostgreSQL, Redis and RabbitMQ listen there. A connection that allows private
    networks allows it only for the hosts and ports that it names itself: redirects and links lead to nothing else
    there.

    Args:
        allow_private: Whether private and loopback addresses may be asked.
        own: The hosts and ports that the connection itself names.
    """

    allow_private: bool = False
    own: frozenset[Endpoint] = frozenset()
    # Loopback addresses and ports that names of `own` resolved to: a socket is told no name.
    _resolved: set[tuple[Address, int]] = field(default_factory=set, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, urls: Iterable[str | None], *, allow_private: bool) -> Guard:
        """The guard of a connection that names these URLs."""
        named = ((each.raw_host, each.port) for each in map(URL, filter(None, urls)))
        own = frozenset(_endpoint(host, port) for host, port in named if host and port is not None)
        return cls(allow_private=allow_private, own=own)

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
            self.check_address(address, host, url.port or 0, shown)
        if not _HOST.fullmatch(host):
            # Blanks, zones, escapes: the system's resolver and ours might not read them alike.
            raise UrlRefused(shown, f"host {host!r} holds what no host name or address holds")
        if address is None and _NUMERIC.fullmatch(host.rstrip(".")):
            raise UrlRefused(shown, f"host {host!r} is neither a name nor an address")

    def check_address(self, address: Address, host: str, port: int, shown: str) -> None:
        """Refuse an address.

        Args:
            address: The address.
            host: What the URL names: this address, or a name that resolved to it.
            port: The port.
            shown: The URL's masked form, for the error.

        Raises:
            AddressRefused: It is not asked.
        """
        found = objection(address)
        if found is None:
            return
        if not (found.allowable and self.allow_private):
            raise AddressRefused(shown, host, str(address), found.kind, allowable=found.allowable)
        if found.is_loopback and _endpoint(host, port) not in self.own:
            raise AddressRefused(shown, host, str(address), found.kind, allowable=True, own=False)

    def check_resolved(self, address: Address, host: str, port: int) -> None:
        """Refuse an address that a name resolved to; what is not refused, a socket may connect to.

        Raises:
            AddressRefused: It is not asked.
        """
        self.check_address(address, host, port, f"//{host}:{port}")
        if objection(address) is not None:
            self._resolved.add((address, port))

    def socket_to(self, target: AddrInfoType) -> socket.socket:
        """The socket that connects to `target`, an entry as of `getaddrinfo`: the last check before the wire.

        Raises:
            AddressRefused: That address is not asked.
            UrlRefused: It is none.
        """
        family, kind, protocol, _, where = target
        host, port = str(where[0]), int(where[1])
        address = literal(host)
        if address is None:
            raise UrlRefused(f"//{host}:{port}", f"{host!r} is no address")
        if (address, port) not in self._resolved:
            self.check_address(address, host, port, f"//{host}:{port}")
        return socket.socket(family=family, type=kind, proto=protocol)


def _endpoint(host: str, port: int) -> Endpoint:
    """A host and port, in one spelling; this machine is one host in whatever spelling."""
    plain = host.strip("[]").rstrip(".").lower()
    return (_THIS_MACHINE if _is_loopback_host(plain) else plain, port)


def _is_loopback_host(host: str) -> bool:
    """Whether a host is this machine by its spelling alone: a loopback address, or a name of RFC 6761."""
    address = literal(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    found = objection(address)
    return found is not None and found.is_loopback


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
            self._guard.check_resolved(_resolved(text), host, port)
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


def _resolved(text: str) -> Address:
    address = literal(text)
    if address is None:
        raise OSError(f"the resolver gave {text!r}, which is no address")
    return address
