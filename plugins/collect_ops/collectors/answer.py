"""What a response means: its records, its total, or which error it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from collect_ops.collectors import json_body
from collect_ops.collectors.content import Content, ShardReader
from collect_ops.collectors.errors import (
    AuthenticationRefused,
    CollectorError,
    ExpressionFailed,
    HostBusy,
    NestedTooDeep,
    NotJson,
    NotModifiedUnasked,
    RecordsNotAList,
    RequestRefused,
    ServerFailed,
    TotalUnusable,
    TruncatedBody,
    UrlNotFound,
)
from collect_ops.collectors.page import Json
from collect_ops.collectors.paging import kind_of
from collect_ops.collectors.quota_headers import allowance
from collect_ops.collectors.retry import retry_after_s
from collect_ops.collectors.totals import total_of
from collect_ops.sources.expressions import ExpressionFails, compiled
from collect_ops.sources.model import BodyTotal, HeaderTotal, RequestTotal, Source, UnknownTotal

# 501 and 505 say "never", all other 5xx "not now"; 408 and 425 are the server's own "again, please".
_NEVER = frozenset({501, 505})
_AGAIN = frozenset({408, 425})
_BEGINNING = 80
_NAMES = 200
_REASON = 500
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
    headers: Mapping[str, str]
    links: tuple[str, ...]
    body: bytes
    wire_bytes: int
    url: str
    shown: str
    sent_at: float
    received_at: float
    trusted: bool
    quote: Quote


def refusal(answer: Answer, source: Source, now: datetime) -> CollectorError:
    """The error that a status other than success means.

    Args:
        answer: The response.
        source: The source.
        now: The time, for a Retry-After that names a date.
    """
    status, shown = answer.status, answer.shown
    beginning = beginning_of(answer)
    if status == 304:
        return NotModifiedUnasked(shown)
    if status in (401, 403):
        return AuthenticationRefused(shown, status, source.connection, source.auth.type, sent=answer.trusted)
    if status in (404, 410):
        return UrlNotFound(shown, status, beginning)
    wait_s = retry_after_s(answer.headers, now)
    if status == 429 and wait_s is None and (left := allowance(answer.headers, now)) is not None:
        wait_s = left.hold_s or None
    if status == 429 or (status == 503 and wait_s is not None):
        return HostBusy(shown, status, wait_s)
    if status in _AGAIN or (status >= 500 and status not in _NEVER):
        return ServerFailed(shown, status, beginning)
    return RequestRefused(shown, status, beginning)


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


def content_of(answer: Answer, source: Source, reader: ShardReader | None = None) -> Content:
    """The body, read as rows where there is a reader for it; else parsed, with the errors of `document_of`."""
    reader = None if answer.status in (204, 205, 304) else reader
    return Content(answer.body, lambda: document_of(answer, source), reader)


def beginning_of(answer: Answer) -> str:
    """The first 80 characters of the body, for people."""
    text = answer.body[:_BODY_BYTES].decode("utf-8", errors="replace")
    # Masked with its blanks, which may be a secret's. Of an error's body only what came first has been read, wherever
    # that ends.
    return " ".join(answer.quote(text, 8 * _BEGINNING, cut=True).split())[:_BEGINNING]


def records_of(document: Json, source: Source, answer: Answer) -> list[Any]:
    """The rows of a page.

    Raises:
        ExpressionFailed: The source's `records` cannot be applied.
        RecordsNotAList: It gives something else.
    """
    if answer.status in (204, 205):
        return []
    found = document if source.records == "@" else search("records", source.records, document, answer.shown)
    if not isinstance(found, list):
        raise RecordsNotAList(answer.shown, source.records, _described(found, answer.quote))
    return found


def total_in(document: Json, source: Source, answer: Answer) -> int | None:
    """The total, when the source's pages name it and this one does.

    Raises:
        ExpressionFailed: The path to it cannot be applied.
        TotalUnusable: It is no number of rows.
    """
    match source.total:
        case BodyTotal(path=path):
            value = search("total.path", path, document, answer.shown)
            return total_of(value, where=f"body {path!r}", shown=answer.shown, quote=answer.quote)
        case HeaderTotal(name=name):
            return total_of(
                answer.headers.get(name), where=f"header {name!r}", shown=answer.shown, quote=answer.quote
            )
        case _:
            return None


def required_total(document: Json, source: Source, answer: Answer) -> int | None:
    """The total of an answer that was asked for because of it.

    Returns:
        The total; None when the server says that it does not know (`*` in a header).

    Raises:
        ExpressionFailed: The path to it cannot be applied.
        TotalUnusable: It is missing, or no number of rows.
    """
    match source.total:
        case RequestTotal(value=path):
            where, value = f"body {path!r}", search("total.value", path, document, answer.shown)
        case BodyTotal(path=path):
            where, value = f"body {path!r}", search("total.path", path, document, answer.shown)
        case HeaderTotal(name=name):
            where, value = f"header {name!r}", answer.headers.get(name)
        case UnknownTotal():
            return None
    if value is None:
        raise TotalUnusable(answer.shown, where, "missing")
    return total_of(value, where=where, shown=answer.shown, quote=answer.quote)


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
