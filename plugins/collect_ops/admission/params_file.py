"""Files of params, CSV or NDJSON, read line by line: a bad line is a value, never an error that ends the reading."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import PurePath
from typing import Any, BinaryIO

import orjson

from collect_ops.kernel.errors import Fault, ValidationFailed

#: Bytes of an NDJSON line at most, and characters of a CSV field (Python's own limit).
MAX_LINE_BYTES = 1024 * 1024
#: Of a bad line, for people.
_MAX_RAW = 2000


class Format(StrEnum):
    """What a file of params is."""

    CSV = "csv"
    NDJSON = "ndjson"


_BY_SUFFIX = {
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".ndjson": Format.NDJSON,
    ".jsonl": Format.NDJSON,
    ".json": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a file.

    Args:
        number: From 1, as an editor counts; a CSV record of several lines has that of its first.
        params: Values for the source's parameters.
        raw: The line, for people, when it is bad; shortened.
        faults: Why it cannot be read.
        spans: Lines of the file that it takes up.
    """

    number: int
    params: Mapping[str, Any]
    raw: str = ""
    faults: tuple[Fault, ...] = ()
    spans: int = 1


def format_of(name: str) -> Format:
    """The format that a file's name says.

    Raises:
        ValidationFailed: It says none.
    """
    found = _BY_SUFFIX.get(PurePath(name).suffix.lower())
    if found is None:
        allowed = tuple(suffix for suffix, format_ in _BY_SUFFIX.items() if format_)
        fault = Fault(
            field="params file", value=name, problem="its name tells no format; give it", allowed=allowed
        )
        raise ValidationFailed("params file", [fault])
    return found


def read_lines(file: BinaryIO, format_: Format, *, tabs: bool = False) -> Iterator[Line]:
    """The lines of a file, from its beginning.

    A CSV file has a header of parameter names; an empty cell leaves the parameter out. Of an NDJSON file each line is
    an object; blank lines are skipped. Both are UTF-8, with or without a byte order mark.

    Args:
        file: Seekable.
        format_: What it is.
        tabs: Whether a CSV file's cells are separated by tabs.

    Raises:
        ValidationFailed: A CSV file's header cannot be used.
    """
    file.seek(0)
    return _ndjson(file) if format_ is Format.NDJSON else _csv(file, "\t" if tabs else ",")


def _csv(file: BinaryIO, delimiter: str) -> Iterator[Line]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        first = _FirstLine(text)
        reader = csv.reader(first, delimiter=delimiter, strict=True)
        names = _header(reader)
        while True:
            number = reader.line_num + 1
            first.forget()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                spans = max(1, reader.line_num - number + 1)
                # An unclosed quote takes what follows with it: those lines are not read, and that is said.
                swallowed = f", and lines to {number + spans - 1} are part of it" if spans > 1 else ""
                fault = Fault(field="line", value=None, problem=f"{error}{swallowed}")
                yield replace(_bad(number, first.text.rstrip("\r\n"), fault), spans=spans)
                continue
            if cells:
                yield _record(number, names, cells, delimiter)
    finally:
        text.detach()  # whoever opened the file closes it


class _FirstLine:
    """The lines of a text, of which the first since `forget` is kept."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.text = ""

    def forget(self) -> None:
        self.text = ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.text = self.text or line
        return line


def _header(reader: Iterator[list[str]]) -> list[str]:
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ValidationFailed(
            "params file", [Fault(field="header", value=None, problem=str(error))]
        ) from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if not all(map(_is_utf8, names)):
        names, problem = [_shown(name) for name in names], "is no UTF-8"
    elif not names or not all(names):
        problem = "must name a parameter in each column of the first line"
    elif twice:
        problem = f"names {', '.join(twice)} twice"
    else:
        return names
    raise ValidationFailed(
        "params file", [Fault(field="header", value=",".join(names)[:_MAX_RAW] or None, problem=problem)]
    )


def _record(number: int, names: list[str], cells: list[str], delimiter: str) -> Line:
    if len(cells) != len(names):
        fault = Fault(field="line", value=len(cells), problem=f"must have {len(names)} cells like the header")
        return _bad(number, delimiter.join(cells), fault)
    params = {name: cell for name, cell in zip(names, cells, strict=True) if cell != ""}
    faults = [
        Fault(field=name, value=_shown(cell), problem="is no UTF-8")
        for name, cell in params.items()
        if not _is_utf8(cell)
    ]
    if faults:
        return _bad(number, delimiter.join(cells), *faults)
    return Line(number=number, params=params, raw=delimiter.join(cells)[:_MAX_RAW])


def _ndjson(file: BinaryIO) -> Iterator[Line]:
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        shown = raw[:_MAX_RAW].decode("utf-8", "backslashreplace").rstrip("\r\n")
        if len(raw) > MAX_LINE_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(MAX_LINE_BYTES)
            yield _bad(
                number,
                shown,
                Fault(field="line", value=None, problem=f"is longer than {MAX_LINE_BYTES} bytes"),
            )
        elif raw.strip():
            yield _object(number, raw, shown)


def _object(number: int, raw: bytes, shown: str) -> Line:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return _bad(number, shown, Fault(field="line", value=None, problem=f"is no JSON: {error}"))
    if not isinstance(value, dict):
        problem = "must be an object of parameters"
        return _bad(number, shown, Fault(field="line", value=type(value).__name__, problem=problem))
    return Line(number=number, params=value, raw=shown)


def _bad(number: int, raw: str, *faults: Fault) -> Line:
    return Line(number=number, params={}, raw=_shown(raw[:_MAX_RAW]), faults=faults)


def _is_utf8(text: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in text)


def _shown(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
