"""What a server says in words about a request that it refuses, from bodies of any shape. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from collect_ops.collectors.page import Json

#: Fields that hold a sentence for people, the most telling first; capitals do not count.
_FIELDS = (
    "message", "error_description", "error_message", "errormessage", "detail", "details", "note", "information",
    "reason", "description", "title", "msg", "error", "errors", "fault", "faultstring", "code", "status",
)  # fmt: skip
_MOST_LEVELS = 5
_MOST_ENTRIES = 50


def sentence_in(document: Json) -> str | None:
    """The sentence of a body that says what is wrong; None when nothing in it looks like one."""
    return next(_sentences(document, _MOST_LEVELS), None)


def sentence_of(body: bytes) -> str | None:
    """The same of a body that may be anything, or the beginning of it."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return sentence_in(document)


def _sentences(value: Json, levels: int) -> Iterator[str]:
    match value:
        case str():
            if value.strip():
                yield value
        case list() if levels > 0:
            for item in value[:_MOST_ENTRIES]:
                yield from _sentences(item, levels - 1)
        case dict() if levels > 0:
            fields = {name.lower(): item for name, item in list(value.items())[:_MOST_ENTRIES]}
            for name in _FIELDS:
                yield from _sentences(fields.get(name), levels - 1)
