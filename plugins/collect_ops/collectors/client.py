"""Requests to a source's server: sent where they may go, tried again when that helps, read within limits."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import Any, Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from collect_ops import __version__
from collect_ops.collectors.answer import (
    Answer,
    beside,
    content_of,
    document_if_any,
    later,
    refusal,
    unfinished,
)
from collect_ops.collectors.bodies import read_beginning, read_body, read_whole
from collect_ops.collectors.conditional import fingerprint
from collect_ops.collectors.conditions import body_expressions, named_statuses
from collect_ops.collectors.content import Content, ShardReader
from collect_ops.collectors.credentials import Credentials
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import (
    AuthenticationRefused,
    CertificateRefused,
    CollectorError,
    ConnectionBroken,
    HostBusy,
    HostHeld,
    HostUnreachable,
    RedirectRefused,
    RequestTimedOut,
    TokenUnusable,
    UrlRefused,
)
from collect_ops.collectors.gate import Gate, LocalGate, Turn
from collect_ops.collectors.guard import Guard, GuardedResolver
from collect_ops.collectors.page import Json
from collect_ops.collectors.proxied import as_reached
from collect_ops.collectors.retry import RetryNotice, wait_before_retry
from collect_ops.collectors.token_keeper import TokenKeeper
from collect_ops.collectors.tokens import Token, TokenAnswer, TokenAsk, token_in
from collect_ops.collectors.urls import parse_url
from collect_ops.kernel.masking import MASK, mask, mask_beginning, mask_error
from collect_ops.kernel.secret_names import sounds_secret
from collect_ops.sources.model import Source

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# aiohttp's 64 KiB would pause the socket two dozen times in a page of 1.5 MB.
_READ_BUFFER_BYTES = 256 * 1024
# Cursors in links grow beyond aiohttp's 8 KiB.
_MAX_HEADER_BYTES = 64 * 1024
_ERROR_BODY_BYTES = 4096
_MAX_TOKEN_BYTES = 64 * 1024
_SHOWN_HEADERS = (
    "content-type",
    "content-encoding",
    "content-length",
    "date",
    "etag",
    "last-modified",
    "server",
)
# Of what a server says so much is shown. Masking costs the more, the longer the text: pages come with headers each.
_MOST_SHOWN_HEADERS = 16
_SHOWN_HEADER_CHARS = 256
_SEARCHED_HEADER_CHARS = 768
_SHOWN_URL_CHARS = 4096
_SHOWN_ERROR_CHARS = 1000
# What aiohttp's parser could not read, as the bytes that happened to be there: half a secret, perhaps.
_EXCERPT = re.compile(r"(?:\n|\\+n)\s*b\\*['\"].*", re.DOTALL)
_DEFAULT_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": f"collect-ops/{__version__}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request, before credentials.

    Args:
        method: `GET` or `POST`.
        url: Where it goes.
        headers: The source's own headers.
        body: What is sent with it.
        conditions: Headers that ask for the answer only if it has changed.
        page: Whether the answer is to hold rows.
    """

    method: str
    url: URL
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    page: bool = False

    @property
    def key(self) -> int:
        """The same for the same request."""
        return hash((self.method, self.url, self.body))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What came of a call.

    Args:
        answer: The response.
        content: Its body.
        attempts: 1, and one more for each request that failed before.
    """

    answer: Answer
    content: Content
    attempts: int

    @property
    def document(self) -> Json:
        """The body as JSON."""
        return self.content.document


class _Timed:
    """A turn whose request is under a timer.

    The timer stands still while the request waits to be sent once more: no host is slow because others are ahead of us.
    """

    def __init__(self, turn: Turn, timer: asyncio.Timeout) -> None:
        self._turn = turn
        self._timer = timer

    async def again(self) -> None:
        """See `Turn.again`."""
        loop = asyncio.get_running_loop()
        until = self._timer.when()
        left_s = None if until is None else until - loop.time()
        self._timer.reschedule(None)
        await self._turn.again()
        if left_s is not None and not self._timer.expired():
            self._timer.reschedule(loop.time() + left_s)

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """See `Turn.answered`."""
        self._turn.answered(status, headers)


class HttpClient:
    """Sends calls to one source's server; an async context manager around one keep-alive session.

    Args:
        source: The source, for its limits, time-outs and retries.
        endpoint: The connection's base URL and credentials.
        concurrency: Requests under way at most.
        requests_per_s: Requests a second at most; None means no limit.
        on_retry: Told of every request that is tried again.
        gate: Gives out turns at the host; None: of this client alone, within concurrency and requests_per_s.

    Raises:
        CredentialsMissing: The connection lacks what the source's authentication needs.
        TokenUrlRefused: The connection's secret may not go where the source asks for tokens.
    """

    def __init__(
        self,
        source: Source,
        endpoint: Endpoint,
        *,
        concurrency: int,
        requests_per_s: float | None,
        on_retry: Callable[[RetryNotice], None] | None,
        gate: Gate | None = None,
    ) -> None:
        self._source = source
        self._on_retry = on_retry
        ask = TokenAsk.of(source, endpoint)
        self._credentials = Credentials.of(source, endpoint, secrets=ask.secrets if ask else ())
        # Refusals whose bodies a condition may look at.
        self._later_statuses = named_statuses(source.retry_when)
        self._later_by_body = bool(body_expressions(source.retry_when))
        self._read_whole = self._later_statuses | named_statuses(source.end)
        self._base = parse_url(endpoint.base_url)
        self._who = (source.auth.type.value, endpoint.login or "")
        self._tokens = None if ask is None else TokenKeeper(ask, self._token_for)
        self._guard = Guard.of(
            (endpoint.base_url, endpoint.token_url), allow_private=endpoint.allow_private_networks
        )
        self._own = (self._base.raw_host, self._base.port)
        self._concurrency = concurrency
        self._gate: Gate = gate or LocalGate(concurrency, requests_per_s)
        self._session: aiohttp.ClientSession | None = None
        self._shown_headers: dict[tuple[bool, str], dict[str, str]] = {}

    async def __aenter__(self) -> Self:
        timeouts = self._source.timeouts
        # The cookie jar is a dummy: what one source sets must not follow us to another request.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._concurrency,
                resolver=GuardedResolver(self._guard),
                use_dns_cache=False,
                socket_factory=self._guard.socket_to,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=timeouts.connect_s, sock_read=timeouts.read_s
            ),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_READ_BUFFER_BYTES,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def fetch(self, call: Call, reader: ShardReader | None = None) -> Fetched:
        """The answer to a call, tried again within the source's `retries` when it fails for now.

        Args:
            call: The request.
            reader: Reads the body as rows; None parses it.

        Raises:
            CollectorError: One of its subclasses says what is wrong.
        """
        retries = self._source.retries
        attempt = 0
        while True:
            attempt += 1
            try:
                return replace(await self._exchange(call, reader), attempts=attempt)
            except HostHeld:
                raise
            except CollectorError as error:
                wait_s = wait_before_retry(error, attempt, retries, random.random)
                if isinstance(error, HostBusy):
                    hold_s = error.retry_after_s or wait_s or retries.http_backoff_s
                    await self._gate.hold(hold_s, error.reason)
                if wait_s is None or self._gate.held is not None:
                    raise
                if self._on_retry is not None:
                    notice = RetryNotice(
                        attempt=attempt, attempts=retries.http_attempts, wait_s=wait_s, error=error
                    )
                    self._on_retry(notice)
            await self._gate.rest(wait_s)

    async def _exchange(self, call: Call, reader: ShardReader | None) -> Fetched:
        """One attempt, in its turn: the request, its redirects, and a success read to its end."""
        async with self._gate.turn(self.shown(call.url)) as turn:
            try:
                # Before anybody is told of an error: the gate keeps its text.
                with self.masking():
                    return await self._understood(call, await self._answered(call, turn), reader)
            except HostHeld:
                raise
            except CollectorError as error:
                held = await turn.failed(error)
                if held is not None:
                    raise held from error
                raise

    async def _understood(self, call: Call, answer: Answer, reader: ShardReader | None) -> Fetched:
        """A success with its document, unless it says "later".

        Raises:
            CollectorError: It is no success, or there is nothing to be read from it.
        """
        source, now = self._source, datetime.now(UTC)
        if not _is_success(answer.status, call):
            if answer.status in self._later_statuses:
                await self._refuse_later(answer, document_if_any(answer, source), now)
            raise refusal(answer, source, now)
        is_empty = answer.status == 202 and not answer.body.strip()
        try:
            content = Content(b"", lambda: None) if is_empty else content_of(answer, source, reader)
        except CollectorError:
            await self._refuse_later(answer, None, now)  # what says "later" need not be JSON
            raise
        await self._refuse_later(answer, content.document if self._later_by_body else None, now)
        if answer.status == 202 and (
            error := unfinished(answer, content.document, source, now, page=call.page)
        ):
            raise error
        return Fetched(answer=answer, content=content, attempts=1)

    async def _refuse_later(self, answer: Answer, document: Json, now: datetime) -> None:
        if not self._source.retry_when:
            return
        error = await beside(
            lambda: later(answer, document, self._source, now),
            answer,
            body_expressions(self._source.retry_when),
        )
        if error is not None:
            raise error

    async def _answered(self, call: Call, turn: Turn) -> Answer:
        shown = self.shown(call.url)
        try:
            async with asyncio.timeout(self._source.timeouts.request_s) as timer:
                turn.may_be_cut(timer)
                return await self._authorised(call, _Timed(turn, timer))
        except TimeoutError as error:
            raise self._timed_out(shown, error) from error
        except (aiohttp.ClientError, OSError) as error:
            # Not `from error`: aiohttp's errors hold the URL with our key in it, and a trace shows causes.
            raise self._translated(shown, error) from None

    async def _authorised(self, call: Call, turn: _Timed) -> Answer:
        """The call with a token, where one is needed; with another one, once, when the first is refused."""
        if self._tokens is None or not self._credentials.trusts(call.url):
            return await self._followed(call, turn)
        token = await self._tokens.current()
        self._credentials = self._credentials.bearing(token)
        try:
            return await self._followed(call, turn)
        except AuthenticationRefused as error:
            if error.status != 401 or not error.credentials_sent:
                raise
        self._credentials = self._credentials.bearing(await self._tokens.instead_of(token))
        await turn.again()
        return await self._followed(call, turn)

    async def _token_for(self, ask: TokenAsk) -> Token:
        """Ask a token endpoint. It is guarded as any other address, and no redirect takes the secret elsewhere."""
        self._guard.check_url(ask.url, ask.shown)
        asked_at = time.monotonic()
        try:
            async with self._opened().post(
                ask.url,
                data=ask.body,
                headers={**_DEFAULT_HEADERS, **ask.headers, "Accept-Encoding": "identity"},
                allow_redirects=False,
            ) as response:
                if response.status in _REDIRECTS:
                    reason = f"the token endpoint answered {response.status}; name the address it leads to"
                    raise RedirectRefused(ask.shown, reason)
                body = await _at_most(response, _MAX_TOKEN_BYTES)
        except aiohttp.ServerTimeoutError as error:
            raise self._timed_out(ask.shown, error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._translated(ask.shown, error) from None
        if len(body) > _MAX_TOKEN_BYTES:
            allowed = f"at most {_MAX_TOKEN_BYTES} bytes"
            raise TokenUnusable(ask.shown, "answer", f"longer than {_MAX_TOKEN_BYTES} bytes", allowed)
        answer = TokenAnswer(status=response.status, headers=response.headers, body=body)
        return token_in(ask, answer, asked_at=asked_at, now=datetime.now(UTC))

    async def _followed(self, call: Call, turn: _Timed) -> Answer:
        for number in range(_MAX_REDIRECTS + 1):
            shown = self.shown(call.url)
            self._guard.check_url(call.url, shown)
            if number > 0:
                await turn.again()
            sent_at = time.monotonic()
            async with self._send(call) as response:
                turn.answered(response.status, response.headers)
                if response.status not in _REDIRECTS:
                    return await self._read(call, response, shown, sent_at)
                call = self._redirected(call, response, shown)
        raise RedirectRefused(shown, f"more than {_MAX_REDIRECTS} redirects")

    def _send(self, call: Call) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        headers = CIMultiDict(_DEFAULT_HEADERS)
        headers.update(self._credentials.headers_for(call.url, call.headers))
        headers.update(call.conditions)
        return self._opened().request(
            call.method,
            self._credentials.dress(call.url),
            headers=headers,
            data=call.body,
            allow_redirects=False,
        )

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("HttpClient is used outside of its `async with`")
        return self._session

    def _redirected(self, call: Call, response: aiohttp.ClientResponse, shown: str) -> Call:
        location = response.headers.get("Location")
        if not location:
            raise RedirectRefused(shown, f"answered {response.status} without a Location")
        try:
            named = self._credentials.strip(call.url.join(parse_url(location)))
        except ValueError as error:
            raise RedirectRefused(
                shown, f"answered {response.status} with a Location that is no URL"
            ) from error
        url = as_reached(named, base=self._base)
        if url == call.url:
            url = named  # it leads away from TLS on purpose
        # RFC 9110 15.4: 307 and 308 repeat the request.
        if response.status in (307, 308) or call.method == "GET":
            # What an answer is known by, it is known by at its own address.
            return replace(call, url=url, conditions={})
        return self._redirected_post(call, url, response.status, shown)

    def _redirected_post(self, call: Call, url: URL, status: int, shown: str) -> Call:
        match self._source.request.redirected_post:
            case "repeat":
                return replace(call, url=url, conditions={})
            case "get":
                headers = {
                    name: value for name, value in call.headers.items() if name.lower() != "content-type"
                }
                return replace(call, method="GET", url=url, headers=headers, body=None, conditions={})
        reason = (
            f"answered {status} to a POST, with the Location {self.shown(url)}: following it would be a GET without "
            "the body, which answers something else; name that address in connection and request.path, or declare "
            "request.redirected_post: repeat or get"
        )
        raise RedirectRefused(shown, reason)

    async def _read(self, call: Call, response: aiohttp.ClientResponse, shown: str, sent_at: float) -> Answer:
        """The answer, read to its end if it is a success or a condition may look at its body.

        Raises:
            AuthenticationRefused: Another token may help.
            CollectorError: It cannot be read.
        """
        success = _is_success(response.status, call)
        limit = self._source.limits.max_page_bytes
        if success:
            body, wire_bytes = await read_body(response, limit, shown)
        elif response.status in self._read_whole:
            body, wire_bytes = await read_whole(response, limit)
        else:
            body, wire_bytes = await read_beginning(response, min(limit, _ERROR_BODY_BYTES))
        answer = Answer(
            status=response.status,
            headers=response.headers,
            links=tuple(response.headers.getall("Link", ())),
            body=body,
            wire_bytes=wire_bytes,
            url=str(call.url),
            shown=shown,
            sent_at=sent_at,
            received_at=time.monotonic(),
            trusted=self._credentials.trusts(call.url),
            quote=self.quote,
        )
        if response.status == 401 and self._tokens is not None:
            error = refusal(answer, self._source, datetime.now(UTC))
            if isinstance(error, AuthenticationRefused):
                raise error
        return answer

    def _timed_out(self, shown: str, error: TimeoutError) -> CollectorError:
        timeouts = self._source.timeouts
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return RequestTimedOut(shown, "connect_s", timeouts.connect_s)
        if isinstance(error, aiohttp.SocketTimeoutError):
            return RequestTimedOut(shown, "read_s", timeouts.read_s)
        return RequestTimedOut(shown, "request_s", timeouts.request_s)

    def _translated(self, shown: str, error: aiohttp.ClientError | OSError) -> CollectorError:
        # aiohttp's texts hold URLs.
        text = _EXCERPT.sub("", str(error)).strip() or type(error).__name__
        reason = self.quote(text, _SHOWN_ERROR_CHARS)
        match error:
            case aiohttp.ClientConnectorCertificateError():
                return CertificateRefused(shown, reason)
            case aiohttp.ClientConnectorError():
                return HostUnreachable(shown, reason, elsewhere=(error.host, error.port) != self._own)
            case aiohttp.InvalidURL():
                return UrlRefused(shown, reason)
            case _:
                return ConnectionBroken(shown, reason)

    def shown(self, url: URL | str) -> str:
        """A URL as it may be shown, as far as anybody reads it: a cursor within may be as long as a server likes."""
        return self.quote(str(url), _SHOWN_URL_CHARS)

    def quote(self, text: str, limit: int, *, cut: bool = False) -> str:
        """See `answer.Quote`."""
        return mask_beginning(text, limit, secrets=self._credentials.secrets, cut=cut)

    def masked(self, value: Any) -> Any:
        """What a server said, without the secrets that were sent to it."""
        return mask(value, secrets=self._credentials.secrets, names=False)

    def mask_error(self, error: BaseException) -> None:
        """Mask the secrets of the connection, and the tokens got with them, in an error, in place."""
        mask_error(error, secrets=self._credentials.secrets)

    @contextlib.contextmanager
    def masking(self) -> Iterator[None]:
        """No error leaves the block with a secret."""
        try:
            yield
        except Exception as error:
            self.mask_error(error)
            raise

    def gives_away(self, text: str) -> bool:
        """Whether a text that is to be stored holds a key of the connection."""
        return self._credentials.gives_away(text)

    def link(self, url: str, path: str) -> str:
        """The address of a link as it may be stored, and as we reach it.

        It has no user info, and no key of ours that a server repeats in its links. One that a server writes without
        knowing its proxy is corrected.

        Args:
            url: As the server wrote it, absolute.
            path: What was asked for below the base URL.
        """
        return str(as_reached(self._credentials.strip(parse_url(url)), base=self._base, path=path))

    def fingerprint(self, call: Call) -> bytes:
        """What tells this call from others, without credentials and conditions."""
        url = str(self._credentials.strip(call.url))
        headers = self._credentials.plain_headers(call.url, call.headers)
        return fingerprint(call.method, url, headers, call.body, self._who)

    def described_call(self, call: Call) -> dict[str, Any]:
        """A call as it may be shown: method, url, headers."""
        trusted = self._credentials.trusts(call.url)
        headers = self._shown_headers.get((trusted, call.method))
        if headers is None:
            # The same for every page; masking is not.
            headers = mask(
                dict(self._credentials.headers_for(call.url, call.headers)), secrets=self._credentials.secrets
            )
            self._shown_headers[trusted, call.method] = headers
        if call.conditions:
            headers = {**headers, **self._shown_values(call.conditions)}
        return {"method": call.method, "url": self.shown(call.url), "headers": headers}

    def described_answer(self, answer: Answer) -> dict[str, Any]:
        """A response as it may be shown: status, url, headers of interest, size."""
        interesting = (
            (name, value)
            for name, value in answer.headers.items()
            if name.lower() in _SHOWN_HEADERS or "ratelimit" in name.lower()
        )
        return {
            "status": answer.status,
            "url": answer.shown,
            "headers": self._shown_values(dict(islice(interesting, _MOST_SHOWN_HEADERS))),
            "bytes": len(answer.body),
        }

    def _shown_values(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Headers whose values the other side has chosen: the beginning of each, masked before it is cut."""
        return {name: self._shown_value(name, value) for name, value in headers.items()}

    def _shown_value(self, name: str, value: str) -> str:
        if value and sounds_secret(name):
            return MASK
        searched = value[:_SEARCHED_HEADER_CHARS]
        return self.quote(searched, _SHOWN_HEADER_CHARS, cut=len(searched) < len(value))


def _is_success(status: int, call: Call) -> bool:
    return 200 <= status < 300 or (status == 304 and bool(call.conditions))


async def _at_most(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """The body as it travelled; one that is longer is cut somewhere behind the limit."""
    body = b""
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > limit_bytes:
            break
    return body
