r"""Pages as the text of one COPY: pure, and the hot path of landing.

Nothing is done per value in Python: orjson writes all rows of a page in one call, as an array of arrays, and such an
array *is* CSV to PostgreSQL when told so (NULL 'null', ESCAPE '\\'): JSON's numbers, true, false and quoted texts read
as they stand, an unquoted null is NULL, and a text "null" is not. Every row begins with an empty text, so that what
sits between two rows (`],["",`) can be in no text, and the array is split there into lines. A line is hashed as it is
written, and gets the hash in front and where it came from behind. Rows that were read straight from the page's bytes
(`typed_rows`) take the same way. What does not fit the assumption (other keys than declared, nested values, values that
are to be converted) takes a slower turn here; what cannot be encoded as a page is encoded row by row, which finds the
records that cannot be rows. A record's line, and so its hash, is the same on every way.
"""

from __future__ import annotations

import re
from binascii import hexlify
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from itertools import chain, compress, repeat
from math import isfinite
from operator import itemgetter
from typing import Any, Final, Protocol

import orjson

from collect_ops.collectors.content import Records
from collect_ops.kernel.json_numbers import SpelledNumber
from collect_ops.kernel.json_text import fragment
from collect_ops.landing.layout import DOCUMENT, DOCUMENT_KEY, EXTRA, Layout
from collect_ops.landing.model import BadRow, Json, Origin
from collect_ops.landing.records import (
    RowFault,
    ascii_text,
    canonical,
    effort_of,
    extractor,
    field_of,
    holds_nul,
    json_text,
)
from collect_ops.landing.times import IsoCheck, is_checked_only, time_type
from collect_ops.landing.typed_rows import RowType
from collect_ops.landing.values import INTEGER_TYPES, Read, checked_reader_of, reader_of, whole
from collect_ops.sources.expressions import LONG_EFFORT, PageWork
from collect_ops.sources.model import Column, Target

_SCALARS: Final = frozenset({str, int, float, SpelledNumber, bool, type(None)})
#: Values that a column of whole numbers may have to be given otherwise.
_MAYBE_WHOLE: Final = frozenset({str, float, SpelledNumber})
_FRACTIONS: Final = frozenset({float, SpelledNumber})
_JSON_TYPES: Final = frozenset({"json", "jsonb"})

_HOLDS_NUL: Final = "a text holds the character NUL (\\u0000), which PostgreSQL cannot store"
_HASH_BYTES: Final = 16
#: The first value of every row, and what therefore stands before the first row and between two.
_MARK: Final = ""
_FIRST_ROW: Final = b'[["",'
_ROW_BREAK: Final = b'],["",'

# JSON writes control characters as escapes, CSV as they are. The first branch takes an escaped backslash or
# quote, so that the second never starts in the middle of one.
_ESCAPE: Final = re.compile(rb'\\(?:["\\]|([bfnrt])|u00([0-9a-f]{2}))')
_CONTROLS: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_CONTROL_ESCAPES: Final = tuple(b"\\" + letter for letter in (*_CONTROLS, b"u00"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Rows of a page as lines of a COPY, without line feeds, and the places of their records in the page."""

    lines: Sequence[bytes]
    ordinals: Sequence[int]
    bad: tuple[BadRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A page as the text of a COPY: how many rows it holds, and the records that cannot be rows."""

    text: bytes
    rows: int
    bad: tuple[BadRow, ...] = ()


class Encoder(Protocol):
    """Makes rows of a target's records.

    Attributes:
        columns: The columns of a row, in the order of the COPY.
        copy_options: The options of that COPY.
        delimiter: What stands between two values.
        row_type: What pages may be read as; None where rows are made of records alone.
    """

    row_type: RowType | None
    columns: tuple[str, ...]
    copy_options: str
    delimiter: bytes

    def page(self, records: Sequence[Json], ending: bytes, *, plain: bool) -> Body:
        """A page; `ending` ends each row (see `provenance`); `plain` as in `LandingPage`."""

    def typed_page(self, records: Records, ending: bytes) -> Body | None:
        """A page whose rows were read straight from its bytes; None when its records have to be looked at."""

    def lines(self, records: Sequence[Json], ending: bytes) -> Lines:
        """The page's rows one by one."""

    def takes_long(self, records: int, size_bytes: int) -> bool:
        """Whether a page may take so long that an event loop must not stand still for it."""

    def value(self, record: Json, column: str) -> Json:
        """What a record, one that made a row, gives for a column: for messages."""


def encoder_of(target: Target, layout: Layout) -> Encoder:
    """The encoder for a target."""
    return TypedEncoder(target, layout) if target.columns else DocumentEncoder(target, layout)


def provenance(encoder: Encoder, origin: Origin, fetched_at: datetime) -> bytes:
    """What ends each row of a page: task, shard and time."""
    values = (str(origin.task_id), str(origin.shard_no), fetched_at.isoformat())
    return b"".join(encoder.delimiter + value.encode() for value in values)


def _hash(text: bytes) -> str:
    return blake2b(text, digest_size=_HASH_BYTES).hexdigest()


def _line_by_line(records: Sequence[Json], encode: Callable[[Json], bytes]) -> Lines:
    lines, ordinals, bad = [], [], []
    for ordinal, record in enumerate(records):
        try:
            lines.append(encode(record))
        except RowFault as fault:
            bad.append(BadRow(ordinal=ordinal, reason=str(fault), row_text=ascii_text(record)))
        else:
            ordinals.append(ordinal)
    return Lines(lines=lines, ordinals=ordinals, bad=tuple(bad))


def _body_of(rows: Lines) -> Body:
    text = b"".join(line + b"\n" for line in rows.lines)
    return Body(text=text, rows=len(rows.lines), bad=rows.bad)


def _raw_controls(text: bytes) -> bytes:
    """JSON's escapes of control characters replaced by the characters: within quotes CSV takes them."""
    if b"\\" not in text or not any(escape in text for escape in _CONTROL_ESCAPES):
        return text
    return _ESCAPE.sub(_control, text)


def _control(match: re.Match[bytes]) -> bytes:
    letter, code = match.groups()
    if letter is not None:
        return _CONTROLS[letter]
    return match[0] if code is None else bytes((int(code, 16),))


class TypedEncoder:
    """Rows with declared columns."""

    delimiter = b","
    copy_options = "FORMAT csv, NULL 'null', ESCAPE '\\', ENCODING 'UTF8'"

    def __init__(self, target: Target, layout: Layout) -> None:
        columns = target.columns
        names = tuple(columns)
        self.columns = ("_content_hash", *names, EXTRA, "_task_id", "_shard", "_fetched_at")
        self._work = PageWork()
        self._extractors = [extractor(name, column, self._work) for name, column in columns.items()]
        self._by_name = dict(zip(names, self._extractors, strict=True))
        efforts = (effort_of(name, column) for name, column in columns.items())
        self._efforts = [effort for effort in efforts if effort is not None]
        self._jsonb = [names.index(name) for name, column in columns.items() if _is_json(column.type)]
        fields = [field_of(name, column) for name, column in columns.items()]
        self._declared = frozenset(field for field in fields if field is not None)
        self._key = tuple((name, names.index(name)) for name in layout.key)
        # Only when each column is a field of its own can a record be told to hold nothing else by its length.
        simple = len(self._declared) == len(names)
        self._take = _taker([field for field in fields if field is not None]) if simple else None
        self._reads = _by_index(columns, reader_of)
        self._checked_reads = _by_index(columns, checked_reader_of)
        self._checks = [
            (index, IsoCheck(column))
            for index, column in enumerate(columns.values())
            if time_type(column) and is_checked_only(column)
        ]
        self._whole = [index for index, column in enumerate(columns.values()) if column.type in INTEGER_TYPES]
        # Whether texts such as "3.0" have come for whole numbers: then they are looked for in every row.
        self._converts = False
        self._exact_rows = self._take is not None and not self._jsonb and not self._reads
        self.row_type = RowType.of(target) if self._exact_rows else None

    def page(self, records: Sequence[Json], ending: bytes, *, plain: bool) -> Body:
        """See `Encoder.page`."""
        self._work.renew(len(records))
        try:
            text = self._page_text(records, ending, plain=plain)
        except (orjson.JSONEncodeError, RowFault):
            # A lone surrogate, an integer beyond 64 bit, deep nesting; a path that fails on a record.
            text = None
        if text is not None:
            return Body(text=text, rows=len(records))
        return _body_of(self.lines(records, ending))

    def typed_page(self, records: Records, ending: bytes) -> Body | None:
        """See `Encoder.typed_page`."""
        row_type, rows, encoded = records.row_type, records.rows, records.encoded
        if encoded is None or not isinstance(row_type, RowType) or holds_nul(encoded.text):
            return None
        if not all(check.all_fine(row_type.at(rows, index)) for index, check in self._checks):
            return None
        return Body(text=_csv(encoded.text, _endings(encoded.extra, ending)), rows=len(rows))

    def lines(self, records: Sequence[Json], ending: bytes) -> Lines:
        """See `Encoder.lines`."""
        self._work.renew(len(records))
        return _line_by_line(records, lambda record: self._line(record, ending))

    def takes_long(self, records: int, size_bytes: int) -> bool:
        """See `Encoder.takes_long`: what the columns' paths look for is all that can take long."""
        return sum(effort(size_bytes, records) for effort in self._efforts) >= LONG_EFFORT

    def value(self, record: Json, column: str) -> Json:
        """See `Encoder.value`."""
        self._work.renew(1)
        return self._by_name[column](record) if column in self._by_name else record

    def _page_text(self, records: Sequence[Json], ending: bytes, *, plain: bool) -> bytes | None:
        if set(map(type, records)) != {dict}:
            return None
        exact = self._exact(records)
        if exact is not None:
            rows, text = exact
            endings = _endings(None, ending)
        else:
            rows, endings = self._loose(records, ending)
            text = orjson.dumps(rows, fragment)
        if not plain and holds_nul(text):
            return None
        # Behind the mark.
        if not all(check.all_fine([row[index + 1] for row in rows]) for index, check in self._checks):
            return None
        return _csv(text, endings)

    def _exact(self, records: Sequence[Json]) -> tuple[list[Any], bytes] | None:
        """The rows when every record has the declared fields, no others, and scalars as they stand; else None."""
        take = self._take
        if take is None or not self._exact_rows or self._converts:
            return None
        if set(map(len, records)) != {len(self._declared)}:
            return None
        try:
            rows = [(_MARK, *take(record)) for record in records]
        except KeyError:
            return None
        text, has_fractions = _written(rows)
        if has_fractions and self._whole:
            return None
        if (b"{" in text or text.count(b"[") != len(rows) + 1) and not _SCALARS.issuperset(
            map(type, chain.from_iterable(rows))
        ):
            return None
        return rows, text

    def _loose(self, records: Sequence[Json], ending: bytes) -> tuple[list[Any], Iterable[bytes]]:
        rows = [[_MARK, *self._values(record)] for record in records]
        return rows, _endings([len(row) > len(self._extractors) + 1 for row in rows], ending)

    def _values(self, record: dict[str, Json]) -> list[Json]:
        """The declared columns' values, every one a scalar, and `_extra` when there is something in it."""
        values, complete = self._declared_values(record)
        for index, read in self._reads:
            values[index] = read(values[index])
        for index in self._jsonb:
            if values[index] is not None:
                values[index] = _nested_text(values[index])
        types = set(map(type, values))
        if not _SCALARS.issuperset(types):
            values = [value if type(value) in _SCALARS else _nested_text(value) for value in values]
        if float in types and not all(isfinite(value) for value in values if type(value) is float):
            raise RowFault("a column's path makes a number beyond what a double holds")
        if self._whole and not (_MAYBE_WHOLE if self._converts else _FRACTIONS).isdisjoint(types):
            self._make_whole(values)
        if not (complete and len(record) == len(self._declared)):
            extra = self._extra(record)
            if extra is not None:
                values.append(extra)
        return values

    def _make_whole(self, values: list[Json]) -> None:
        for index in self._whole:
            value = values[index]
            if type(value) in _MAYBE_WHOLE:
                values[index] = number = whole(value)
                self._converts |= number is not value

    def _declared_values(self, record: dict[str, Json]) -> tuple[list[Json], bool]:
        """The columns' values, and whether the record is known to have all the declared fields."""
        if self._take is not None:
            try:
                return list(self._take(record)), True
            except KeyError:
                pass  # a field is missing: None, below
        return [extract(record) for extract in self._extractors], False

    def _extra(self, record: dict[str, Json]) -> str | None:
        declared = self._declared
        extra = {field: value for field, value in record.items() if field not in declared}
        # Sorted, so that the order in which a server sends them does not change the row's hash.
        return _without_nul(canonical(extra)) if extra else None

    def _line(self, record: Json, ending: bytes) -> bytes:
        text = canonical(record)
        if not isinstance(record, dict):
            raise RowFault(f"the record is {kind_of_record(record)}, not an object with fields")
        if holds_nul(text):
            raise RowFault(_HOLDS_NUL)
        values = self._values(record)
        self._make_whole(values)
        for index, read in self._checked_reads:
            read(values[index])
        missing = [name for name, index in self._key if values[index] is None]
        if missing:
            raise RowFault(f"key field {', '.join(missing)} is missing or null")
        if len(values) == len(self._extractors):
            ending = b",null" + ending
        line = _csv(json_text([[_MARK, *values]]).encode(), (ending,))[:-1]
        if b"\0" in line:
            raise RowFault(
                "a column's path makes a text with the character NUL, which PostgreSQL cannot store"
            )
        return line


def _endings(extra: Sequence[bool] | None, ending: bytes) -> Iterable[bytes]:
    """What ends the rows, of which some have undeclared fields."""
    without = b",null" + ending
    return repeat(without) if extra is None else [ending if each else without for each in extra]


def _nested_text(value: Json) -> str:
    return _without_nul(json_text(value).encode())


def _without_nul(json_of_value: bytes) -> str:
    """The text of a value that stands within a text: there its NUL could not be told from one that is only spelled."""
    if holds_nul(json_of_value):
        raise RowFault(_HOLDS_NUL)
    return json_of_value.decode()


def _written(rows: list[Any]) -> tuple[bytes, bool]:
    """Rows as JSON, and whether one of their numbers has a fraction or an exponent."""
    met = False

    def noted(value: Any) -> Any:
        nonlocal met
        met = True
        return fragment(value)

    return orjson.dumps(rows, noted), met


def _by_index(
    columns: Mapping[str, Column], reader: Callable[[str, Column], Read | None]
) -> list[tuple[int, Read]]:
    reads = enumerate(reader(name, column) for name, column in columns.items())
    return [(index, read) for index, read in reads if read is not None]


def _csv(array_of_rows: bytes, endings: Iterable[bytes]) -> bytes:
    """Rows as one JSON array of arrays, each with the mark first, as CSV: hash, values, ending.

    The hash is of the row's values as JSON, without brackets; of `_extra` only where there is one.
    """
    lines = array_of_rows[len(_FIRST_ROW) : -2].split(_ROW_BREAK)
    # Written out: a call per row would be a tenth of the whole.
    text = b"".join(
        [
            b'"\\x%b",%b%b\n' % (hexlify(blake2b(line, digest_size=_HASH_BYTES).digest()), line, ending)
            for line, ending in zip(lines, endings, strict=False)
        ]
    )
    return _raw_controls(text) if b"\\" in array_of_rows else text


def _taker(fields: Sequence[str]) -> Callable[[Json], tuple[Json, ...]]:
    if len(fields) > 1:
        return itemgetter(*fields)
    (field,) = fields
    return lambda record: (record[field],)


def _is_json(declared_type: str) -> bool:
    return declared_type.strip().lower() in _JSON_TYPES


def kind_of_record(value: Json) -> str:
    """What kind of JSON value a record is, in words."""
    names = {dict: "an object", list: "an array", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


class DocumentEncoder:
    """Rows that hold whole records.

    JSON never holds a raw control character, so with two of them as delimiter and quote the records go into
    the COPY as they are.
    """

    row_type: RowType | None = None
    delimiter = b"\x02"
    copy_options = "FORMAT csv, NULL E'\\x03', DELIMITER E'\\x02', QUOTE E'\\x01', ENCODING 'UTF8'"

    def __init__(self, target: Target, layout: Layout) -> None:
        self._key = target.key if layout.key else ()
        key_column = (DOCUMENT_KEY,) if self._key else ()
        self.columns = (*key_column, DOCUMENT, "_content_hash", "_task_id", "_shard", "_fetched_at")

    def page(self, records: Sequence[Json], ending: bytes, *, plain: bool) -> Body:  # noqa: ARG002
        """See `Encoder.page`."""
        return _body_of(self.lines(records, ending))

    def typed_page(self, records: Records, ending: bytes) -> Body | None:  # noqa: ARG002
        """See `Encoder.typed_page`: whole records are not read as rows."""
        return None

    def lines(self, records: Sequence[Json], ending: bytes) -> Lines:
        """See `Encoder.lines`."""
        return _line_by_line(records, lambda record: self._line(record, ending))

    def takes_long(self, records: int, size_bytes: int) -> bool:  # noqa: ARG002
        """See `Encoder.takes_long`: nothing is looked for."""
        return False

    def value(self, record: Json, column: str) -> Json:  # noqa: ARG002
        """See `Encoder.value`."""
        return record

    def _line(self, record: Json, ending: bytes) -> bytes:
        text = canonical(record)
        if holds_nul(text):
            raise RowFault(_HOLDS_NUL)
        key = (self._key_text(record),) if self._key else ()
        return self.delimiter.join((*key, text, b"\\x" + _hash(text).encode())) + ending

    def _key_text(self, record: Json) -> bytes:
        if not isinstance(record, dict):
            raise RowFault(f"the record is {kind_of_record(record)}, not an object with fields")
        values = [record.get(field) for field in self._key]
        missing = list(compress(self._key, (value is None for value in values)))
        if missing:
            raise RowFault(f"key field {', '.join(missing)} is missing or null")
        return json_text(values).encode()
