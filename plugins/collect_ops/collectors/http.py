"""The HTTP collector: walks through the pages of a shard, one ahead of its consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from yarl import URL

from collect_ops.collectors.answer import (
    Answer,
    beside,
    counted_in,
    records_of,
    says_more,
    search,
    selected,
    total_in,
    words_of,
)
from collect_ops.collectors.client import Call, Fetched, HttpClient
from collect_ops.collectors.conditional import (
    Known,
    Recall,
    Validator,
    contradicts,
    etag_of,
    last_modified_of,
)
from collect_ops.collectors.conditions import body_expressions
from collect_ops.collectors.content import Content, Records, RowReader, RowType, ShardReader, stands_beside
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.ends import NOTHING_THERE, Ends
from collect_ops.collectors.errors import (
    CollectorError,
    NextPageMissing,
    PageNotThere,
    PagingLoop,
    PagingValueUnusable,
    PositionUnusable,
    ResumeRefused,
    TooManyPages,
    UrlRefused,
)
from collect_ops.collectors.gate import Gate
from collect_ops.collectors.page import Page, Position, Span
from collect_ops.collectors.paging import (
    Ask,
    LinkHeaderPager,
    Reply,
    Step,
    counts_rows,
    pager_for,
    place_of_next,
)
from collect_ops.collectors.repeated_pages import PagePrints
from collect_ops.collectors.request_body import written
from collect_ops.collectors.retry import RetryNotice
from collect_ops.collectors.totals import NamedTotal, is_at_least
from collect_ops.collectors.urls import parse_url
from collect_ops.collectors.walk import OWN_FIELDS, Got, Looked, Walk
from collect_ops.kernel.json_text import Unwritable, json_bytes
from collect_ops.sources.model import (
    BodyTotal,
    CursorPaging,
    HeaderTotal,
    LinkHeaderPaging,
    NextUrlPaging,
    RequestTotal,
    Source,
    UnknownTotal,
)
from collect_ops.sources.paging_rules import nested_path
from collect_ops.sources.request import RenderedRequest
from collect_ops.sources.templates import text_of

T = TypeVar("T")

# A position is stored, sent and searched for secrets with every page; no API's cursors are longer.
_MAX_POSITION_BYTES = 16 * 1024
# Longer texts are searched in a thread: an event loop that stands still renews no lease.
_SEARCHED_HERE_BYTES = 1024
_EXCERPT_CHARS = 200
# A longer entity tag is not remembered.
_MAX_VALIDATOR_CHARS = 1024
# Remembered of a page of counted paging that said itself that it is the last one.
_ENDED: Final = {"ended": True}


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
        self._prints = PagePrints(source, row_type)
        self._ends = Ends(source)
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
        """How many rows the source has; None where it does not say. See `named_total`."""
        return (await self.named_total(counting)).rows

    async def named_total(self, counting: RenderedRequest | None = None) -> NamedTotal:
        """What the source says of its number of rows, asked in the way that it declares.

        Args:
            counting: The count request, when it is another one than that of the source's request.

        Raises:
            CollectorError: The request failed, or the path to the total cannot be applied.
        """
        match self._source.total:
            case UnknownTotal():
                return NamedTotal()
            case RequestTotal():
                counting = counting or self._request.total
                if counting is None:
                    raise ValueError("the request was not rendered from this source: it has no count request")
                call = self._rendered(counting)
            case _:
                call = self._call(self._request, self._pager.probe())
        try:
            fetched = await self._client.fetch(call)
        except CollectorError as error:
            answer, error.answer = error.answer, None
            by_page = not isinstance(self._source.total, RequestTotal)
            if by_page and isinstance(answer, Answer) and self._ends.refuses(answer):
                return NamedTotal(rows=0)
            raise
        with self._client.masking():
            return await beside(
                lambda: self._counted(fetched),
                fetched.answer,
                (self._source.records, *total_expressions(self._source)),
            )

    def _counted(self, fetched: Fetched) -> NamedTotal:
        """The total, which the rows that came with it do not contradict."""
        named = counted_in(fetched.document, self._source, fetched.answer)
        if isinstance(self._source.total, RequestTotal) or named.exact is None:
            return named
        try:
            rows = len(records_of(fetched.document, self._source, fetched.answer, named))
        except CollectorError:
            return named  # whoever fetches the page says what is wrong with it
        if rows <= named.exact:
            return replace(named, pages_tell_end=says_more(fetched.document) is True)
        return NamedTotal(problem=f"the total is {named.exact:,}, and the first page holds {rows:,} rows")

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
            return await beside(
                lambda: [
                    search(field, expression, fetched.document, fetched.answer.shown)
                    for field, expression in expressions.items()
                ],
                fetched.answer,
                expressions.values(),
            )

    async def pages(
        self,
        span: Span,
        position: Position | None = None,
        request: RenderedRequest | None = None,
        *,
        recall: Recall | None = None,
        start_over: bool = False,
        scope: bytes = b"",
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
            start_over: Whether the shard may begin anew: then a cursor or link that has expired is told apart.
            scope: Of whom a page is that is all of its shard, where the pages of several shards may well be equal.

        Raises:
            ResumeRefused: Nothing stands at the position any more.
            CollectorError: One of its subclasses says what is wrong; `Transient` or `Permanent` whether it
            stays so.
        """
        run = Walk(
            span=span,
            request=request or self._request,
            recall=recall,
            reader=None if self._reader is None else ShardReader(self._reader),
            start_over=start_over,
            scope=scope,
        )
        if position is not None:
            run.go_on_from(position)
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

    def _start(self, run: Walk, position: Position) -> asyncio.Task[Page | None]:
        task = asyncio.create_task(self._masked_page(run, position))
        self._ahead.add(task)
        task.add_done_callback(self._ahead.discard)
        return task

    async def _masked_page(self, run: Walk, position: Position) -> Page | None:
        with self._client.masking():
            return await self._page(run, position)

    async def _page(self, run: Walk, position: Position) -> Page | None:
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
            fetched = await self._fetched(run, call, number)
            attempts += fetched.attempts - 1
            wire_bytes += fetched.answer.wire_bytes
            if _means_another(fetched, known):
                call = replace(call, conditions={})
                fetched = await self._fetched(run, call, number)
                attempts += fetched.attempts
                wire_bytes += fetched.answer.wire_bytes
            looked = await self._looked_through(run, position, fetched, known)
            got, step = looked.got, looked.step
            if not step.discard or step.next is None:
                break
            position = step.next
        following = await self._following(run, position, call, looked, number)
        answer = fetched.answer
        whole = looked.sent == got.reply.rows
        # One of a shard's number alone says nothing of later tasks, whose shards may be numbered otherwise.
        lasting = None if run.scope and following is None else looked.fingerprint
        return Page(
            records=looked.kept,
            raw=answer.body,
            sent_at=answer.sent_at,
            received_at=answer.received_at,
            number=number,
            next_position=following,
            total=got.named.rows,
            wire_bytes=wire_bytes,
            attempts=attempts,
            request=self._client.described_call(call),
            response=self._client.described_answer(answer),
            unchanged_rows=looked.sent if got.unchanged else None,
            known=self._known(known, got, call, answer, following, whole=whole, fingerprint=lasting),
            sent_rows=looked.sent,
            seen=step.seen,
            fingerprint=looked.fingerprint,
        )

    async def _fetched(self, run: Walk, call: Call, number: int) -> Fetched:
        """A page's answer; one that is refused where no more rows are is a page without any.

        Raises:
            ResumeRefused: The place to go on from is not there any more.
            PageNotThere: The page is refused, and nothing says that it is behind the last one.
        """
        try:
            return await self._client.fetch(call, run.reader)
        except CollectorError as error:
            answer, error.answer = error.answer, None
            if not isinstance(answer, Answer) or not self._ends.may_be(answer):
                raise
            by_token = run.resumed and run.requests == 1 and not counts_rows(self._pager)
            if by_token and run.start_over and not run.complete:
                raise ResumeRefused(answer.shown, answer.status, number) from error
            if self._ends.refuses(answer) or (number > 0 and run.complete):
                return Fetched(answer=answer, content=Content(b"", lambda: None), attempts=1)
            if number == 0 or answer.status not in NOTHING_THERE:
                raise
            words = words_of(answer)
            raise PageNotThere(answer.shown, answer.status, number, run.rows, words) from error

    async def _conditional(self, run: Walk, call: Call) -> tuple[Call, Known | None]:
        """The call, asking for its page only if it has changed from what is known of it."""
        if run.recall is None:
            return call, None
        request = self._client.fingerprint(call)
        validator = await run.recall(request)
        conditions = {} if validator is None else validator.headers
        return replace(call, conditions=conditions), Known(request=request, validator=validator)

    async def _looked_through(
        self, run: Walk, position: Position, fetched: Fetched, known: Known | None
    ) -> Looked:
        """What a page holds, and where paging goes on; in a thread what may take long."""

        def look() -> Looked:
            got = self._got(run, fetched, known)
            step = self._step(run, position, got)
            sent = len(range(got.reply.rows)[step.first : step.stop])
            if got.unchanged or step.discard:
                # What shards have parts of is known by something else in each.
                whole = got.unchanged is not None and not step.discard and sent == got.reply.rows
                known_by = got.unchanged.fingerprint if got.unchanged is not None and whole else None
                return Looked(got=got, step=step, kept=[], sent=sent, own=[], fingerprint=known_by)
            own = got.records if sent == len(got.records) else got.records[step.first : step.stop]
            alone = step.next is None and run.rows == 0
            return Looked(
                got=got,
                step=step,
                kept=selected(own, self._source, got.reply.shown),
                sent=sent,
                own=own,
                fingerprint=self._prints.of(own, run.scope if alone else b"")
                if self._prints.wanted
                else None,
            )

        return await beside(look, fetched.answer, self._expressions)

    def _got(self, run: Walk, fetched: Fetched, known: Known | None) -> Got:
        answer, rows = fetched.answer, fetched.content.rows
        validator = None if known is None else known.validator
        if answer.status == 304 and validator is not None:
            # An entity tag may be of the body alone (RFC 9110 8.8.3): what a header says is not remembered with it.
            in_header = isinstance(self._source.total, HeaderTotal)
            named = total_in(None, self._source, answer) if in_header else self._remembered_total(validator)
            reply = Reply(
                rows=validator.rows,
                links=answer.links,
                url=answer.url,
                shown=answer.shown,
                total=named.exact,
            )
            return Got(
                records=[], reply=reply, named=named, ended=validator.following == _ENDED, unchanged=validator
            )
        if answer.status >= 400:
            return Got(records=[], reply=Reply(rows=0, url=answer.url, shown=answer.shown), ended=True)
        document = fetched.document if rows is None else rows.envelope
        named = total_in(document, self._source, answer)
        ended = self._ends.closes(answer, document)

        def parsed() -> list[Any]:
            return records_of(fetched.document, self._source, answer, named, ended=ended)

        records: Sequence[Any]
        if rows is None or run.reader is None:
            records = parsed()
        else:
            records = Records(rows.row_type, rows.rows, parsed, run.reader.odd)
        reply = Reply(
            rows=len(records),
            document=document,
            links=answer.links,
            url=answer.url,
            shown=answer.shown,
            total=named.exact,
            more=says_more(document),
        )
        return Got(records=records, reply=reply, named=named, ended=ended)

    def _remembered_total(self, validator: Validator) -> NamedTotal:
        rows = validator.total
        return NamedTotal(rows=rows, at_least=rows is not None and is_at_least(self._source.total, rows))

    def _step(self, run: Walk, position: Position, got: Got) -> Step:
        in_links = isinstance(self._pager, LinkHeaderPager) and got.reply.links
        if got.unchanged is not None and not counts_rows(self._pager) and not in_links:
            return Step(next=got.unchanged.following)
        if got.ended and got.reply.rows == 0:
            return Step(next=None)
        step = self._pager.step(run.span, position, got.reply)
        # A page that is asked for again says nothing of the one that was meant.
        return replace(step, next=None) if got.ended and not step.discard else step

    def _known(
        self,
        known: Known | None,
        got: Got,
        call: Call,
        answer: Answer,
        following: dict[str, Any] | None,
        *,
        whole: bool,
        fingerprint: bytes | None,
    ) -> Known | None:
        """What the page is to be known by from now on.

        Nothing, when only a part of it is the shard's, when it is empty (where paging goes on then depends on what was
        asked before), when another address has answered, or when it is the last one for want of a Link header, or by
        a header that `end` names: a next page makes another header, and may leave body and entity tag as they are.
        """
        if known is None or got.unchanged is not None:
            return known
        etag, last_modified = etag_of(answer.headers), last_modified_of(answer.headers)
        nameless = etag is None and last_modified is None
        stored = f"{etag} {last_modified}"
        last_by_header = following is None and (
            isinstance(self._pager, LinkHeaderPager) or (got.ended and self._ends.by_header)
        )
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
        counted = counts_rows(self._pager)
        after = None if following is None or counted else {**following}
        if after is not None:
            for name in OWN_FIELDS:
                after.pop(name, None)
        if counted and got.ended:
            after = {**_ENDED}
        validator = Validator(
            etag=etag,
            last_modified=last_modified,
            rows=got.reply.rows,
            total=got.named.rows,
            following=after,
            fingerprint=fingerprint,
        )
        return replace(known, validator=validator)

    def _next_call(self, run: Walk, position: Position, number: int) -> Call | None:
        """The call for a position, once it is sure that it leads somewhere new."""
        try:
            ask = self._pager.ask(run.span, position)
        except PositionUnusable as error:
            raise error.at(self._client.shown(self._base_url)) from error
        if ask is None:
            return None
        call = replace(self._call(run.request, ask), page=True)
        limit = self._source.limits.max_pages
        if number >= limit or run.requests >= limit:
            raise TooManyPages(self._client.shown(call.url), limit)
        if call.key in run.seen:
            raise PagingLoop(self._client.shown(call.url), "this page was fetched before")
        run.seen.add(call.key)
        run.requests += 1
        return call

    async def _following(
        self, run: Walk, asked: Position, call: Call, looked: Looked, number: int
    ) -> dict[str, Any] | None:
        """The position after a page, as it is stored; None when the page was the last one."""
        empty = looked.got.reply.rows == 0
        run.empty_in_a_row = run.empty_in_a_row + 1 if empty else 0
        run.rows += looked.sent
        run.total = run.total if looked.got.named.exact is None else looked.got.named.exact
        position = looked.step.next
        by_count = counts_rows(self._pager)
        if position is not None and not by_count and run.ends_at_itself(asked, str(call.url), looked):
            await self._check_stands_still(run, asked, call, looked, number)
            position = None
        if position is None:
            self._check_end(run, looked)
            return None
        run.previous = looked.known
        if isinstance(position.get("url"), str):
            # Positions are stored: no key of ours that the server repeats in its links.
            position = {**position, "url": self._client.link(position["url"], run.request.path)}
        await self._check_stored(position)
        if empty:
            ask = self._pager.ask(run.span, position)
            after = None if ask is None else self._call(run.request, ask)
            if after is None or after.key in run.seen:
                # An empty page that names itself, or one before it, is how some servers say "the end".
                return None
            if run.empty_in_a_row >= self._source.limits.max_empty_pages:
                reason = f"{run.empty_in_a_row:,} pages in a row were empty (limits.max_empty_pages)"
                raise PagingLoop(self._client.shown(call.url), reason)
        following = {**position, "page": number + 1}
        if not by_count:
            following["rows"] = run.rows
            if run.total is not None:
                following["total"] = run.total
        return following

    async def _check_stands_still(
        self, run: Walk, asked: Position, call: Call, looked: Looked, number: int
    ) -> None:
        """A page that names itself as the next one is the last if it holds the same rows when it is asked for again.

        A server may also go on by itself each time that one and the same cursor is asked (a scroll). Its pages cannot
        be asked for twice, so what is lost with a process would be lost for good.

        Raises:
            PagingLoop: Other rows came.
        """
        if run.complete:
            return
        fetched = await self._fetched(run, replace(call, conditions={}), number)
        again = await self._looked_through(run, asked, fetched, None)
        if again.got.reply.rows > 0 and again.known != looked.known:
            reason = (
                "this page names itself as the next one, and holds other rows when it is asked for again: a server "
                "that goes on by itself (a scroll) gives no page twice"
            )
            raise PagingLoop(self._client.shown(call.url), reason)

    def _check_end(self, run: Walk, looked: Looked) -> None:
        """A page without a next one is the last one, unless it says that it is not."""
        by_token = isinstance(self._source.paging, CursorPaging | NextUrlPaging | LinkHeaderPaging)
        if by_token and looked.got.reply.more is True and not looked.got.ended and not run.complete:
            raise NextPageMissing(looked.got.reply.shown, place_of_next(self._source.paging))

    async def _check_stored(self, position: Position) -> None:
        """Positions are stored, sent and shown.

        Raises:
            PagingValueUnusable: It cannot be written, is too long, or holds a secret of the connection.
        """
        try:
            stored = json_bytes(position).decode()
        except Unwritable as error:  # a lone surrogate, NaN, a number that no double holds
            raise PagingValueUnusable(
                self._client.shown(self._base_url),
                self._source.paging.type,
                f"something that cannot be sent ({error})",
                "a cursor or an address of characters and numbers that JSON has",
            ) from error
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
            for name, value in ask.params.items():
                body = _with_value(body or {}, nested_path(self._source.paging, name), value)
        call = self._rendered(replace(request, query=query, body=body))
        return call if ask.url is None else replace(call, url=self._absolute(ask.url))

    def _rendered(self, request: RenderedRequest) -> Call:
        body, headers = written(request)
        url = self._url(request.path, request.query)
        return Call(method=request.method, url=url, headers=headers, body=body)

    def _absolute(self, text: str) -> URL:
        try:
            return parse_url(text)
        except ValueError as error:
            raise UrlRefused(self._client.shown(text), str(error)) from error


def _row_reader(source: Source, row_type: RowType | None) -> RowReader | None:
    """Reads pages as rows where nothing is looked for in the rows themselves."""
    _, *others = page_expressions(source)
    if source.select is not None or not all(
        stands_beside(expression, source.records) for expression in others
    ):
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
    in_pages += body_expressions(source.end)
    in_pages += () if source.select is None else (source.select,)
    match source.paging:
        case CursorPaging(cursor=path) | NextUrlPaging(next_url=path):
            return (source.records, *in_pages, path)
    return (source.records, *in_pages)


def _with_value(body: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A body with a value at a path; the objects that lead there are new, those of the declaration stay as they are."""
    first, *rest = path
    if not rest:
        return {**body, first: value}
    within = body.get(first)
    return {**body, first: _with_value(within if isinstance(within, dict) else {}, tuple(rest), value)}


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
