"""A record's values, as the target's columns name them: pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from math import isfinite
from operator import methodcaller
from typing import Final

import orjson

from collect_ops.kernel.odd_number import OddNumber
from collect_ops.landing.model import Json
from collect_ops.sources.expressions import RECORD_WORK, Expression, ExpressionFails, PageWork
from collect_ops.sources.model import Column

_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUL_ESCAPE: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

MAX_ROW_CHARS: Final = 8192
_SHOWN_DIGITS: Final = 40
#: What the bytes 0x80 to 0xFF are read as where they are not UTF-8.
_ESCAPED_BYTES: Final = range(0xDC80, 0xDD00)

Extract = Callable[[Json], Json]


def effort_of(name: str, column: Column) -> Callable[[int, int], float] | None:
    """What a column's values may take of so many bytes and records (`LONG_EFFORT`); None for a field as it stands."""
    return None if field_of(name, column) is not None else Expression(column.path or name).effort


class RowFault(Exception):
    """A record cannot be a row; the message says why. Caught where the page is encoded, never above."""


def field_of(name: str, column: Column) -> str | None:
    """The top-level field that a column takes as it stands, or None when its path does more than that."""
    path = column.path if column.path is not None else name
    return path if _FIELD.fullmatch(path) else None


def extractor(name: str, column: Column, work: PageWork | None = None) -> Extract:
    """A function from a record (an object) to the column's value; None when it is not there.

    Args:
        name: The column's name.
        column: The column.
        work: What the columns of a page share.
    """
    field = field_of(name, column)
    if field is not None:
        return methodcaller("get", field)
    expression = Expression(column.path or name, work=RECORD_WORK, shared=work)

    def search(record: Json) -> Json:
        try:
            found = expression.search(record)
        except ExpressionFails as error:
            raise RowFault(
                f"{name}: its path {column.path} does not work on this record ({error})"
            ) from error
        if isinstance(found, float) and not isfinite(found):
            # orjson would write null for it.
            raise RowFault(
                f"{name}: its path {column.path} gives {found}, which is beyond what a double holds"
            )
        return found

    return search


def json_text(value: Json) -> str:
    """A value as compact JSON. Integers beyond 64 bit keep every digit."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        # orjson refuses integers beyond 64 bit, deep nesting and lone surrogates; what of that is not a row
        # is found when the text is encoded.
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def canonical(record: Json) -> bytes:
    """A record as canonical JSON: keys sorted, no blanks, UTF-8.

    Raises:
        RowFault: It holds a lone surrogate, which UTF-8 cannot, or a number that JSON cannot.
    """
    try:
        return orjson.dumps(record, None, orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        text = _exact_text(record)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RowFault(f"a text holds {_described(text[error.start])}, which is not a character") from error


def _exact_text(record: Json) -> str:
    try:
        return json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        number = _odd_number(record)
        raise RowFault(f"{number} is a number that JSON and a double cannot hold") from error


def _odd_number(value: Json) -> str:
    """The first number within a value that is none."""
    match value:
        case OddNumber():
            return value.text if len(value.text) <= _SHOWN_DIGITS else f"{value.text[:_SHOWN_DIGITS]}..."
        case float():
            return "" if isfinite(value) else str(value)
        case dict() | list():
            inner = value.values() if isinstance(value, dict) else value
            return next(filter(None, map(_odd_number, inner)), "")
    return ""


def _described(surrogate: str) -> str:
    code = ord(surrogate)
    # What a server spelled out and a byte that is not UTF-8 cannot be told apart any more.
    byte = f" or the byte 0x{code - 0xDC00:02X}" if code in _ESCAPED_BYTES else ""
    return f"a lone surrogate (\\u{code:04x}){byte}"


def holds_nul(canonical_json: bytes) -> bool:
    """Whether a text of the record holds the character NUL, which PostgreSQL cannot store."""
    return b"\\u0000" in canonical_json and _NUL_ESCAPE.search(canonical_json) is not None


def ascii_text(record: Json, limit: int = MAX_ROW_CHARS) -> str:
    """A record as JSON in ASCII, so that any database and terminal takes it; cut at `limit` characters."""
    text = json.dumps(record, separators=(",", ":"))
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
