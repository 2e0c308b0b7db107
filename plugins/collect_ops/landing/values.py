"""What a column takes a value for, beside what PostgreSQL's own input does. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from collect_ops.kernel.json_numbers import SpelledNumber
from collect_ops.kernel.json_text import Unwritable, json_bytes
from collect_ops.landing.model import Json
from collect_ops.landing.records import RowFault, ascii_text
from collect_ops.landing.times import TimeUnusable, is_checked_only, time_reader, time_type
from collect_ops.sources.model import Column

INTEGER_TYPES: Final = frozenset({"smallint", "integer", "bigint"})

_MAX_QUOTED_CHARS: Final = 200
_FRACTION_OR_EXPONENT: Final = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_MAX_NUMBER_CHARS: Final = 1000
_MAX_DIGITS: Final = 30

Read = Callable[[Json], Json]


def whole(value: Json) -> Json:
    """A value for a column of whole numbers: `1.0`, `2e0` and `"3.0"` are 1, 2 and 3; any other value as it is."""
    if type(value) is SpelledNumber:
        text = value.text
    elif type(value) is str:
        text = value.strip()
        if "." not in text and "e" not in text and "E" not in text:
            return value
    elif type(value) is float and value.is_integer() and abs(value) < 10**_MAX_DIGITS:
        return int(value)
    else:
        return value
    if len(text) > _MAX_NUMBER_CHARS or not _FRACTION_OR_EXPONENT.fullmatch(text):
        return value
    number = Decimal(text)
    if number.adjusted() > _MAX_DIGITS or number != number.to_integral_value():
        return value
    return int(number)


def reader_of(name: str, column: Column) -> Read | None:
    """What is done to every value of a column before it is written; None when nothing is.

    The function raises RowFault for a value that the column does not take.
    """
    reads = [read for read in (_null_if(column), _time(name, column)) if read is not None]
    if not reads:
        return None
    if len(reads) == 1:
        return reads[0]
    first, second = reads
    return lambda value: second(first(value))


def checked_reader_of(name: str, column: Column) -> Read | None:
    """The reader of a column whose values are only looked at (`is_checked_only`), for one value at a time."""
    return _fault_of(name, column) if time_type(column) and is_checked_only(column) else None


def _null_if(column: Column) -> Read | None:
    if not column.null_if:
        return None
    # By their JSON, in which 1, true and "1" are three values.
    empty = frozenset(_json_key(value) for value in column.null_if)
    return lambda value: None if _json_key(value) in empty else value


def _json_key(value: Json) -> bytes | None:
    if isinstance(value, dict | list):
        return None
    try:
        return json_bytes(value)
    except Unwritable:
        return None


def _time(name: str, column: Column) -> Read | None:
    return None if time_type(column) is None or is_checked_only(column) else _fault_of(name, column)


def _fault_of(name: str, column: Column) -> Read:
    read = time_reader(column)

    def checked(value: Json) -> Json:
        try:
            return read(value)
        except TimeUnusable as error:
            quoted = ascii_text(value, _MAX_QUOTED_CHARS)
            raise RowFault(f"{name}: {quoted} does not fit {column.type}: it {error}") from error

    return checked
