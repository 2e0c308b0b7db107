"""The HTTP collector: walks through the pages of a shard, one ahead of its consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self, TypeVar

import orjson
from yarl import URL

from collect_ops.collectors.answer import Answer, records_of, required_total, search, total_in
from collect_ops.collectors.client import Call, Fetched, HttpClient
from collect_ops.collectors.conditional import (
    Known,
    Recall,
    Validator,
    contradicts,
    etag_of,
    last_modified_of,
)
from collect_ops.collectors.content import Records, RowReader, RowType, ShardReader, stands_beside
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import (
    PagingLoop,
    PagingValueUnusable,
    PositionUnusable,
    TooManyPages,
    UrlRefused,
)
from collect_ops.collectors.gate import Gate
from collect_ops.collectors.page import Page, Position, Span
from collect_ops.collectors.paging import Ask, LinkHeaderPager, Reply, Step, counts_rows, pager_for
from collect_ops.collectors.retry import RetryNotice
from collect_ops.collectors.urls import parse_url
from collect_ops.sources.expressions import LONG_EFFORT, compiled
from collect_ops.sources.model import (
    BodyTotal,
    CursorPaging,
    HeaderTotal,
    NextUrlPaging,
    RequestTotal,
    Source,
    UnknownTotal,
)
from collect_ops.sources.request import RenderedRequest
from collect_ops.sources.templates import text_of

T = TypeVar("T")

_EMPTY_PAGES_IN_A_ROW = 100
# A position is stored, sent and searched for secrets with every page; no API's cursors are longer.
_MAX_POSITION_BYTES = 16 * 1024
# Longer texts are searched in a thread: an event loop that stands still renews no lease.
_SEARCHED_HERE_BYTES = 1024
_EXCERPT_CHARS = 200
# A longer entity tag is not remembered.
_MAX_VALIDATOR_CHARS = 1024


@dataclass(slots=True, kw_only=True)
class _Run:
    """What one walk through a span remembers: to notice when it goes in circles."""

    span: Span
    request: RenderedRequest
    recall: Recall | None = None
    reader: ShardReader | None = None
    seen: set[int] = field(default_factory=set)
    requests: int = 0
    empty_in_a_row: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Got:
    """What a page holds, or held when it is unchanged."""

    records: Sequence[Any]
    reply: Reply
    unchanged: Validator | None = None


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
        gate: Gives out turns at the host; None: of this collector alone, within concurrency and requests_per_s.
        row_type: What pages are read as, where their records are simply the objects of a list; None parses them.

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
        gate: Gate | None = None,
        row_type: RowType | None = None,
    ) -> None:
        self._source = source
        self._request = request
        self._base_url = endpoint.base_url.rstrip("/")
        self._pager = pager_for(source)
        self._expressions = page_expressions(source)
        self._reader = _row_reader(source, row_type)
        self._ahead: set[asyncio.Task[Page | None]] = set()
        self._client = HttpClient(
            source,
            endpoint,
            concurrency=concurrency or source.limits.concurrency,
            requests_per_s=requests_per_s or source.limits.requests_per_s,
            on_retry=on_retry,
            gate=gate,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await _cancel(self._ahead)
        await self._client.__aexit__(kind, error, trace)
        if error is not None:
            self.mask_error(error)

    def mask_error(self, error: BaseException) -> None:
        """Mask the source's secrets in an error that what the server said has led to, in place."""
        self._client.mask_error(error)

    def masked(self, value: Any) -> Any:
        """What the server said, as it may be shown."""
        return self._client.masked(value)

    def excerpt(self, value: Any) -> Any:
        """The same of a value of which nobody reads more than the beginning."""
        if value is None or isinstance(value, bool | int | float):
            return self._client.masked(value)
        return self._client.quote(value if isinstance(value, str) else repr(value), _EXCERPT_CHARS)

    async def total(self, counting: RenderedRequest | None = None) -> int | None:
        """How many rows the source has, asked in the way the source says.

        Args:
            counting: The count request, when it is another one than that of the source's request.

        Returns:
            The total; None when the source declares it unknown, or the server says that it does not know.

        Raises:
            CollectorError: The request failed, or what it gave is no total.
        """
        match self._source.total:
            case UnknownTotal():
                return None
            case RequestTotal():
                counting = counting or self._request.total
                if counting is None:
                    raise ValueError("the request was not rendered from this source: it has no count request")
                call = self._rendered(counting)
            case _:
                call = self._call(self._request, self._pager.probe())
        fetched = await self._client.fetch(call)
        with self._client.masking():
            return await self._beside(
                lambda: required_total(fetched.document, self._source, fetched.answer),
                fetched,
                total_expressions(self._source),
            )

    def shown(self, request: RenderedRequest) -> str:
        """A request of its own (a total's, a range's) as it may be shown."""
        return f"{request.method} {self._client.shown(self._rendered(request).url)}"

    async def values(self, request: RenderedRequest, expressions: Mapping[str, str]) -> list[Any]:
        """What expressions find in the answer to a request of its own.

        Args:
            request: The request.
            expressions: JMESPath by the field that declares it.

        Raises:
            CollectorError: The request failed, or an expression cannot be applied.
        """
        fetched = await self._client.fetch(self._rendered(request))
        with self._client.masking():
            return await self._beside(
                lambda: [
                    search(field, expression, fetched.document, fetched.answer.shown)
                    for field, expression in expressions.items()
                ],
                fetched,
                expressions.values(),
            )

    async def pages(
        self,
        span: Span,
        position: Position | None = None,
        request: RenderedRequest | None = None,
        *,
        recall: Recall | None = None,
    ) -> AsyncGenerator[Page, None]:
        """The pages of a span, in order; the next one is fetched while the consumer works on the current one.

        A failure to fetch the next page is raised when the consumer asks for it, after the pages before it.
        A span that is finished at `position` gives none. Close the iterator when leaving it early
        (`contextlib.aclosing`).

        Args:
            span: The shard's range; paging that cannot be split takes it all.
            position: `next_position` of the last page that was kept; None to begin.
            request: What the shard asks for, when it is another request than the others'.
            recall: What is known of pages that have landed: they are asked for only if they have changed. None
                fetches every page.

        Raises:
            CollectorError: One of its subclasses says what is wrong; `Transient` or `Permanent` whether it
            stays so.
        """
        reader = None if self._reader is None else ShardReader(self._reader)
        run = _Run(span=span, request=request or self._request, recall=recall, reader=reader)
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
        task = asyncio.create_task(self._masked_page(run, position))
        self._ahead.add(task)
        task.add_done_callback(self._ahead.discard)
        return task

    async def _masked_page(self, run: _Run, position: Position) -> Page | None:
        with self._client.masking():
            return await self._page(run, position)

    async def _page(self, run: _Run, position: Position) -> Page | None:
        number = position.get("page", 0)
        if not isinstance(number, int) or number < 0:
            raise PositionUnusable(
                self._client.shown(self._base_url), "page", number, "a whole number, 0 or more"
            )
        attempts, wire_bytes = 1, 0
        while True:
            call = self._next_call(run, position, number)
            if call is None:
                return None
            call, known = await self._conditional(run, call)
            fetched = await self._client.fetch(call, run.reader)
            attempts += fetched.attempts - 1
            wire_bytes += fetched.answer.wire_bytes
            if _means_another(fetched, known):
                call = replace(call, conditions={})
                fetched = await self._client.fetch(call, run.reader)
                attempts += fetched.attempts
                wire_bytes += fetched.answer.wire_bytes
            got, step = await self._looked_through(run, position, fetched, known)
            if not step.discard or step.next is None:
                break
            position = step.next
        following = await self._following(run, step.next, number + 1, empty=got.reply.rows == 0)
        kept = range(got.reply.rows)[step.first : step.stop]
        records = got.records
        if not got.unchanged and len(kept) < len(records):
            records = records[step.first : step.stop]
        answer = fetched.answer
        return Page(
            records=records,
            raw=answer.body,
            sent_at=answer.sent_at,
            received_at=answer.received_at,
            number=number,
            next_position=following,
            total=got.reply.total,
            wire_bytes=wire_bytes,
            attempts=attempts,
            request=self._client.described_call(call),
            response=self._client.described_answer(answer),
            unchanged_rows=len(kept) if got.unchanged else None,
            known=self._known(known, got, call, answer, following, whole=len(kept) == got.reply.rows),
        )

    async def _conditional(self, run: _Run, call: Call) -> tuple[Call, Known | None]:
        """The call, asking for its page only if it has changed from what is known of it."""
        if run.recall is None:
            return call, None
        request = self._client.fingerprint(call)
        validator = await run.recall(request)
        conditions = {} if validator is None else validator.headers
        return replace(call, conditions=conditions), Known(request=request, validator=validator)

    async def _looked_through(
        self, run: _Run, position: Position, fetched: Fetched, known: Known | None
    ) -> tuple[_Got, Step]:
        """What a page holds, and where paging goes on; in a thread what may take long."""

        def look() -> tuple[_Got, Step]:
            got = self._got(run, fetched, known)
            return got, self._step(run, position, got)

        return await self._beside(look, fetched, self._expressions)

    async def _beside(self, look: Callable[[], T], fetched: Fetched, expressions: Iterable[str]) -> T:
        size_bytes = len(fetched.answer.body)
        effort = sum(compiled(expression).effort(size_bytes) for expression in expressions)
        return await asyncio.to_thread(look) if effort >= LONG_EFFORT else look()

    def _got(self, run: _Run, fetched: Fetched, known: Known | None) -> _Got:
        answer, rows = fetched.answer, fetched.content.rows
        validator = None if known is None else known.validator
        if answer.status == 304 and validator is not None:
            # An entity tag may be of the body alone (RFC 9110 8.8.3): what a header says is not remembered with it.
            in_header = isinstance(self._source.total, HeaderTotal)
            reply = Reply(
                rows=validator.rows,
                links=answer.links,
                url=answer.url,
                shown=answer.shown,
                total=total_in(None, self._source, answer) if in_header else validator.total,
            )
            return _Got(records=[], reply=reply, unchanged=validator)
        records: Sequence[Any]
        if rows is not None and run.reader is not None:
            document = rows.envelope
            records = Records(
                rows.row_type,
                rows.rows,
                lambda: records_of(fetched.document, self._source, answer),
                run.reader.odd,
            )
        else:
            document = fetched.document
            records = records_of(document, self._source, answer)
        reply = Reply(
            rows=len(records),
            document=document,
            links=answer.links,
            url=answer.url,
            shown=answer.shown,
            total=total_in(document, self._source, answer),
        )
        return _Got(records=records, reply=reply)

    def _step(self, run: _Run, position: Position, got: _Got) -> Step:
        in_links = isinstance(self._pager, LinkHeaderPager) and got.reply.links
        if got.unchanged is None or counts_rows(self._pager) or in_links:
            return self._pager.step(run.span, position, got.reply)
        return Step(next=got.unchanged.following)

    def _known(
        self,
        known: Known | None,
        got: _Got,
        call: Call,
        answer: Answer,
        following: dict[str, Any] | None,
        *,
        whole: bool,
    ) -> Known | None:
        """What the page is to be known by from now on.

        Nothing, when only a part of it is the shard's, when it is empty (where paging goes on then depends on what was
        asked before), when another address has answered, or when it is the last one for want of a Link header: a next
        page makes another header, and may leave body and entity tag as they are.
        """
        if known is None or got.unchanged is not None:
            return known
        etag, last_modified = etag_of(answer.headers), last_modified_of(answer.headers)
        nameless = etag is None and last_modified is None
        stored = f"{etag} {last_modified}"
        last_by_header = following is None and isinstance(self._pager, LinkHeaderPager)
        if (
            nameless
            or len(stored) > _MAX_VALIDATOR_CHARS
            or self._client.gives_away(stored)
            or not whole
            or got.reply.rows == 0
            or last_by_header
            or answer.url != str(call.url)
        ):
            return replace(known, validator=None)
        after = None if following is None or counts_rows(self._pager) else {**following}
        if after is not None:
            del after["page"]
        validator = Validator(
            etag=etag,
            last_modified=last_modified,
            rows=got.reply.rows,
            total=got.reply.total,
            following=after,
        )
        return replace(known, validator=validator)

    def _next_call(self, run: _Run, position: Position, number: int) -> Call | None:
        """The call for a position, once it is sure that it leads somewhere new."""
        try:
            ask = self._pager.ask(run.span, position)
        except PositionUnusable as error:
            raise error.at(self._client.shown(self._base_url)) from error
        if ask is None:
            return None
        call = self._call(run.request, ask)
        limit = self._source.limits.max_pages
        if number >= limit or run.requests >= limit:
            raise TooManyPages(self._client.shown(call.url), limit)
        if call.key in run.seen:
            raise PagingLoop(self._client.shown(call.url), "this page was fetched before")
        run.seen.add(call.key)
        run.requests += 1
        return call

    async def _following(
        self, run: _Run, position: dict[str, Any] | None, number: int, *, empty: bool
    ) -> dict[str, Any] | None:
        run.empty_in_a_row = run.empty_in_a_row + 1 if empty else 0
        if position is None:
            return None
        if isinstance(position.get("url"), str):
            # Positions are stored: no key of ours that the server repeats in its links.
            position = {**position, "url": self._client.without_credentials(position["url"])}
        stored = orjson.dumps(position).decode()
        if len(stored) > _MAX_POSITION_BYTES:
            raise PagingValueUnusable(
                self._client.shown(self._base_url),
                self._source.paging.type,
                f"something longer than {_MAX_POSITION_BYTES} characters",
                f"a cursor or an address of at most {_MAX_POSITION_BYTES} characters: positions are stored",
            )
        if await self._gives_away(stored):
            raise PagingValueUnusable(
                self._client.shown(self._base_url),
                self._source.paging.type,
                "something that holds a secret of the connection",
                "a cursor or an address without it: positions are stored",
            )
        if empty:
            ask = self._pager.ask(run.span, position)
            call = None if ask is None else self._call(run.request, ask)
            if call is None or call.key in run.seen:
                # An empty page that names itself, or one before it, is how some servers say "the end".
                return None
            if run.empty_in_a_row >= _EMPTY_PAGES_IN_A_ROW:
                raise PagingLoop(
                    self._client.shown(call.url), f"{run.empty_in_a_row} pages in a row were empty"
                )
        return {**position, "page": number}

    async def _gives_away(self, text: str) -> bool:
        if len(text) <= _SEARCHED_HERE_BYTES:
            return self._client.gives_away(text)
        return await asyncio.to_thread(self._client.gives_away, text)

    def _url(self, path: str, query: Mapping[str, tuple[str, ...]]) -> URL:
        # The path is percent-encoded already, by the one who knows what in it is a value.
        url = URL(f"{self._base_url}/{path.removeprefix('/')}", encoded=True)
        return url.extend_query([(name, value) for name, values in query.items() for value in values])

    def _call(self, request: RenderedRequest, ask: Ask) -> Call:
        params = {name: value for name, value in ask.params.items() if ask.location == "query"}
        query = {**request.query, **{name: (text_of(value),) for name, value in params.items()}}
        body = request.body
        if ask.location == "body" and ask.params:
            # A source whose paging goes into the body declares an object, or nothing.
            body = {**(body or {}), **ask.params}
        call = self._rendered(replace(request, query=query, body=body))
        return call if ask.url is None else replace(call, url=self._absolute(ask.url))

    def _rendered(self, request: RenderedRequest) -> Call:
        headers = dict(request.headers)
        if request.body is not None:
            headers = {"Content-Type": "application/json", **headers}
        return Call(
            method=request.method,
            url=self._url(request.path, request.query),
            headers=headers,
            body=None if request.body is None else orjson.dumps(request.body),
        )

    def _absolute(self, text: str) -> URL:
        try:
            return parse_url(text)
        except ValueError as error:
            raise UrlRefused(self._client.shown(text), str(error)) from error


def _row_reader(source: Source, row_type: RowType | None) -> RowReader | None:
    """Reads pages as rows where nothing is looked for in the rows themselves."""
    _, *others = page_expressions(source)
    if not all(stands_beside(expression, source.records) for expression in others):
        return None
    return RowReader.of(row_type, source.records, source.limits.max_depth)


def total_expressions(source: Source) -> tuple[str, ...]:
    """What finds the total in a body."""
    match source.total:
        case BodyTotal(path=path):
            return (path,)
        case RequestTotal(value=path):
            return (path,)
    return ()


def page_expressions(source: Source) -> tuple[str, ...]:
    """What is looked for in the body of every page."""
    in_pages = () if isinstance(source.total, RequestTotal) else total_expressions(source)
    match source.paging:
        case CursorPaging(cursor=path) | NextUrlPaging(next_url=path):
            return (source.records, *in_pages, path)
    return (source.records, *in_pages)


def _means_another(fetched: Fetched, known: Known | None) -> bool:
    """Whether "not modified" cannot be said of the page that we know: its tag is another's."""
    validator = None if known is None else known.validator
    return (
        validator is not None
        and fetched.answer.status == 304
        and contradicts(fetched.answer.headers, validator)
    )


async def _cancel(tasks: set[asyncio.Task[Page | None]]) -> None:
    waiting = list(tasks)
    for task in waiting:
        task.cancel()
    # Their failures were never asked for: the consumer has left.
    await asyncio.gather(*waiting, return_exceptions=True)
