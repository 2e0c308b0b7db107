r"""A response body as JSON: exact, bounded in depth, and fast. Pure.

msgspec is the fast path. It gives integers of any size and hands out every other number as it is spelled. Two rare
cases go to the standard library: it refuses lone surrogates (`"\ud800"` is JSON, and makes one bad row, not a bad
page), and it reads UTF-8 only. NaN and Infinity are refused by both.
"""

from __future__ import annotations

import codecs
import json
from typing import Any, Final, NoReturn

import msgspec
import orjson

from collect_ops.collectors.page import Json
from collect_ops.kernel.json_numbers import integer, spelled


class Unreadable(ValueError):
    """The text is not JSON; says why."""


class Truncated(ValueError):
    """The text is the beginning of a JSON document."""


class TooDeep(ValueError):
    """The document nests deeper than allowed."""


# What Python has among its codecs and is no character set: some fail on every text, some take for ever on a long one
# (punycode, idna), some give other texts. Codecs that are not from bytes to text (hex, rot13) are refused by decode().
_NO_CHARSETS = frozenset(
    {"idna", "mbcs", "oem", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"}
)
_MAX_CHARSET = 40
_BOM = b"\xef\xbb\xbf"
# orjson's words for a document that stops before its end; a test holds them.
_AT_END = "unexpected end of data"
_DECODER: Final = msgspec.json.Decoder(float_hook=spelled)


def parse(raw: bytes, *, max_depth: int, charset: str | None = None) -> Json:
    """The document in `raw`.

    Args:
        raw: The body.
        max_depth: How deep arrays and objects may nest; 1 is a flat array or object.
        charset: What Content-Type says, when it says something.

    Raises:
        Unreadable: It is not JSON.
        Truncated: It is the beginning of JSON.
        TooDeep: It nests deeper than `max_depth`.
    """
    body = raw[3:] if raw.startswith(_BOM) else raw
    try:
        document = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _refuse_beginning(body)
        document = _parse_slowly(body, charset)
    if _deeper_than(document, body, max_depth):
        raise TooDeep
    return document


def _refuse_beginning(body: bytes) -> None:
    # orjson alone tells the end of a document from the end of an escape.
    if body.lstrip()[:1] not in (b"[", b"{"):
        return
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if str(error).startswith(_AT_END):
            raise Truncated(str(error)) from error


def _parse_slowly(body: bytes, charset: str | None) -> Json:
    if not body.strip():
        raise Unreadable("the body is empty")
    text = _decoded(body, charset or json.detect_encoding(body))
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=spelled, parse_int=integer)
    except RecursionError as error:
        raise TooDeep from error
    except ValueError as error:
        raise Unreadable(str(error)) from error


def _decoded(body: bytes, charset: str) -> str:
    try:
        return body.decode(_codec(charset))
    except (LookupError, ValueError) as error:
        raise Unreadable(f"not text: {error}") from error


def _codec(charset: str) -> str:
    # An error quotes it whole: of a secret that a server repeats here and that is cut, the beginning would be shown.
    codec = codecs.lookup(charset).name if len(charset) <= _MAX_CHARSET else None
    if codec is None or codec in _NO_CHARSETS:
        raise LookupError(f"{charset!r} is not a character set")
    return codec


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _deeper_than(document: Json, body: bytes, max_depth: int) -> bool:
    # Every container has an opening bracket, and each row that is one spends its own, beside those of the
    # path that may be deep. So for flat rows counting brackets is proof, and no walk is needed; brackets
    # within strings only make it needed more often.
    openers = _count_up_to(body, b"[", max_depth) + body.count(b"{")
    if openers <= max_depth:
        return False
    rows = _longest_list(document)
    if rows and set(map(type, rows)) <= {dict, list} and openers - len(rows) + 1 <= max_depth:
        return False
    return _depth_over(document, max_depth)


def _count_up_to(body: bytes, byte: bytes, limit: int) -> int:
    # find() skips what is not there far faster than count() walks, and rows have few arrays, if any. Beyond
    # the limit the exact number does not matter: the walk decides.
    position = -1
    for found in range(limit):
        position = body.find(byte, position + 1)
        if position < 0:
            return found
    return len(body)


def _longest_list(document: Json) -> list[Any]:
    if isinstance(document, list):
        return document
    if isinstance(document, dict):
        return max((value for value in document.values() if isinstance(value, list)), key=len, default=[])
    return []


def _depth_over(document: Json, max_depth: int) -> bool:
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(max_depth):
        if not level:
            return False
        level = [
            value
            for container in level
            for value in (container.values() if type(container) is dict else container)
            if type(value) is dict or type(value) is list
        ]
    return bool(level)
