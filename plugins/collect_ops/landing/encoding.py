r"""Pages as the text of one COPY: pure, and the hot path of landing.

A row costs about 3 microseconds here, content hash included. That is because nothing is done per value in
Python: orjson writes all rows of a page in one call, as an array of arrays, and such an array *is* CSV to
PostgreSQL when told so (NULL 'null', ESCAPE '\\'): JSON's numbers, true, false and quoted texts read as they
stand, an unquoted null is NULL, and a text "null" is not. What sits between two rows (`],["`) is then
replaced by what ends a row (where it came from) and begins the next (the content hash, which is why it goes
first). Whatever does not fit the assumption (other keys than declared, nested values, `],["` within a text,
control characters) takes a slower turn here; what cannot be encoded as a page is encoded row by row, which
finds the records that cannot be rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from itertools import compress
from operator import itemgetter
from typing import Final, Protocol

import orjson

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
from collect_ops.sources.expressions import LONG_EFFORT, PageWork
from collect_ops.sources.model import Target

_SORTED: Final = orjson.OPT_SORT_KEYS
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_JSON_TYPES: Final = frozenset({"json", "jsonb"})

_HASH_BYTES: Final = 16
_ROW_BREAK: Final = b'],["'
_ROW_START: Final = b'"\\x'

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
    """

    columns: tuple[str, ...]
    copy_options: str
    delimiter: bytes

    def page(self, records: Sequence[Json], ending: bytes, *, plain: bool) -> Body:
        """A page; `ending` ends each row (see `provenance`); `plain` as in `LandingPage`."""

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


def _hash(canonical_json: bytes) -> str:
    return blake2b(canonical_json, digest_size=_HASH_BYTES).hexdigest()


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


def _hashes(records: Sequence[Json], *, plain: bool) -> list[str] | None:
    """The records' content hashes; None when one holds what cannot be stored."""
    texts = [orjson.dumps(record, None, _SORTED) for record in records]
    if not plain and any(map(holds_nul, texts)):
        return None
    # Written out: a call per row would be a tenth of the whole.
    return [blake2b(text, digest_size=_HASH_BYTES).hexdigest() for text in texts]


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
        names = tuple(target.columns)
        self.columns = ("_content_hash", *names, EXTRA, "_task_id", "_shard", "_fetched_at")
        self._work = PageWork()
        self._extractors = [extractor(name, column, self._work) for name, column in target.columns.items()]
        self._by_name = dict(zip(names, self._extractors, strict=True))
        efforts = (effort_of(name, column) for name, column in target.columns.items())
        self._efforts = [effort for effort in efforts if effort is not None]
        self._jsonb = [names.index(name) for name, column in target.columns.items() if _is_json(column.type)]
        fields = [field_of(name, column) for name, column in target.columns.items()]
        self._declared = frozenset(field for field in fields if field is not None)
        self._key = tuple((name, names.index(name)) for name in layout.key)
        # Only when each column is a field of its own can a record be told to hold nothing else by its length.
        simple = len(self._declared) == len(names)
        self._take = _taker([field for field in fields if field is not None]) if simple else None

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
        hashes = _hashes(records, plain=plain)
        if hashes is None:
            return None
        return self._exact(records, hashes, ending) or self._loose(records, hashes, ending)

    def _exact(self, records: Sequence[Json], hashes: list[str], ending: bytes) -> bytes | None:
        """The page when every record has the declared fields, no others, and no nested values; else None."""
        take = self._take
        if take is None or self._jsonb or set(map(len, records)) != {len(self._declared)}:
            return None
        try:
            rows = [(digest, *take(record)) for digest, record in zip(hashes, records, strict=True)]
        except KeyError:
            return None
        text = orjson.dumps(rows)
        if b"{" in text or text.count(b"[") != len(rows) + 1:
            return None
        return _csv(text, len(rows), b",null" + ending)

    def _loose(self, records: Sequence[Json], hashes: list[str], ending: bytes) -> bytes:
        rows = [(digest, *self._values(record)) for digest, record in zip(hashes, records, strict=True)]
        text = _csv(orjson.dumps(rows), len(rows), ending)
        if text is None:
            text = b"".join(self._finish(orjson.dumps(row), ending) + b"\n" for row in rows)
        return text

    def _values(self, record: dict[str, Json]) -> list[Json]:
        """The declared columns' values and `_extra`, every one a scalar."""
        values, complete = self._declared_values(record)
        for index in self._jsonb:
            if values[index] is not None:
                values[index] = json_text(values[index])
        if not _SCALARS.issuperset(map(type, values)):
            values = [value if type(value) in _SCALARS else json_text(value) for value in values]
        only_declared = complete and len(record) == len(self._declared)
        values.append(None if only_declared else self._extra(record))
        return values

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
        return json_text(extra) if extra else None

    def _line(self, record: Json, ending: bytes) -> bytes:
        text = canonical(record)
        if not isinstance(record, dict):
            raise RowFault(f"the record is {_kind(record)}, not an object with fields")
        if holds_nul(text):
            raise RowFault("a text holds the character NUL (\\u0000), which PostgreSQL cannot store")
        values = self._values(record)
        missing = [name for name, index in self._key if values[index] is None]
        if missing:
            raise RowFault(f"key field {', '.join(missing)} is missing or null")
        line = self._finish(json_text([_hash(text), *values]).encode(), ending)
        if b"\0" in line:
            raise RowFault(
                "a column's path makes a text with the character NUL, which PostgreSQL cannot store"
            )
        return line

    def _finish(self, array: bytes, ending: bytes) -> bytes:
        return _ROW_START + _raw_controls(array[2:-1]) + ending


def _csv(array_of_rows: bytes, rows: int, ending: bytes) -> bytes | None:
    """Rows as orjson wrote them, as CSV; None when a text holds what stands between two rows."""
    if array_of_rows.count(_ROW_BREAK) != rows - 1:
        return None
    text = _raw_controls(array_of_rows[3:-2])
    return b"".join((_ROW_START, text.replace(_ROW_BREAK, ending + b"\n" + _ROW_START), ending, b"\n"))


def _taker(fields: Sequence[str]) -> Callable[[Json], tuple[Json, ...]]:
    if len(fields) > 1:
        return itemgetter(*fields)
    (field,) = fields
    return lambda record: (record[field],)


def _is_json(declared_type: str) -> bool:
    return declared_type.strip().lower() in _JSON_TYPES


def _kind(value: Json) -> str:
    names = {list: "an array", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


class DocumentEncoder:
    """Rows that hold whole records.

    JSON never holds a raw control character, so with two of them as delimiter and quote the records go into
    the COPY as they are.
    """

    delimiter = b"\x02"
    copy_options = "FORMAT csv, NULL E'\\x03', DELIMITER E'\\x02', QUOTE E'\\x01', ENCODING 'UTF8'"

    def __init__(self, target: Target, layout: Layout) -> None:
        self._key = target.key if layout.key else ()
        key_column = (DOCUMENT_KEY,) if self._key else ()
        self.columns = (*key_column, DOCUMENT, "_content_hash", "_task_id", "_shard", "_fetched_at")

    def page(self, records: Sequence[Json], ending: bytes, *, plain: bool) -> Body:  # noqa: ARG002
        """See `Encoder.page`."""
        return _body_of(self.lines(records, ending))

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
            raise RowFault("a text holds the character NUL (\\u0000), which PostgreSQL cannot store")
        key = (self._key_text(record),) if self._key else ()
        return self.delimiter.join((*key, text, b"\\x" + _hash(text).encode())) + ending

    def _key_text(self, record: Json) -> bytes:
        if not isinstance(record, dict):
            raise RowFault(f"the record is {_kind(record)}, not an object with fields")
        values = [record.get(field) for field in self._key]
        missing = list(compress(self._key, (value is None for value in values)))
        if missing:
            raise RowFault(f"key field {', '.join(missing)} is missing or null")
        return json_text(values).encode()
