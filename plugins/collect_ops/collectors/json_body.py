r"""A response body as JSON: exact, bounded in depth, and fast. Pure.

msgspec is the fast path. It gives integers of any size and hands out every other number as it is spelled. What it
refuses is read by the standard library, so that one value never costs a page:

* NaN and Infinity are `OddNumber`, which no JSON writer takes;
* a byte that is not UTF-8 is a lone surrogate (`\udce9` for 0xE9), as is a lone surrogate that was spelled out;
* control characters within texts are read as they stand;
* what keeps a browser from running the body as a script (`)]}'`, `for(;;);`) is left out.

The first two end as one bad row, if they stand in a row.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, Final

import msgspec
import orjson

from collect_ops.collectors.page import Json
from collect_ops.kernel.json_numbers import integer, spelled
from collect_ops.kernel.odd_number import OddNumber


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
# Of these one wrong byte is one wrong character.
_JSONS_OWN = frozenset({"utf-8", "ascii"})
_BOM = b"\xef\xbb\xbf"
# orjson's words for a document that stops before its end, and the standard library's; tests hold them.
_AT_END = "unexpected end of data"
_UNTERMINATED = "Unterminated string"
_ESCAPE = "Invalid \\uXXXX escape"
# A pair of surrogates is read in one.
_CUT_ESCAPE = re.compile(r"u[0-9a-fA-F]{0,4}(?:\\(?:u[0-9a-fA-F]{0,4})?)?")
_CUT_NUMBER = re.compile(r"\.|[eE][+-]?|-")
_WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
# What stands before a body so that no browser runs it as a script.
_GUARD = re.compile(rb"\s*(?:\)\]\}'?,?|(?:while|for)\s*\((?:1|;;)\)\s*;?|&&&START&&&|\{\}\s*&&)\s*")
_ESCAPED_BYTES = range(0xDC80, 0xDD00)
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
        guard = _GUARD.match(body)
        if guard is not None:
            return parse(body[guard.end() :], max_depth=max_depth, charset=charset)
        document = _parse_slowly(body, charset)
    if _deeper_than(document, body, max_depth):
        raise TooDeep
    return document


def _begins_json(body: bytes) -> bool:
    return body.lstrip()[:1] in (b"[", b"{")


def _refuse_beginning(body: bytes) -> None:
    # orjson alone tells the end of a document from the end of an escape.
    if not _begins_json(body):
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
        return json.loads(
            text, strict=False, parse_constant=OddNumber, parse_float=spelled, parse_int=integer
        )
    except RecursionError as error:
        raise TooDeep from error
    except json.JSONDecodeError as error:
        if _begins_json(body) and _is_at_end(error):
            raise Truncated(str(error)) from error
        raise Unreadable(f"{error}{_character_at(error)}") from error
    except ValueError as error:
        raise Unreadable(str(error)) from error


def _is_at_end(error: json.JSONDecodeError) -> bool:
    """Whether reading ended because the text does."""
    if error.msg.startswith(_UNTERMINATED):
        return True
    rest = error.doc[error.pos :].rstrip()
    if error.msg.startswith(_ESCAPE):
        return _CUT_ESCAPE.fullmatch(rest) is not None
    return _CUT_NUMBER.fullmatch(rest) is not None or any(word.startswith(rest) for word in _WORDS)


def _character_at(error: json.JSONDecodeError) -> str:
    """What stands where reading ended: one character, since more might be the beginning of a secret."""
    character = error.doc[error.pos : error.pos + 1]
    if not character:
        return ""
    if ord(character) in _ESCAPED_BYTES:
        return f", where the byte 0x{ord(character) - 0xDC00:02X} stands"
    return f", where {character!r} stands"


def _decoded(body: bytes, charset: str) -> str:
    try:
        codec = _codec(charset)
        return body.decode(codec, errors="surrogateescape" if codec in _JSONS_OWN else "strict")
    except (LookupError, ValueError) as error:
        raise Unreadable(f"not text: {error}") from error


def _codec(charset: str) -> str:
    # An error quotes it whole: of a secret that a server repeats here and that is cut, the beginning would be shown.
    codec = codecs.lookup(charset).name if len(charset) <= _MAX_CHARSET else None
    if codec is None or codec in _NO_CHARSETS:
        raise LookupError(f"{charset!r} is not a character set")
    return codec


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
