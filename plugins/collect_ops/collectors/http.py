"""The HTTP collector: asks a source's server for the pages of a shard."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from multidict import CIMultiDict
from yarl import URL

from collect_ops import __version__
from collect_ops.collectors.answer import (
    Answer,
    beginning_of,
    document_of,
    records_of,
    refusal,
    required_total,
    total_in,
)
from collect_ops.collectors.credentials import Credentials
from collect_ops.collectors.decoding import BrokenEncoding, OverLimit, decoder_for
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import (
    CertificateRefused,
    CollectorError,
    ConnectionBroken,
    EncodingUnknown,
    HostBusy,
    HostUnreachable,
    PageTooLarge,
    PagingLoop,
    PositionUnusable,
    RedirectRefused,
    RequestTimedOut,
    TooManyPages,
    UrlRefused,
)
from collect_ops.collectors.guard import Guard, GuardedResolver
from collect_ops.collectors.pacing import Pacer
from collect_ops.collectors.page import Page, Position, Span
from collect_ops.collectors.paging import Ask, Reply, pager_for
from collect_ops.collectors.retry import RetryNotice, wait_before_retry
from collect_ops.kernel.masking import mask
from collect_ops.sources.model import RequestTotal, Source, UnknownTotal
from collect_ops.sources.request import RenderedRequest
from collect_ops.sources.templates import text_of

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_EMPTY_PAGES_IN_A_ROW = 100
# aiohttp's 64 KiB would pause the socket two dozen times in a page of 1.5 MB.
_READ_BUFFER_BYTES = 256 * 1024
# Cursors in links grow beyond aiohttp's 8 KiB.
_MAX_HEADER_BYTES = 64 * 1024
_ERROR_BODY_BYTES = 4096
_SHOWN_HEADERS = (
    "content-type",
    "content-encoding",
    "content-length",
    "date",
    "etag",
    "last-modified",
    "server",
)
_DEFAULT_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": f"collect-ops/{__version__}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A request as it is sent, before credentials."""

    method: str
    url: URL
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    @property
    def key(self) -> int:
        return hash((self.method, self.url, self.body))


@dataclass(slots=True, kw_only=True)
class _Run:
    """What one walk through a span remembers: to notice when it goes in circles."""

    span: Span
    seen: set[int] = field(default_factory=set)
    requests: int = 0
    empty_in_a_row: int = 0


class HttpCollector:
    """Fetches the pages of a source's shards; an async context manager around one keep-alive HTTP client.

    One collector serves many spans at the same time; its limits hold for all of them together.

    Args:
        source: The source.
        request: The source's request with its parameters filled in.
        endpoint: The connection's base URL and credentials.
        concurrency: Requests under way at most; None takes the source's.
        requests_per_s: Requests a second at most; None takes the source's.
        on_retry: Told of every request that is tried again.

    Raises:
        CredentialsMissing: The connection lacks what the source's authentication needs.
    """

    def __init__(
        self,
        source: Source,
        request: RenderedRequest,
        endpoint: Endpoint,
        *,
        concurrency: int | None = None,
        requests_per_s: float | None = None,
        on_retry: Callable[[RetryNotice], None] | None = None,
    ) -> None:
        self._source = source
        self._request = request
        self._endpoint = endpoint
        self._on_retry = on_retry
        self._credentials = Credentials.of(source, endpoint)
        self._guard = Guard(allow_private=endpoint.allow_private_networks)
        self._pager = pager_for(source)
        self._concurrency = concurrency or source.limits.concurrency
        self._slots = asyncio.Semaphore(self._concurrency)
        self._pacer = Pacer(requests_per_s or source.limits.requests_per_s)
        self._ahead: set[asyncio.Task[Page | None]] = set()
        self._client: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeouts = self._source.timeouts
        # The cookie jar is a dummy: what one source sets must not follow us to another request.
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._concurrency, resolver=GuardedResolver(self._guard), use_dns_cache=False
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
        await _cancel(self._ahead)
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def total(self) -> int | None:
        """How many rows the source has, asked in the way the source says.

        Returns:
            The total; None when the source declares it unknown, or the server says that it does not know.

        Raises:
            CollectorError: The request failed, or what it gave is no total.
        """
        match self._source.total:
            case UnknownTotal():
                return None
            case RequestTotal(path=path, query=query):
                call = _Call(method="GET", url=self._url(path, _texts(query)), headers=self._request.headers)
            case _:
                call = self._call(self._pager.probe())
        answer, document, _ = await self._fetch(call)
        return required_total(document, self._source, answer)

    async def pages(self, span: Span, position: Position | None = None) -> AsyncGenerator[Page, None]:
        """The pages of a span, in order; the next one is fetched while the consumer works on the current one.

        A failure to fetch the next page is raised when the consumer asks for it, after the pages before it.
        A span that is finished at `position` gives none. Close the iterator when leaving it early
        (`contextlib.aclosing`).

        Args:
            span: The shard's range; paging that cannot be split takes it all.
            position: `next_position` of the last page that was kept; None to begin.

        Raises:
            CollectorError: One of its subclasses says what is wrong; `Transient` or `Permanent` whether it
            stays so.
        """
        run = _Run(span=span)
        current: asyncio.Task[Page | None] | None
        current = self._start(run, self._pager.begin(span) if position is None else position)
        try:
            while current is not None:
                page = await current
                if page is None:
                    return
                following = page.next_position
                current = None if following is None else self._start(run, following)
                yield page
        finally:
            if current is not None:
                await _cancel({current})

    def _start(self, run: _Run, position: Position) -> asyncio.Task[Page | None]:
        task = asyncio.create_task(self._page(run, position))
        self._ahead.add(task)
        task.add_done_callback(self._ahead.discard)
        return task

    async def _page(self, run: _Run, position: Position) -> Page | None:
        number = position.get("page", 0)
        if not isinstance(number, int) or number < 0:
            raise PositionUnusable(self._shown(self._base()), "page", number, "a whole number, 0 or more")
        attempts = wire_bytes = 0
        while True:
            call = self._next_call(run, position, number)
            if call is None:
                return None
            answer, document, tried = await self._fetch(call)
            attempts += tried
            wire_bytes += answer.wire_bytes
            records = records_of(document, self._source, answer)
            total = total_in(document, self._source, answer)
            reply = Reply(
                rows=len(records),
                document=document,
                links=answer.links,
                url=answer.url,
                shown=answer.shown,
                total=total,
            )
            step = self._pager.step(run.span, position, reply)
            if not step.discard or step.next is None:
                break
            position = step.next
        if step.first or (step.stop is not None and step.stop < len(records)):
            records = records[step.first : step.stop]
        following = self._following(run, step.next, number + 1, empty=reply.rows == 0)
        return Page(
            records=records,
            raw=answer.body,
            sent_at=answer.sent_at,
            received_at=answer.received_at,
            number=number,
            next_position=following,
            total=total,
            wire_bytes=wire_bytes,
            attempts=attempts,
            request=self._described_call(call),
            response=self._described_answer(answer),
        )

    def _next_call(self, run: _Run, position: Position, number: int) -> _Call | None:
        """The call for a position, once it is sure that it leads somewhere new."""
        try:
            ask = self._pager.ask(run.span, position)
        except PositionUnusable as error:
            raise error.at(self._shown(self._base())) from error
        if ask is None:
            return None
        call = self._call(ask)
        limit = self._source.limits.max_pages
        if number >= limit or run.requests >= limit:
            raise TooManyPages(self._shown(call.url), limit)
        if call.key in run.seen:
            raise PagingLoop(self._shown(call.url), "this page was fetched before")
        run.seen.add(call.key)
        run.requests += 1
        return call

    def _following(
        self, run: _Run, position: dict[str, Any] | None, number: int, *, empty: bool
    ) -> dict[str, Any] | None:
        run.empty_in_a_row = run.empty_in_a_row + 1 if empty else 0
        if position is None:
            return None
        if isinstance(position.get("url"), str):
            # Positions are stored: no key of ours that the server repeats in its links.
            position = {**position, "url": str(self._credentials.strip(URL(position["url"])))}
        if empty:
            ask = self._pager.ask(run.span, position)
            call = None if ask is None else self._call(ask)
            if call is None or call.key in run.seen:
                # An empty page that names itself, or one before it, is how some servers say "the end".
                return None
            if run.empty_in_a_row >= _EMPTY_PAGES_IN_A_ROW:
                raise PagingLoop(self._shown(call.url), f"{run.empty_in_a_row} pages in a row were empty")
        return {**position, "page": number}

    def _base(self) -> URL:
        return URL(self._endpoint.base_url)

    def _url(self, path: str, query: Mapping[str, tuple[str, ...]]) -> URL:
        # The path is percent-encoded already, by the one who knows what in it is a value.
        url = URL(f"{self._endpoint.base_url.rstrip('/')}/{path.removeprefix('/')}", encoded=True)
        return url.extend_query([(name, value) for name, values in query.items() for value in values])

    def _call(self, ask: Ask) -> _Call:
        request = self._request
        if ask.url is not None:
            url = self._absolute(ask.url)
        else:
            query = dict(request.query)
            if ask.location == "query":
                query |= {name: (text_of(value),) for name, value in ask.params.items()}
            url = self._url(request.path, query)
        body = request.body
        if ask.location == "body" and ask.params:
            body = {**(body if isinstance(body, Mapping) else {}), **ask.params}
        headers = dict(request.headers)
        if body is not None:
            headers = {"Content-Type": "application/json", **headers}
        return _Call(
            method=request.method,
            url=url,
            headers=headers,
            body=None if body is None else orjson.dumps(body),
        )

    def _absolute(self, text: str) -> URL:
        try:
            return URL(text)
        except ValueError as error:
            raise UrlRefused(mask(text, secrets=self._credentials.secrets), str(error)) from error

    async def _fetch(self, call: _Call) -> tuple[Answer, Any, int]:
        """The answer, its document, and how many attempts it took."""
        retries = self._source.retries
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await self._exchange(call)
                return answer, document_of(answer, self._source), attempt
            except CollectorError as error:
                wait_s = wait_before_retry(error, attempt, retries, random.random)
                if wait_s is None:
                    raise
                if isinstance(error, HostBusy) and error.retry_after_s is not None:
                    self._pacer.hold(error.retry_after_s)
                if self._on_retry is not None:
                    notice = RetryNotice(
                        attempt=attempt, attempts=retries.http_attempts, wait_s=wait_s, error=error
                    )
                    self._on_retry(notice)
            await asyncio.sleep(wait_s)

    async def _exchange(self, call: _Call) -> Answer:
        """One attempt: the request, its redirects, and a success read to its end."""
        limit_s = self._source.timeouts.request_s
        shown = self._shown(call.url)
        async with self._slots:
            await self._pacer.turn()
            try:
                async with asyncio.timeout(limit_s):
                    return await self._followed(call)
            except TimeoutError as error:
                raise self._timed_out(shown, error) from error
            except (aiohttp.ClientError, OSError) as error:
                raise self._translated(shown, error) from error

    async def _followed(self, call: _Call) -> Answer:
        for _ in range(_MAX_REDIRECTS + 1):
            shown = self._shown(call.url)
            self._guard.check_url(call.url, shown)
            sent_at = time.monotonic()
            async with self._send(call) as response:
                if response.status not in _REDIRECTS:
                    return await self._read(call, response, shown, sent_at)
                call = self._redirected(call, response, shown)
        raise RedirectRefused(shown, f"more than {_MAX_REDIRECTS} redirects")

    def _send(self, call: _Call) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._client is None:
            raise RuntimeError("HttpCollector is used outside of its `async with`")
        headers = CIMultiDict(_DEFAULT_HEADERS)
        headers.update(self._credentials.headers_for(call.url, call.headers))
        return self._client.request(
            call.method,
            self._credentials.dress(call.url),
            headers=headers,
            data=call.body,
            allow_redirects=False,
        )

    def _redirected(self, call: _Call, response: aiohttp.ClientResponse, shown: str) -> _Call:
        location = response.headers.get("Location")
        if not location:
            raise RedirectRefused(shown, f"answered {response.status} without a Location")
        try:
            url = self._credentials.strip(call.url.join(URL(location)).with_fragment(None))
        except ValueError as error:
            raise RedirectRefused(
                shown, f"answered {response.status} with a Location that is no URL"
            ) from error
        # RFC 9110 15.4: 307 and 308 repeat the request; after the others a POST becomes a GET, as every
        # client does.
        if response.status in (307, 308) or call.method == "GET":
            return replace(call, url=url)
        headers = {name: value for name, value in call.headers.items() if name.lower() != "content-type"}
        return _Call(method="GET", url=url, headers=headers)

    async def _read(
        self, call: _Call, response: aiohttp.ClientResponse, shown: str, sent_at: float
    ) -> Answer:
        success = 200 <= response.status < 300
        limit = self._source.limits.max_page_bytes
        body, wire_bytes = await (
            _body(response, limit, shown) if success else _beginning(response, min(limit, _ERROR_BODY_BYTES))
        )
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
        )
        if success:
            return answer
        beginning = mask(beginning_of(body), secrets=self._credentials.secrets)
        raise refusal(answer, self._source, beginning, datetime.now(UTC))

    def _timed_out(self, shown: str, error: TimeoutError) -> CollectorError:
        timeouts = self._source.timeouts
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return RequestTimedOut(shown, "connect_s", timeouts.connect_s)
        if isinstance(error, aiohttp.SocketTimeoutError):
            return RequestTimedOut(shown, "read_s", timeouts.read_s)
        return RequestTimedOut(shown, "request_s", timeouts.request_s)

    def _translated(self, shown: str, error: aiohttp.ClientError | OSError) -> CollectorError:
        # aiohttp's texts hold URLs.
        reason = mask(str(error) or type(error).__name__, secrets=self._credentials.secrets)
        match error:
            case aiohttp.ClientConnectorCertificateError():
                return CertificateRefused(shown, reason)
            case aiohttp.ClientConnectorError():
                return HostUnreachable(shown, reason)
            case aiohttp.InvalidURL():
                return UrlRefused(shown, reason)
            case _:
                return ConnectionBroken(shown, reason)

    def _shown(self, url: URL) -> str:
        shown: str = mask(str(url), secrets=self._credentials.secrets)
        return shown

    def _described_call(self, call: _Call) -> dict[str, Any]:
        headers = self._credentials.headers_for(call.url, call.headers)
        described: dict[str, Any] = mask(
            {"method": call.method, "url": str(call.url), "headers": dict(headers)},
            secrets=self._credentials.secrets,
        )
        return described

    def _described_answer(self, answer: Answer) -> dict[str, Any]:
        interesting = {
            name: value
            for name, value in answer.headers.items()
            if name.lower() in _SHOWN_HEADERS or "ratelimit" in name.lower()
        }
        described: dict[str, Any] = mask(
            {"status": answer.status, "url": answer.shown, "headers": interesting, "bytes": len(answer.body)},
            secrets=self._credentials.secrets,
        )
        return described


async def _body(response: aiohttp.ClientResponse, limit_bytes: int, shown: str) -> tuple[bytes, int]:
    """The decompressed body and its size on the wire; never more than the limit in memory."""
    encoding = response.headers.get("Content-Encoding", "")
    decoder = decoder_for(encoding, limit_bytes)
    if decoder is None:
        raise EncodingUnknown(shown, encoding)
    if response.content_length is not None and response.content_length > limit_bytes:
        raise PageTooLarge(shown, limit_bytes, response.content_length)
    wire_bytes = 0
    try:
        async for piece in response.content.iter_any():
            wire_bytes += len(piece)
            decoder.feed(piece)
        return decoder.finish(), wire_bytes
    except OverLimit as error:
        raise PageTooLarge(shown, limit_bytes, None) from error
    except BrokenEncoding as error:
        raise ConnectionBroken(shown, f"content encoding {encoding}: {error}") from error


async def _beginning(response: aiohttp.ClientResponse, limit_bytes: int) -> tuple[bytes, int]:
    """The beginning of an error's body; it only explains, so what cannot be read of it does not matter."""
    if decoder_for(response.headers.get("Content-Encoding", ""), 0) is None or response.headers.get(
        "Content-Encoding"
    ):
        return b"", 0
    try:
        body = await response.content.read(limit_bytes)
    except (aiohttp.ClientError, OSError, TimeoutError):
        body = b""
    return body, len(body)


async def _cancel(tasks: set[asyncio.Task[Page | None]]) -> None:
    waiting = list(tasks)
    for task in waiting:
        task.cancel()
    # Their failures were never asked for: the consumer has left.
    await asyncio.gather(*waiting, return_exceptions=True)


def _texts(query: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    lists = {name: value if isinstance(value, list) else [value] for name, value in query.items()}
    return {name: tuple(text_of(item) for item in items if item is not None) for name, items in lists.items()}
