"""What proves who asks, and where it may go. Pure.

Credentials and the connection's headers go to the connection's own scheme, host and port, and nowhere else:
not along a redirect, not after a `next` link.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from multidict import CIMultiDict
from yarl import URL

from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import CredentialsMissing
from collect_ops.collectors.urls import query_pairs, with_query
from collect_ops.kernel.secret_names import sounds_secret
from collect_ops.kernel.spellings import MIN_LENGTH, spellings_of
from collect_ops.sources.model import AuthType, Source

# Headers that say what is sent and what is understood: masking every "application/json" would help nobody.
_DESCRIBING = frozenset(
    {
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "connection",
        "content-type",
        "host",
        "pragma",
        "prefer",
        "user-agent",
        "x-requested-with",
    }
)
# What is shorter and a word or a number stands in addresses by chance: a password "flights" in /flights.
_STRONG = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The secrets of one source's requests.

    Args:
        origin: The only scheme, host and port they are for.
        headers: The connection's, sent there.
        proof: The headers of the authentication, sent there; no declared header replaces them.
        query: The key, sent there in the URL.
        secrets: Every text that must not be shown.
        keys: Those of them that open something, and can be told from other words: they are not even stored with a
            position.
    """

    origin: URL
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    proof: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    keys: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, source: Source, endpoint: Endpoint, *, secrets: Sequence[str] = ()) -> Credentials:
        """What the source's authentication makes of the connection.

        Args:
            source: The source.
            endpoint: The connection.
            secrets: More texts that must not be shown.

        Raises:
            CredentialsMissing: The connection lacks what it needs.
        """
        proof: dict[str, str] = {}
        query: dict[str, str] = {}
        match source.auth.type:
            case AuthType.BASIC:
                pair = f"{_needed('login', source, endpoint)}:{endpoint.password or ''}"
                proof["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
            case AuthType.BEARER:
                proof["Authorization"] = f"Bearer {_needed('password', source, endpoint)}"
            case AuthType.API_KEY:
                holder = proof if source.auth.location == "header" else query
                holder[source.auth.name] = _needed("password", source, endpoint)
            case AuthType.OAUTH2 | AuthType.NONE:
                pass  # the proof of oauth2 is a token, which somebody has to ask for first
        return cls(
            origin=URL(endpoint.base_url).origin(),
            headers=endpoint.headers,
            proof=proof,
            query=query,
            secrets=tuple(sorted({*_secrets(source, endpoint, proof), *secrets})),
            keys=tuple(sorted(_keys(source, endpoint, proof))),
        )

    def bearing(self, token: str) -> Credentials:
        """The same with a token, which takes the place of the one before; that one stays a secret."""
        proof = {**self.proof, "Authorization": f"Bearer {token}"}
        return replace(
            self,
            proof=proof,
            secrets=tuple(sorted({*self.secrets, token})),
            keys=tuple(sorted({*self.keys, token})),
        )

    def trusts(self, url: URL) -> bool:
        """Whether `url` is where the credentials may go."""
        return bool(url.raw_host) and _place(url) == _place(self.origin)

    def strip(self, url: URL) -> URL:
        """`url` without credentials: neither user info nor a key of ours, which servers like to repeat in links."""
        if url.raw_user is not None or url.raw_password is not None:
            url = url.with_user(None)
        pairs = query_pairs(url)
        ours = {name for name, value, _ in pairs if name in self.query or value in self.keys}
        if not ours:
            return url
        return with_query(url, "&".join(spelled for name, _, spelled in pairs if name not in ours))

    def gives_away(self, text: str) -> bool:
        """Whether a text holds one of the keys, in any spelling."""
        return bool(spellings_of(frozenset(self.keys)).spans(text))

    def dress(self, url: URL) -> URL:
        """`url` with the key in its query, when it goes where the credentials may go."""
        url = self.strip(url)
        if not self.query or not self.trusts(url):
            return url
        key = URL.build(query=self.query).raw_query_string
        return with_query(url, f"{url.raw_query_string}&{key}" if url.raw_query_string else key)

    def plain_headers(self, url: URL, declared: Mapping[str, str]) -> dict[str, str]:
        """The headers of a request to `url` that prove nothing and sound like no secret."""
        headers = CIMultiDict(self.headers if self.trusts(url) else {})
        headers.update(declared)
        return {name: value for name, value in headers.items() if not sounds_secret(name)}

    def headers_for(self, url: URL, declared: Mapping[str, str]) -> CIMultiDict[str]:
        """The headers of a request to `url`.

        Args:
            url: Where it goes.
            declared: The source's own headers; elsewhere only those that do not sound like a secret.
        """
        if not self.trusts(url):
            return CIMultiDict((name, value) for name, value in declared.items() if not sounds_secret(name))
        headers = CIMultiDict(self.headers)
        headers.update(declared)
        headers.update(self.proof)
        return headers


def _place(url: URL) -> tuple[str, str | None, int | None]:
    """Scheme, host and port, the port of the scheme as well: `https://host:443` is `https://host`."""
    return url.scheme, url.raw_host, url.port


def _is_distinct(secret: str) -> bool:
    """Whether a secret can be told from what stands in an address by chance."""
    if len(secret) >= _STRONG:
        return True
    return len(secret) >= MIN_LENGTH and not secret.isalpha() and not secret.isdecimal()


def short_secrets(endpoint: Endpoint, connection: str) -> Iterator[str]:
    """Warnings of secrets that are too short to be found wherever a server repeats them.

    Args:
        endpoint: What the connection says.
        connection: Its id.
    """
    headers = {
        f"extra.headers.{name}": text for name, text in endpoint.headers.items() if sounds_secret(name)
    }
    for field_name, text in {"password": endpoint.password, **headers}.items():
        if text and len(text) < MIN_LENGTH:
            yield (
                f"{field_name} of connection {connection!r} is shorter than {MIN_LENGTH} characters: it is not masked "
                "in what the server answers, since that would spoil every text; use a longer one"
            )
        elif text and not _is_distinct(text.partition(" ")[2] or text):
            yield (
                f"{field_name} of connection {connection!r} is a word or a number of fewer than {_STRONG} characters: "
                "where the server repeats it in a cursor or a link, it is stored with the position, since others look "
                "like it; use a longer one"
            )


def _secrets(source: Source, endpoint: Endpoint, proof: Mapping[str, str]) -> set[str]:
    declared = {name: value for name, value in source.request.headers.items() if sounds_secret(name)}
    headers = {
        name: value for name, value in endpoint.headers.items() if name.lower() not in _DESCRIBING
    } | declared
    found = {endpoint.login or "", endpoint.password or "", *_within(headers), *_within(proof)}
    if endpoint.token_url is not None:
        url = URL(endpoint.token_url)
        found |= {value for name, value in url.query.items() if sounds_secret(name)}
        found |= {url.user or "", url.password or ""}
    return found - {""}


def _keys(source: Source, endpoint: Endpoint, proof: Mapping[str, str]) -> set[str]:
    # Of the other headers only those whose names say so: a tenant's name may well stand in the next page's address.
    headers = {
        name: value
        for name, value in {**endpoint.headers, **source.request.headers}.items()
        if sounds_secret(name)
    }
    cookies = {one for one in _cookies(headers) if len(one) >= _STRONG}  # others are settings: `dark-blue`
    alone = {endpoint.password or "", *proof.values(), *headers.values(), *_behind_schemes(headers)}
    return cookies | set(filter(_is_distinct, alone))


def _within(headers: Mapping[str, str]) -> set[str]:
    """The values of headers, and what they hold: the key behind its scheme, each cookie."""
    return set(headers.values()) | _behind_schemes(headers) | _cookies(headers)


def _behind_schemes(headers: Mapping[str, str]) -> set[str]:
    return {text.partition(" ")[2] for text in headers.values()}


def _cookies(headers: Mapping[str, str]) -> set[str]:
    return {
        pair.partition("=")[2].strip()
        for name, value in headers.items()
        if name.lower() == "cookie"
        for pair in value.split(";")
    }


def _needed(name: str, source: Source, endpoint: Endpoint) -> str:
    value = endpoint.login if name == "login" else endpoint.password
    if not value:
        raise CredentialsMissing(endpoint.base_url, source.connection, source.auth.type, name)
    return value
