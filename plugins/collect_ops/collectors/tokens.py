"""OAuth2 client credentials (RFC 6749 section 4.4): the token request, and what its answer means. Pure."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote_plus, urlencode

import orjson
from yarl import URL

from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import (
    CollectorError,
    CredentialsMissing,
    HostBusy,
    TokenRefused,
    TokenServerFailed,
    TokenUnusable,
    TokenUrlRefused,
)
from collect_ops.collectors.paging import kind_of
from collect_ops.collectors.retry import retry_after_s
from collect_ops.kernel.masking import mask, mask_beginning
from collect_ops.kernel.secret_names import sounds_secret
from collect_ops.sources.model import AuthType, Source

#: What a token is taken to live for when its server does not say, in seconds.
UNKNOWN_LIFE_S = 300.0
#: A token is renewed so long before its end, in seconds, or a fifth of its life if that is less.
MARGIN_S = 60.0
_MAX_LIFE_S = 86_400.0

# What may stand in a header behind "Bearer": RFC 6750 allows fewer, servers send more.
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
# RFC 6749 5.2 and 4.1.2.1: codes that a later try may not meet again.
_LATER = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
_AGAIN = frozenset({408, 425})
_NEVER = frozenset({501, 505})
_CODE = re.compile(r"[a-z][a-z0-9_.-]{0,60}")
_MAX_DESCRIPTION = 200
_LONGEST_KIND = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAsk:
    """What is asked of a token endpoint. Equal ones get one token.

    Args:
        url: The endpoint.
        connection: Whose client it is, for errors.
        client_id: The connection's login.
        client_secret: Its password.
        scope: What the token is for.
        audience: Whom it is for.
        in_body: Whether id and secret go into the body instead of a Basic header.
        given: Tokens of its answer, which must not be shown either.
    """

    url: URL
    connection: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str | None
    audience: str | None
    in_body: bool
    given: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, source: Source, endpoint: Endpoint) -> TokenAsk | None:
        """What a source's authentication asks for; None when it is another than oauth2.

        Raises:
            CredentialsMissing: The connection lacks client id, secret or the endpoint's address.
            TokenUrlRefused: The secret may not go to that address.
        """
        auth = source.auth
        if auth.type is not AuthType.OAUTH2:
            return None
        if not endpoint.login or not endpoint.password:
            name = "password" if endpoint.login else "login"
            raise CredentialsMissing(endpoint.base_url, source.connection, auth.type, name)
        return cls(
            url=_address(source, endpoint),
            connection=source.connection,
            client_id=endpoint.login,
            client_secret=endpoint.password,
            scope=auth.scope,
            audience=auth.audience,
            in_body=auth.client_auth == "body",
        )

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers."""
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if not self.in_body:
            headers["Authorization"] = f"Basic {self._pair()}"
        return headers

    @property
    def body(self) -> bytes:
        """The request's body."""
        fields = {"grant_type": "client_credentials", "scope": self.scope, "audience": self.audience}
        if self.in_body:
            fields |= {"client_id": self.client_id, "client_secret": self.client_secret}
        return urlencode({name: value for name, value in fields.items() if value is not None}).encode()

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that must not be shown."""
        return (self.client_secret, self._pair())

    @property
    def shown(self) -> str:
        """The endpoint's address, masked."""
        shown: str = mask(str(self.url), secrets=self.secrets)
        return shown

    def quote(self, text: str, limit: int) -> str:
        """So many characters of what the endpoint said, masked before it is cut."""
        return mask_beginning(text, limit, secrets=(*self.secrets, self.client_id, *self.given))

    def answered_with(self, document: Mapping[str, Any]) -> TokenAsk:
        """The same, knowing the tokens of an answer: nothing that is quoted of it shows them."""
        given = (
            text
            for name, text in document.items()
            if isinstance(text, str) and sounds_secret(name) and not name.endswith("token_type")
        )
        return replace(self, given=tuple(given))

    def _pair(self) -> str:
        # RFC 6749 2.3.1: both are encoded as in a form before they become a user name and a password.
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}"
        return base64.b64encode(pair.encode()).decode()


def _address(source: Source, endpoint: Endpoint) -> URL:
    base, own = URL(endpoint.base_url), endpoint.token_url
    named = source.auth.token_url
    if named is None and own is None:
        where = "extra.token_url (or the source's auth.token_url)"
        raise CredentialsMissing(endpoint.base_url, source.connection, source.auth.type, where)
    url = base.origin().join(URL(named or own or ""))
    trusted = {base.origin(), *([base.origin().join(URL(own)).origin()] if own else [])}
    shown = mask(str(url))
    if url.origin() not in trusted:
        reason = (
            f"the source names it and the connection does not know it; name it in the connection: extra "
            f'{{"token_url": "{shown}"}}'
        )
        raise TokenUrlRefused(shown, source.connection, reason)
    if url.scheme != "https" and not endpoint.allow_private_networks:
        # RFC 6749 2.3.1 demands TLS; inside one's own network people do without.
        reason = "it would go unencrypted; allowed are https:// addresses"
        raise TokenUrlRefused(shown, source.connection, reason)
    return url


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An access token.

    Args:
        text: The token.
        renew_at: `time.monotonic()` from which on it is renewed before it is used.
    """

    text: str = field(repr=False)
    renew_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAnswer:
    """What a token endpoint answered: status, headers and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def token_in(ask: TokenAsk, answer: TokenAnswer, *, asked_at: float, now: datetime) -> Token:
    """The token in an answer.

    Args:
        ask: What was asked.
        answer: What came.
        asked_at: `time.monotonic()` when it was asked: a token's life is counted from then.
        now: The time, for a Retry-After that names a date.

    Raises:
        TokenRefused: The endpoint says no.
        TokenServerFailed: It cannot now.
        HostBusy: It asks for patience.
        TokenUnusable: It gave something else.
    """
    if not 200 <= answer.status < 300:
        raise _refusal(ask, answer, now)
    shown = ask.shown
    try:
        document = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        # Neither the body nor the parser's message: both may hold a token.
        content_type = answer.headers.get("Content-Type", "") or "no content type"
        raise TokenUnusable(
            shown, "answer", f"not JSON ({ask.quote(content_type, 80)})", "a JSON object"
        ) from None
    if not isinstance(document, dict):
        raise TokenUnusable(shown, "answer", kind_of(document), "a JSON object")
    ask = ask.answered_with(document)
    if isinstance(document.get("error"), str) and "access_token" not in document:
        raise _said_no(ask, answer.status, document)  # some answer 200 to everything
    text = document.get("access_token")
    if not isinstance(text, str) or not _TOKEN.fullmatch(text):
        raise TokenUnusable(shown, "access_token", _kind(text), "text of visible ASCII characters")
    kind = document.get("token_type")
    if kind is not None and (not isinstance(kind, str) or kind.lower() != "bearer"):
        raise TokenUnusable(shown, "token_type", _kind_shown(kind, ask), "Bearer")
    life_s = _life_s(document.get("expires_in"), ask)
    return Token(text=text, renew_at=asked_at + life_s - min(MARGIN_S, life_s / 5))


def _kind_shown(kind: object, ask: TokenAsk) -> str:
    if not isinstance(kind, str):
        return kind_of(kind)
    # What is longer names no type; perhaps it is another token.
    return ask.quote(repr(kind), 40) if len(kind) <= _LONGEST_KIND else f"a text of {len(kind)} characters"


def _life_s(value: Any, ask: TokenAsk) -> float:
    if value is None:
        return UNKNOWN_LIFE_S
    found = value
    if isinstance(value, str) and value.isascii() and value.strip().isdigit():
        found = int(value.strip()[:18])  # a text where a number is due: several large providers send one
    if (
        isinstance(found, bool)
        or not isinstance(found, int | float)
        or not math.isfinite(found)
        or found <= 0
    ):
        gave = ask.quote(repr(value), 40) if isinstance(value, str | int | float) else kind_of(value)
        raise TokenUnusable(ask.shown, "expires_in", gave, "a number of seconds above 0")
    return min(float(found), _MAX_LIFE_S)


def _refusal(ask: TokenAsk, answer: TokenAnswer, now: datetime) -> CollectorError:
    status, shown = answer.status, ask.shown
    wait_s = retry_after_s(answer.headers, now)
    if status == 429 or (status == 503 and wait_s is not None):
        return HostBusy(shown, status, wait_s)
    try:
        document = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("error"), str):
        return _said_no(ask, status, document)
    if status in _AGAIN or (status >= 500 and status not in _NEVER):
        return TokenServerFailed(shown, status, "")
    return TokenRefused(shown, ask.connection, f"it answered {status}", "")


def _said_no(ask: TokenAsk, status: int, document: Mapping[str, Any]) -> CollectorError:
    ask = ask.answered_with(document)
    code = document["error"]
    shown = _CODE.fullmatch(code) and ask.quote(code, len(code)) == code
    code = code if shown else "an error code that is none"
    if code in _LATER or (status >= 500 and status not in _NEVER):
        return TokenServerFailed(ask.shown, status, code)
    said = document.get("error_description")
    description = " ".join(ask.quote(said, _MAX_DESCRIPTION).split()) if isinstance(said, str) else ""
    return TokenRefused(ask.shown, ask.connection, code, description)


def _kind(value: object) -> str:
    if value is None:
        return "missing"
    return "no text that a header can carry" if isinstance(value, str) else kind_of(value)
