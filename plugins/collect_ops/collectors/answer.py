"""What a response means: its records, its total, or which error it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from collect_ops.collectors import json_body
from collect_ops.collectors.conditions import described, first_met
from collect_ops.collectors.content import Content, ShardReader
from collect_ops.collectors.errors import (
    AuthenticationRefused,
    CollectorError,
    ExpressionFailed,
    HostBusy,
    NestedTooDeep,
    NotJson,
    NotModifiedUnasked,
    NotReady,
    RecordsNotAList,
    RequestRefused,
    ServerFailed,
    TruncatedBody,
    UrlNotFound,
)
from collect_ops.collectors.page import Json
from collect_ops.collectors.paging import kind_of
from collect_ops.collectors.quota_headers import allowance, is_exhausted
from collect_ops.collectors.retry import retry_after_s
from collect_ops.collectors.server_words import sentence_in, sentence_of
from collect_ops.collectors.totals import NamedTotal, total_of
from collect_ops.sources.expressions import LONG_EFFORT, ExpressionFails, compiled, projected_list
from collect_ops.sources.model import BodyTotal, HeaderTotal, RequestTotal, Source
from collect_ops.sources.paging_rules import counts_rows

T = TypeVar("T")

# 501 and 505 say "never", all other 5xx "not now"; 408 and 425 are the server's own "again, please".
_NEVER = frozenset({501, 505})
_AGAIN = frozenset({408, 425})
# Also these, when they say for how long: forbidden for now, still in conflict, too much, locked, and what servers have
# made up for "too many requests" (420, 430).
_LATER = frozenset({403, 408, 409, 413, 420, 423, 425, 430})
_BEGINNING = 80
_SENTENCE = 200
_NAMES = 200
_REASON = 500
# What a body says an error by, whatever its status is: fields that hold one, and words of a status.
_ERRORS = ("error", "errors", "error_message", "errormessage", "fault", "exception")
_FAILURES = frozenset({"error", "fail", "failed", "failure"})
# So much of a body is read to show its beginning: blanks between its words are not shown.
_BODY_BYTES = 16_384


class Quote(Protocol):
    """So many characters of a text, masked before it is cut."""

    def __call__(self, text: str, limit: int, *, cut: bool = False) -> str:
        """The beginning of a text; `cut`: it is itself the beginning of a longer one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response that was read to its end.

    Args:
        status: HTTP status.
        headers: Response headers, case-insensitive.
        links: Values of its `Link` headers.
        body: Decompressed body.
        wire_bytes: Size of the body as it travelled.
        url: What answered, after redirects.
        shown: The same, masked.
        sent_at: `time.monotonic()` when the request was sent.
        received_at: `time.monotonic()` when the last byte was there.
        trusted: Whether the credentials went along.
        quote: Makes what the server said showable.
    """

    status: int
    # What the server chose is not for logs: it may repeat what it was sent.
    headers: Mapping[str, str] = field(repr=False)
    links: tuple[str, ...] = field(repr=False)
    body: bytes = field(repr=False)
    wire_bytes: int
    url: str = field(repr=False)
    shown: str
    sent_at: float
    received_at: float
    trusted: bool
    quote: Quote = field(repr=False)


def refusal(answer: Answer, source: Source, now: datetime) -> CollectorError:
    """The error that a status other than success means.

    Args:
        answer: The response.
        source: The source.
        now: The time, for a Retry-After that names a date.
    """
    error = _refusal(answer, source, now)
    error.answer = answer
    return error


def _refusal(answer: Answer, source: Source, now: datetime) -> CollectorError:
    status, shown = answer.status, answer.shown
    if status == 304:
        return NotModifiedUnasked(shown)
    words = words_of(answer)
    wait_s = retry_after_s(answer.headers, now)
    if _asks_for_patience(answer, wait_s, now):
        return HostBusy(shown, status, wait_s if wait_s is not None else _hold_s(answer, now), words=words)
    if status in (401, 403):
        return AuthenticationRefused(
            shown, status, source.connection, source.auth.type, sent=answer.trusted, words=words
        )
    if status in (404, 410):
        return UrlNotFound(shown, status, words)
    if status in _AGAIN or (status >= 500 and status not in _NEVER):
        return ServerFailed(shown, status, words)
    return RequestRefused(shown, status, words)


def _asks_for_patience(answer: Answer, wait_s: float | None, now: datetime) -> bool:
    status = answer.status
    if status == 429:
        return True
    if wait_s is not None and (status in _LATER or (status >= 500 and status not in _NEVER)):
        return True
    return status == 403 and is_exhausted(answer.headers, now)


def _hold_s(answer: Answer, now: datetime) -> float | None:
    left = allowance(answer.headers, now)
    return None if left is None else left.hold_s or None


def later(answer: Answer, document: Json, source: Source, now: datetime) -> HostBusy | NotReady | None:
    """The error that an answer is because of the source's `retry_when`; None when it meets none of that.

    Args:
        answer: The response, whatever its status.
        document: Its body as JSON; None where it has none.
        source: The source.
        now: The time, for a Retry-After that names a date.

    Raises:
        ExpressionFailed: A condition cannot be applied to the body.
    """
    try:
        condition = first_met(
            source.retry_when, status=answer.status, headers=answer.headers, document=document
        )
    except ExpressionFails as error:
        raise ExpressionFailed(answer.shown, "retry_when", "body", str(error)) from error
    if condition is None:
        return None
    wait_s = retry_after_s(answer.headers, now)
    if wait_s is None:
        wait_s = _hold_s(answer, now) or condition.wait_s
    # A success other than 200 is of one request: a report that is being made.
    pauses = condition.pauses or ("request" if 200 < answer.status < 300 else "host")
    kind = HostBusy if pauses == "host" else NotReady
    return kind(
        answer.shown, answer.status, wait_s, words=words_of(answer, document), named=described(condition)
    )


def unfinished(
    answer: Answer, document: Json, source: Source, now: datetime, *, page: bool
) -> NotReady | None:
    """The error that 202 (accepted, RFC 9110 15.3.3) without a result is; None for every other answer.

    Args:
        answer: The response.
        document: Its body as JSON; None where it has none.
        source: The source.
        now: The time, for a Retry-After that names a date.
        page: Whether it is to hold rows.
    """
    if answer.status != 202 or (document and not (page and _holds_no_rows(document, source))):
        return None
    return NotReady(answer.shown, 202, retry_after_s(answer.headers, now), words=words_of(answer, document))


def _holds_no_rows(document: Json, source: Source) -> bool:
    try:
        found = compiled(source.records).search(document)
    except ExpressionFails:
        return True
    return not isinstance(found, list) or not found


def words_of(answer: Answer, document: Json = None) -> str:
    """The server's own words, for people: the sentence in its body, else how the body begins."""
    sentence = sentence_in(document) if document is not None else sentence_of(answer.body[:_BODY_BYTES])
    if sentence is None:
        return beginning_of(answer)
    return " ".join(answer.quote(sentence, 2 * _SENTENCE).split())[:_SENTENCE]


def document_of(answer: Answer, source: Source) -> Json:
    """The body as JSON; None for a response that has none by its status (204, 205, 304).

    Raises:
        NotJson: It is something else.
        TruncatedBody: It is the beginning of JSON.
        NestedTooDeep: It nests deeper than the source allows.
    """
    if answer.status in (204, 205, 304):
        return None
    content_type = answer.headers.get("Content-Type", "")
    try:
        return json_body.parse(answer.body, max_depth=source.limits.max_depth, charset=_charset(content_type))
    except json_body.Truncated as error:
        raise TruncatedBody(answer.shown, len(answer.body)) from error
    except json_body.TooDeep as error:
        raise NestedTooDeep(answer.shown, source.limits.max_depth) from error
    except json_body.Unreadable as error:
        problem = answer.quote(str(error), _REASON)
        raise NotJson(answer.shown, content_type, beginning_of(answer), problem) from error


def document_if_any(answer: Answer, source: Source) -> Json:
    """The body of a refusal as JSON; None when it is none."""
    try:
        return document_of(answer, source)
    except CollectorError:
        return None  # the refusal is the error, whatever its body is


def content_of(answer: Answer, source: Source, reader: ShardReader | None = None) -> Content:
    """The body, read as rows where there is a reader for it; else parsed, with the errors of `document_of`."""
    reader = None if answer.status in (204, 205, 304) else reader
    return Content(answer.body, lambda: document_of(answer, source), reader)


async def beside(look: Callable[[], T], answer: Answer, expressions: Iterable[str]) -> T:
    """What is looked for in an answer, in a thread when the expressions may take long."""
    size_bytes = len(answer.body)
    effort = sum(compiled(expression).effort(size_bytes) for expression in expressions)
    return await asyncio.to_thread(look) if effort >= LONG_EFFORT else look()


def beginning_of(answer: Answer) -> str:
    """The first 80 characters of the body, for people."""
    text = answer.body[:_BODY_BYTES].decode("utf-8", errors="replace")
    # Masked with its blanks, which may be a secret's. Of an error's body only what came first has been read, wherever
    # that ends.
    return " ".join(answer.quote(text, 8 * _BEGINNING, cut=True).split())[:_BEGINNING]


def records_of(
    document: Json, source: Source, answer: Answer, total: NamedTotal, *, ended: bool = False
) -> list[Any]:
    """The records of a page, as sent.

    Args:
        document: The body.
        source: Declares where they stand.
        answer: The response.
        total: What it says of the number of rows.
        ended: It says that there are no more rows: then none need be there.

    Raises:
        ExpressionFailed: The source's `records` cannot be applied.
        RecordsNotAList: It gives something else.
    """
    if answer.status in (204, 205):
        return []
    found = document if source.records == "@" else search("records", source.records, document, answer.shown)
    if isinstance(found, list):
        return _all_of(found, document, source, answer)
    if found is None and (ended or _means_no_rows(document, source, total)):
        return []
    if isinstance(found, dict) and ("object" in source.records_may_be or total.exact == 1):
        return [found]
    hint = ""
    if found is None:
        hint = "; where that means that there are no rows, declare records_may_be: [absent]"
    elif isinstance(found, dict):
        hint = (
            "; where that is the only row, declare records_may_be: [object]; where its fields are, values(@)"
        )
    gave = f"{_described(found, answer.quote)} in a body that says {words_of(answer, document)!r}"
    raise RecordsNotAList(answer.shown, source.records, gave, hint=hint)


def _all_of(found: list[Any], document: Json, source: Source, answer: Answer) -> list[Any]:
    """The records, where paging goes on by their number only if none was left out for want of a field."""
    whole = projected_list(source.records) if counts_rows(source.paging) else None
    if whole is not None:
        sent = whole.search(document)
        if isinstance(sent, list | dict) and len(sent) != len(found):
            problem = (
                f"it leaves out {len(sent) - len(found):,} of {len(sent):,} records, and paging by "
                f"{source.paging.type} goes on by their number; name the list in records, and the field in select"
            )
            raise ExpressionFailed(answer.shown, "records", source.records, problem)
    return found


def _means_no_rows(document: Json, source: Source, total: NamedTotal) -> bool:
    """Whether null, or nothing, where the records are due says that there are none.

    Declared, confirmed by a total of 0, or null under the very name of the list in an answer that speaks of no error.
    """
    if "absent" in source.records_may_be or total.exact == 0:
        return True
    return not total.rows and not _names_an_error(document) and _is_null_at(document, source.records)


def _names_an_error(document: Json) -> bool:
    if not isinstance(document, dict):
        return False
    said = {name.lower(): value for name, value in document.items()}
    if any(said.get(name) for name in _ERRORS) or any(said.get(name) is False for name in ("success", "ok")):
        return True
    return any(_is_failure(said.get(name)) for name in ("status", "code", "statuscode", "status_code"))


def _is_failure(status: Json) -> bool:
    if isinstance(status, str):
        return status.strip().lower() in _FAILURES
    return isinstance(status, int) and 400 <= status < 600


def _is_null_at(document: Json, path: str) -> bool:
    *above, last = path.split(".")
    for name in above:
        document = document.get(name) if isinstance(document, dict) else None
    return isinstance(document, dict) and last in document and document[last] is None


def total_in(document: Json, source: Source, answer: Answer) -> NamedTotal:
    """What a page says of the number of rows, when the source's pages do.

    Raises:
        ExpressionFailed: The path to the total cannot be applied.
    """
    return NamedTotal() if isinstance(source.total, RequestTotal) else counted_in(document, source, answer)


def counted_in(document: Json, source: Source, answer: Answer) -> NamedTotal:
    """What an answer says of the number of rows that was asked for because of it.

    Raises:
        ExpressionFailed: The path to the total cannot be applied.
    """
    match source.total:
        case RequestTotal(value=path) as declared:
            where, value = f"body {path!r}", search("total.value", path, document, answer.shown)
        case BodyTotal(path=path) as declared:
            where, value = f"body {path!r}", search("total.path", path, document, answer.shown)
        case HeaderTotal(name=name) as declared:
            where, value = f"header {name!r}", answer.headers.get(name)
        case _:
            return NamedTotal()
    return total_of(value, declared, where=where, quote=answer.quote)


def selected(records: Sequence[Any], source: Source, shown: str) -> Sequence[Any]:
    """What a source keeps of a page's records.

    Raises:
        ExpressionFailed: Its `select` cannot be applied.
        RecordsNotAList: It gives no list.
    """
    if source.select is None or not records:
        return records
    kept = search("select", source.select, records, shown)
    if not isinstance(kept, list):
        raise RecordsNotAList(shown, source.select, kind_of(kept), field="select")
    return kept


def says_more(document: Json) -> bool | None:
    """What a body says of further pages under a name that means nothing else; None where it says nothing."""
    if isinstance(document, dict):
        for name in ("has_more", "hasMore"):
            value = document.get(name)
            if isinstance(value, bool):
                return value
    return None


def search(field: str, expression: str, document: Json, shown: str) -> Json:
    """What a JMESPath of the source finds.

    Raises:
        ExpressionFailed: It cannot be applied to this document.
    """
    try:
        return compiled(expression).search(document)
    except ExpressionFails as error:
        raise ExpressionFailed(shown, field, expression, str(error)) from error


def _described(value: Json, quote: Quote) -> str:
    if isinstance(value, dict):
        names = quote(", ".join(list(value)[:10]), _NAMES)
        return f"an object with {names or 'no fields'}"
    return kind_of(value)


def _charset(content_type: str) -> str | None:
    for part in content_type.split(";")[1:]:
        name, _, value = part.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"') or None
    return None
