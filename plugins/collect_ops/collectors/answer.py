"""What a response means: its records, its total, or which error it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from collect_ops.collectors import json_body
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
    TruncatedBody,
    UrlNotFound,
)
from collect_ops.collectors.page import Json
from collect_ops.collectors.paging import kind_of
from collect_ops.collectors.quota_headers import allowance
from collect_ops.collectors.retry import retry_after_s
from collect_ops.collectors.totals import NamedTotal, total_of
from collect_ops.sources.expressions import ExpressionFails, compiled, projected_list
from collect_ops.sources.model import BodyTotal, HeaderTotal, RequestTotal, Source
from collect_ops.sources.paging_rules import counts_rows

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
    error = _refusal(answer, source, now)
    error.answer = answer
    return error


def _refusal(answer: Answer, source: Source, now: datetime) -> CollectorError:
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
    raise RecordsNotAList(answer.shown, source.records, _described(found, answer.quote), hint=hint)


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
    return isinstance(document, dict) and any(document.get(name) for name in ("error", "errors"))


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


def selected(records: list[Any], source: Source, shown: str) -> list[Any]:
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
