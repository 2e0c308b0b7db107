"""A record's values, as the target's columns name them: pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite
from operator import methodcaller
from typing import Final

from collect_ops.kernel.json_text import Unwritable, ascii_json, json_bytes
from collect_ops.landing.model import Json
from collect_ops.sources.expressions import RECORD_WORK, Expression, ExpressionFails, PageWork
from collect_ops.sources.model import Column

_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUL_ESCAPE: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

MAX_ROW_CHARS: Final = 8192

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
    expression = Expression(column.path or name, work=RECORD_WORK, shared=work, exact=True)

    def search(record: Json) -> Json:
        try:
            found = expression.search(record)
        except ExpressionFails as error:
            raise RowFault(
                f"{name}: its path {column.path} does not work on this record ({error})"
            ) from error
        if type(found) is float and not isfinite(found):
            # orjson would write null for it. A number as it was sent has its digits, however large it is.
            raise RowFault(
                f"{name}: its path {column.path} gives {found}, which is beyond what a double holds"
            )
        return found

    return search


def json_text(value: Json) -> str:
    """A value as compact JSON, its numbers as they are spelled.

    Raises:
        RowFault: It holds a lone surrogate, which UTF-8 cannot, or nests too deeply.
    """
    try:
        return json_bytes(value).decode()
    except Unwritable as error:
        raise RowFault(str(error)) from error


def canonical(record: Json) -> bytes:
    """A record as canonical JSON: keys sorted, no blanks, UTF-8, numbers as they are spelled.

    Raises:
        RowFault: It holds a lone surrogate, which UTF-8 cannot, a number that JSON cannot, or nests too deeply.
    """
    try:
        return json_bytes(record, sort_keys=True)
    except Unwritable as error:
        raise RowFault(str(error)) from error


def holds_nul(canonical_json: bytes) -> bool:
    """Whether a text of the record holds the character NUL, which PostgreSQL cannot store."""
    return b"\\u0000" in canonical_json and _NUL_ESCAPE.search(canonical_json) is not None


def ascii_text(record: Json, limit: int = MAX_ROW_CHARS) -> str:
    """A record as JSON in ASCII, so that any database and terminal takes it; cut at `limit` characters."""
    text = ascii_json(record)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
