"""Rows as msgspec reads them straight from a page's bytes, without a record in between. Pure.

That takes a third of the time of records, and no memory for their fields' names. It is for what most pages are: objects
with the declared fields, texts where texts are declared, numbers where numbers are, and whatever undeclared fields the
pages before have had. Anything else is read as records, which make the same lines.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, Self, TypeAlias

import msgspec

from collect_ops.collectors import json_body
from collect_ops.collectors.content import MAX_EXTRA_DEPTH, EncodedRows
from collect_ops.kernel.json_numbers import spelled
from collect_ops.kernel.json_text import Unwritable, json_bytes
from collect_ops.landing.model import Json
from collect_ops.landing.records import field_of, holds_nul
from collect_ops.sources.model import Target

Row: TypeAlias = Any
"""An instance of a `RowType`'s struct."""

_INTEGERS: Final = ("smallint", "integer", "bigint")
_FRACTIONS: Final = ("numeric", "real", "double precision")
_NOT_READ: Final = ("json",)
#: Undeclared fields of a source at most; with more, its pages are read as records.
_MAX_EXTRA: Final = 200
# Every row pays for each field that it might have: a source that makes up fields is better read as records.
_SPARSE: Final = 2
_SPARE: Final = 8
_ABSENT: Final = msgspec.Raw(b"")
#: A declared field that a record lacks is null.
_MISSING: Final = msgspec.Raw(b"null")


class RowType:
    """The struct of a target's rows.

    Args:
        fields: Where a record has each column's value, in the order of the columns; null where it lacks the field.
        types: The columns' types.
        extra: Undeclared fields that records may have; they go into `_extra`.
    """

    def __init__(self, fields: Sequence[str], types: Sequence[str], extra: Iterable[str] = ()) -> None:
        self.fields = tuple(fields)
        self.extra = tuple(sorted(extra))
        self._types = tuple(types)
        self._names = [f"c{index}" for index in range(len(fields))]
        # Of numbers with a fraction the bytes are kept: no digit is lost, and none is calculated.
        self._raw = [name for name, type_ in zip(self._names, types, strict=True) if _is_raw(type_)]
        self._width = 1 + len(self.fields)
        # `{"a":%b,"b":%b}`: what undeclared fields look like in `_extra`, as canonical JSON.
        members = b",".join(b"%b:%%b" % json_bytes(name).replace(b"%", b"%%") for name in self.extra)
        self._template = b"{%b}" % members
        self.struct: type = self._made()

    @classmethod
    def of(cls, target: Target) -> Self | None:
        """The row type of a target whose columns are fields of their own; None where a type is not read this way."""
        fields = [field_of(name, column) for name, column in target.columns.items()]
        types = [column.type for column in target.columns.values()]
        plain = [field for field in fields if field is not None]
        if len(set(plain)) < len(fields) or any(each.startswith(_NOT_READ) for each in types):
            return None
        return cls(plain, types)

    def _made(self) -> type:
        # No server can know this name, so no record has the field, and every row begins with the mark.
        mark = ("mark", str, msgspec.field(default="", name=f"mark {secrets.token_hex(8)}"))
        columns = [
            (
                name,
                _value_type(type_),
                msgspec.field(default=_MISSING if _is_raw(type_) else None, name=field),
            )
            for name, field, type_ in zip(self._names, self.fields, self._types, strict=True)
        ]
        extra = [
            (f"e{index}", msgspec.Raw, msgspec.field(default=_ABSENT, name=name))
            for index, name in enumerate(self.extra)
        ]
        return msgspec.defstruct(
            "Row", [mark, *columns, *extra], gc=False, kw_only=True, forbid_unknown_fields=True
        )

    def learnt(self, records: Sequence[Json]) -> Self | None:
        """The row type that takes the undeclared fields of records as well; None when it is this one.

        Raises:
            ValueError: There are too many of them, most records lack most of them, or one has a name that msgspec
                does not take.
        """
        objects = [record for record in records if isinstance(record, dict)]
        new = set().union(*objects).difference(self.fields, self.extra)
        if not new:
            return None
        names = (*self.extra, *new)
        usual = sum(map(len, objects)) / len(objects)
        if len(names) > _MAX_EXTRA or len(self.fields) + len(names) > _SPARSE * usual + _SPARE:
            raise ValueError(f"{len(names)} undeclared fields, of which most records lack most")
        return type(self)(self.fields, self._types, names)

    def encoded(self, rows: Sequence[Row]) -> EncodedRows | None:
        """See `content.RowType.encoded`."""
        if not all(_is_plain(list(map(attrgetter(name), rows))) for name in self._raw):
            return None
        tuples = list(map(_as_tuple, rows))
        if not self.extra:
            return EncodedRows(text=_encode(tuples), extra=None)
        width = self._width
        extras = [self._template % values[width:] for values in tuples]
        written: list[bytes] | None = extras
        if not _is_canonical(b"\n".join(extras), len(extras)):
            written = self._canonical(tuples, extras)
        try:
            texts = None if written is None else [extra.decode() for extra in written]
        except UnicodeDecodeError:
            return None
        if texts is None:
            return None
        values = [
            (*each[:width], text) if text != "{}" else each[:width]
            for each, text in zip(tuples, texts, strict=True)
        ]
        return EncodedRows(text=_encode(values), extra=[text != "{}" for text in texts])

    def _canonical(self, tuples: Sequence[tuple[Any, ...]], extras: Sequence[bytes]) -> list[bytes] | None:
        """The texts of undeclared fields as they would be written; None when one cannot be."""
        try:
            return [
                text if _is_canonical(text) else self._rewritten(values[self._width :], text)
                for values, text in zip(tuples, extras, strict=True)
            ]
        except (json_body.Unreadable, json_body.Truncated, json_body.TooDeep, Unwritable):
            return None

    def _rewritten(self, values: Sequence[msgspec.Raw], text: bytes) -> bytes:
        if b":," in text or b":}" in text:
            members = (
                b"%b:%b" % (json_bytes(name), raw)
                for name, raw in zip(self.extra, values, strict=True)
                if raw != _ABSENT
            )
            text = b"{%b}" % b",".join(members)
            if _is_canonical(text):
                return text
        text = json_bytes(json_body.parse(text, max_depth=MAX_EXTRA_DEPTH), sort_keys=True)
        if holds_nul(text):
            raise Unwritable("a text holds the character NUL")
        return text

    def at(self, rows: Sequence[Row], index: int) -> Iterable[Json]:
        """The values of a column, by its place; those of numbers with a fraction as raw bytes."""
        return map(attrgetter(self._names[index]), rows)

    def column(self, rows: Sequence[Row], field: str) -> list[Json] | None:
        """See `content.RowType.column`."""
        index = self.fields.index(field)
        values: list[Json] = list(self.at(rows, index))
        if self._names[index] in self._raw:
            try:
                values = _decode(_encode(values))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return None  # a byte that is not UTF-8, more digits than msgspec reads
        return values


_decode: Final = msgspec.json.Decoder(float_hook=spelled).decode
_encode: Final = msgspec.json.Encoder().encode
_as_tuple: Final = msgspec.structs.astuple


def _is_plain(values: Sequence[msgspec.Raw]) -> bool:
    """Whether values that nobody has looked at are numbers, null or texts that need no reading."""
    text = _encode(values)
    return (
        text.isascii()
        and b"\\" not in text
        and b"{" not in text
        and text.count(b"[") == 1
        # The integer -0 is 0 to who reads it.
        and b"-0," not in text
        and b"-0]" not in text
    )


def _is_canonical(text: bytes, objects: int = 1) -> bool:
    """Whether objects whose values nobody has looked at are written as they would be, or a text makes it seem not."""
    return (
        b"\\" not in text
        and b"[" not in text
        and text.count(b"{") == objects
        # A field that is not there, and the integer -0, which is 0 to who reads it.
        and b":," not in text
        and b":}" not in text
        and b":-0" not in text
    )


def _is_raw(declared: str) -> bool:
    return declared.startswith(_FRACTIONS)


def _value_type(declared: str) -> Any:
    if _is_raw(declared):
        return msgspec.Raw
    if declared in _INTEGERS:
        return int | None
    return bool | None if declared == "boolean" else str | None
