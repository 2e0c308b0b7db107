"""Times as sources spell them, made into what PostgreSQL reads in one way only. Pure.

PostgreSQL reads far more than ISO 8601: `01/02/2024` by its DateStyle, `today`, `infinity`, `1700000000` as a date in
the year 170000; and it drops an offset that a column without one cannot keep. A column's `format` says what is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from functools import cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from collect_ops.kernel.json_numbers import SpelledNumber
from collect_ops.landing.model import Json
from collect_ops.sources.model import Column
from collect_ops.sources.texts import TIME_TYPES

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECONDS: Final = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}
_MAX_NUMBER_CHARS: Final = 40
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d{1,2})?", re.ASCII)

# Every digit of a text is looked at as 0, so that a page of times has a handful of shapes.
_SHAPE: Final = bytes(48 if 48 <= byte <= 57 else byte for byte in range(256))
_DATE: Final = r"(?:0000-00-00|0{8})"
_CLOCK: Final = r"(?:00:00(?::00(?:[.,]0+)?)?|0000(?:00(?:[.,]0+)?)?)"
_OFFSET: Final = r"(?P<offset>[Zz]|[+-]00(?::?00)?)?"
_ISO: Final = {
    "time": re.compile(_CLOCK + _OFFSET),
    "datetime": re.compile(f"{_DATE}(?:[Tt ]{_CLOCK}{_OFFSET})?"),
}


class TimeUnusable(ValueError):
    """A value is no time in the column's format; says why, as the end of a sentence that begins with the value."""


def time_type(column: Column) -> str | None:
    """The column's type, when its values are times of a declared format; None when PostgreSQL alone reads them."""
    return column.type if column.type in TIME_TYPES and column.format != "postgresql" else None


def is_checked_only(column: Column) -> bool:
    """Whether times of this column go to PostgreSQL as they came, once they are known to be ISO 8601."""
    return column.format == "iso" and column.timezone is None


class IsoCheck:
    """Whether PostgreSQL reads values of a column in one way only. A page's values are looked at together.

    Args:
        column: Of a type of time, its format `iso`, without a time zone.
    """

    def __init__(self, column: Column) -> None:
        self._type = column.type
        self._fine: set[bytes] = set()

    def all_fine(self, values: Iterable[Json]) -> bool:
        """Whether all of them are; None is."""
        texts = set(values)
        texts.discard(None)
        if not texts:
            return True
        try:
            shapes = "\n".join(texts).encode().translate(_SHAPE).split(b"\n")
        except (TypeError, UnicodeEncodeError):
            return False  # a number, or a lone surrogate
        if len(shapes) != len(texts):
            return False  # a line feed
        unknown = set(shapes) - self._fine
        if not unknown:
            return True
        # A server that makes up new shapes all the time shall not fill the memory with them.
        fine = {shape for shape in unknown if iso_problem(shape.decode(), self._type) is None}
        if len(self._fine) < _MAX_SHAPES:
            self._fine |= fine
        return fine == unknown


_MAX_SHAPES: Final = 200


def iso_problem(shape: str, kind: str) -> str | None:
    """Why a text of this shape is not taken for a column of this type; None when it is."""
    found = _ISO["time" if kind == "time" else "datetime"].fullmatch(shape)
    if found is None:
        return "is not ISO 8601; other spellings are declared with the column's format"
    if found["offset"] is not None and kind != "timestamptz":
        remedy = "" if kind == "time" else "; the column's timezone says whose it is to be"
        return f"has an offset, which {kind} cannot keep{remedy}"
    return None


def time_reader(column: Column) -> Callable[[Json], Json]:
    """A function from a value to what PostgreSQL is given for it; raises TimeUnusable.

    Args:
        column: One for which `time_type` is not None.
    """
    zone = zone_of(column.timezone)
    if column.format in _MICROSECONDS:
        factor = _MICROSECONDS[column.format]
        return lambda value: None if value is None else _written(_moment(value, factor), column.type, zone)
    if column.format == "iso":
        return lambda value: None if value is None else _iso(value, column, zone)
    pattern = str(column.format)
    return lambda value: None if value is None else _by_pattern(value, pattern, column.type, zone)


@cache
def zone_of(name: str | None) -> tzinfo:
    """A time zone by its name; UTC when none is given."""
    return UTC if name is None else ZoneInfo(name)


def _iso(value: Json, column: Column, zone: tzinfo) -> str:
    if not isinstance(value, str):
        raise TimeUnusable("is not a text in ISO 8601; epochs are declared with the column's format")
    text = value.strip()
    shape = text.encode("utf-8", "replace").translate(_SHAPE).decode()
    # With a time zone an offset is no loss: the moment is told in that zone.
    kind = column.type if column.timezone is None or column.type == "time" else "timestamptz"
    if (problem := iso_problem(shape, kind)) is not None:
        raise TimeUnusable(problem)
    if column.timezone is None or column.type == "time":
        return value
    found = _ISO["datetime"].fullmatch(shape)
    has_offset = found is not None and found["offset"] is not None
    if column.type == "timestamptz":
        return value if has_offset else _with_offset(text, zone)
    # Python knows no small z.
    return _written(_read(datetime.fromisoformat, text.upper()), column.type, zone) if has_offset else value


def _with_offset(text: str, zone: tzinfo) -> str:
    """A time with the offset that its zone has then: PostgreSQL knows other names of zones than Python."""
    local = _read(datetime.fromisoformat, text).replace(microsecond=0, tzinfo=zone)
    offset = local.isoformat()[len("0000-00-00T00:00:00") :]
    return f"{text}{offset}" if len(text) > len("0000-00-00") else f"{text}T00:00:00{offset}"


def _by_pattern(value: Json, pattern: str, kind: str, zone: tzinfo) -> str:
    text = value if isinstance(value, str) else _number_text(value)
    moment = _read(lambda each: datetime.strptime(each, pattern), text)  # noqa: DTZ007 - `_written` adds the zone
    return _written(moment, kind, zone)


def _read(parse: Callable[[str], datetime], text: str) -> datetime:
    try:
        return parse(text)
    except (ValueError, OverflowError) as error:
        raise TimeUnusable(f"cannot be read: {error}") from error


def _moment(value: Json, factor: int) -> datetime:
    text = value.strip() if isinstance(value, str) else _number_text(value)
    if len(text) > _MAX_NUMBER_CHARS or not _NUMBER.fullmatch(text):
        raise TimeUnusable("is not a number of seconds, milliseconds or microseconds")
    try:
        return _EPOCH + timedelta(microseconds=round(Decimal(text) * factor))
    except (OverflowError, ArithmeticError) as error:
        raise TimeUnusable("lies beyond the years 1 to 9999") from error


def _number_text(value: Json) -> str:
    if isinstance(value, SpelledNumber):
        return value.text
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TimeUnusable("is neither a text nor a number")
    return repr(value)


def _written(moment: datetime, kind: str, zone: tzinfo) -> str:
    """A moment as PostgreSQL reads it for a type; one without an offset is of the column's time zone."""
    if kind == "timestamptz":
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).isoformat(" ")
    try:
        local: Any = moment.astimezone(zone).replace(tzinfo=None) if moment.tzinfo else moment
    except OverflowError as error:
        raise TimeUnusable("lies beyond the years 1 to 9999") from error
    if kind == "date":
        day: date = local.date()
        return day.isoformat()
    return str(local.time().isoformat()) if kind == "time" else str(local.isoformat(" "))
