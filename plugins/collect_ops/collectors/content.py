"""The content of a response: its bytes, read as far, and in the way, that somebody asks for.

A page of rows can be read straight into a target's rows (`RowReader`), which is a third of the work of parsing it. What
else needs its document (an expression, a preview, rows that do not fit) parses it then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol, Self, overload

import msgspec
from typing_extensions import override

from collect_ops.collectors import json_body
from collect_ops.collectors.page import Json
from collect_ops.kernel.json_text import json_bytes

#: Odd pages after which a shard reads its pages as records.
MAX_ODD_PAGES: Final = 3

_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)
#: Levels of nesting in a row's undeclared fields; what nests deeper is parsed.
MAX_EXTRA_DEPTH: Final = 8
#: Fields beside the rows, all levels together; with more, a page is not read this way.
_MAX_FIELDS: Final = 100
_ABSENT: Final = msgspec.Raw(b"")
#: Bytes of them in one page.
_MAX_FIELDS_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows as text.

    Args:
        text: A JSON array of arrays: an empty text, the values of the row type's fields, and an object of the others as
            text where there are others.
        extra: Which of the rows have others; None for none of them.
    """

    text: bytes
    extra: Sequence[bool] | None


class RowType(Protocol):
    """What a page's records may be read as, made of what they are to become (`landing.typed_rows`).

    Attributes:
        struct: The msgspec struct of a row.
        fields: The declared fields, which are null where a record lacks them.
    """

    struct: type
    fields: tuple[str, ...]

    def learnt(self, records: Sequence[Json]) -> Self | None:
        """The row type that takes the other fields of these records as well; None when it is this one.

        Raises:
            ValueError: Such a type cannot be made.
        """

    def encoded(self, rows: Sequence[Any]) -> EncodedRows | None:
        """The rows as text; None when one of them has to be read as a record."""

    def column(self, rows: Sequence[Any], field: str) -> list[Json] | None:
        """What the rows have in a field; None when one of them has to be read as a record."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A page's rows.

    Args:
        row_type: What they were read as.
        rows: Instances of its struct.
        envelope: The document without them.
    """

    row_type: RowType
    rows: Sequence[Any]
    envelope: Json


class Records(Sequence[Json]):
    """Records of a page that was read as rows: parsed when somebody looks at them, their number known.

    Args:
        row_type: What they were read as.
        rows: What was read.
        parse: Gives the records.
        odd: Told when the rows could not be used after all.
    """

    def __init__(
        self,
        row_type: RowType,
        rows: Sequence[Any],
        parse: Callable[[], Sequence[Json]],
        odd: Callable[[], None],
    ) -> None:
        self.row_type = row_type
        self.rows = rows
        self._parse = parse
        self._odd = odd
        self._records: Sequence[Json] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Json: ...
    @overload
    def __getitem__(self, place: slice) -> Records: ...
    @override
    def __getitem__(self, place: int | slice) -> Json:
        if isinstance(place, slice):
            return Records(self.row_type, self.rows[place], lambda: self._parsed()[place], self._odd)
        return self._parsed()[place]

    def __eq__(self, other: object) -> bool:
        return self._parsed() == other

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def encoded(self) -> EncodedRows | None:
        """See `RowType.encoded`."""
        return self.row_type.encoded(self.rows)

    def parsed(self) -> Sequence[Json]:
        """The records, since the rows could not be used."""
        self._odd()
        return self._parsed()

    def compared(self) -> Sequence[Json]:
        """The records, to compare them with others; whether the rows can be used is not said by that."""
        return self._parsed()

    def _parsed(self) -> Sequence[Json]:
        if self._records is None:
            self._records = self._parse()
        return self._records


class RowReader:
    """Reads pages of one source as rows. Pages that it could not read teach it which fields there are.

    Args:
        row_type: A row.
        path: Where the list of rows stands: the names of fields; none: the document is the list.
        max_depth: Levels of nesting in a document.
    """

    def __init__(self, row_type: RowType, path: Sequence[str], max_depth: int) -> None:
        self.row_type = row_type
        self._path = path
        self._max_depth = max_depth
        self._fields: tuple[tuple[str, ...], ...] | None = None if path else ()
        # Without an envelope there is nothing to learn.
        self._decoder = None if path else msgspec.json.Decoder(_list_of(row_type.struct))

    @classmethod
    def of(cls, row_type: RowType | None, records: str, max_depth: int) -> Self | None:
        """A reader for a source's `records`; None when they are not simply a list at the end of a path."""
        if row_type is None or not (records == "@" or _PATH.fullmatch(records)):
            return None
        path = () if records == "@" else tuple(records.split("."))
        return cls(row_type, path, max_depth) if len(path) + 1 + MAX_EXTRA_DEPTH <= max_depth else None

    def read(self, body: bytes) -> Rows | None:
        """A page's rows; None when it has to be parsed."""
        if self._decoder is None:
            return None
        try:
            found = self._decoder.decode(body)
            if not self._path:
                return Rows(self.row_type, found, [])
            envelope: dict[str, Json] = {}
            return Rows(self.row_type, self._rows_in(found, envelope), envelope)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, *_UNREADABLE):
            return None

    def learn(self, document: Json) -> bool:
        """Learn from a page that was parsed which fields there are; returns whether one of them is new."""
        found = _fields_beside(document, self._path)
        if found is None:
            return False
        fields, records = found
        known = self._fields or ((),) * len(self._path)
        merged = tuple(
            (*old, *(name for name in new if name not in old)) for old, new in zip(known, fields, strict=True)
        )
        try:
            row_type = self.row_type.learnt(records)
            if (row_type is None and merged == self._fields) or sum(map(len, merged)) > _MAX_FIELDS:
                return False
            row_type = row_type or self.row_type
            self._decoder = msgspec.json.Decoder(_envelope(row_type.struct, self._path, merged))
        except ValueError:
            return False  # too many fields, or a name that msgspec does not take
        self._fields, self.row_type = merged, row_type
        return True

    def _rows_in(self, level: Any, envelope: dict[str, Json]) -> list[Any]:
        """The rows, the fields beside them written into the envelope."""
        left = _MAX_FIELDS_BYTES
        for depth, names in enumerate(self._fields or ()):
            for index, name in enumerate(names):
                raw = getattr(level, f"f{index}")
                if raw == _ABSENT:
                    continue
                left -= len(memoryview(raw))
                if left < 0:
                    raise json_body.Unreadable("too much beside the rows")
                envelope[name] = json_body.parse(bytes(raw), max_depth=self._max_depth - depth - 1)
            level = level.inner
            if depth + 1 < len(self._path):
                envelope[self._path[depth]] = envelope = {}
        rows: list[Any] = level
        return rows


_UNREADABLE: Final = (json_body.Unreadable, json_body.Truncated, json_body.TooDeep)


class ShardReader:
    """A shard's use of its source's reader: given up after three pages that are not like the others."""

    def __init__(self, reader: RowReader) -> None:
        self._reader = reader
        self._odd_pages = 0

    def read(self, body: bytes) -> Rows | None:
        """A page's rows; None when it has to be parsed."""
        return None if self._odd_pages >= MAX_ODD_PAGES else self._reader.read(body)

    def missed(self, document: Json) -> None:
        """Learn of a page that had to be parsed."""
        if self._odd_pages < MAX_ODD_PAGES and not self._reader.learn(document):
            self.odd()

    def odd(self) -> None:
        """A page could not be used as rows."""
        self._odd_pages += 1


class Content:
    """A response's body.

    Args:
        body: Its bytes.
        parse: Gives the document, or raises what is wrong with it. Called at once, unless it was read as rows.
        reader: Reads it as rows; None where it is no page of rows.
    """

    def __init__(self, body: bytes, parse: Callable[[], Json], reader: ShardReader | None = None) -> None:
        self._parse = parse
        self._document: Json = None
        self._is_parsed = False
        self.rows = None if reader is None else reader.read(body)
        if self.rows is None and reader is not None:
            reader.missed(self.document)
        elif self.rows is None:
            self._is_parsed, self._document = True, parse()

    @property
    def document(self) -> Json:
        """The body as JSON."""
        if not self._is_parsed:
            self._document = self._parse()
            self._is_parsed = True
        return self._document


def values_of(records: Sequence[Json], field: str) -> list[Json]:
    """What records have in a field, None where they lack it; the same whether they were parsed or read as rows.

    Raises:
        AttributeError: One of them is no object.
    """
    if isinstance(records, Records):
        if field in records.row_type.fields:
            values = records.row_type.column(records.rows, field)
            if values is not None:
                return values
        records = records.compared()
    return [record.get(field) for record in records]


def text_of(records: Sequence[Json], row_type: RowType | None) -> bytes:
    """Records as JSON, the same whether they were parsed or read as rows: to tell pages apart.

    Args:
        records: Of a page.
        row_type: What pages of their source may be read as.

    Raises:
        ValueError: They hold what cannot be written in UTF-8.
    """
    if isinstance(records, Records):
        if records.encoded is not None:
            return records.encoded.text
        records = records.compared()
    if row_type is not None and all(isinstance(record, dict) for record in records):
        fields = frozenset(row_type.fields)
        return json_bytes([_as_row(record, row_type.fields, fields) for record in records])
    return json_bytes(records)


def _as_row(record: dict[str, Json], names: Sequence[str], fields: frozenset[str]) -> list[Json]:
    """A record as `RowType.encoded` has it."""
    row = ["", *map(record.get, names)]
    if fields.issuperset(record):
        return row
    extra = {name: value for name, value in record.items() if name not in fields}
    return [*row, json_bytes(extra, sort_keys=True).decode()]


def stands_beside(expression: str, records: str) -> bool:
    """Whether an expression is a path that meets neither the list of rows nor what it stands in."""
    if not _PATH.fullmatch(expression) or not _PATH.fullmatch(records):
        return False
    wanted, path = expression.split("."), records.split(".")
    return any(one != other for one, other in zip(wanted, path, strict=False))


def _envelope(struct: type, path: Sequence[str], fields: Sequence[Sequence[str]]) -> type:
    """The type of a document whose rows stand at the end of a path, with the fields beside it at each level."""
    inner = _list_of(struct)
    for name, beside in zip(reversed(path), reversed(fields), strict=True):
        others = [
            (f"f{index}", msgspec.Raw, msgspec.field(default=_ABSENT, name=other))
            for index, other in enumerate(beside)
        ]
        inner = msgspec.defstruct(
            "Level",
            [("inner", inner, msgspec.field(name=name)), *others],
            gc=False,
            kw_only=True,
            forbid_unknown_fields=True,
        )
    made: type = inner
    return made


def _list_of(struct: type) -> Any:
    return list[struct]  # type: ignore[valid-type]


def _fields_beside(document: Json, path: Sequence[str]) -> tuple[list[list[str]], list[Json]] | None:
    """The names of the fields beside each part of the path, and the list at its end; None when it leads to none."""
    fields = []
    for name in path:
        if not isinstance(document, Mapping) or name not in document:
            return None
        fields.append([other for other in document if other != name])
        document = document[name]
    return (fields, document) if isinstance(document, list) else None
