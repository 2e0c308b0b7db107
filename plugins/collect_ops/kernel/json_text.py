"""JSON values written down: numbers as their document spells them, integers of any size."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec
import orjson

from collect_ops.kernel.json_numbers import SpelledNumber
from collect_ops.kernel.odd_number import OddNumber


def fragment(value: Any) -> orjson.Fragment:
    """What orjson is to write for a number as it is spelled: its `default`."""
    if type(value) is SpelledNumber:
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value)} is not JSON")


def _raw(value: Any) -> msgspec.Raw:
    if type(value) is SpelledNumber:
        return msgspec.Raw(value.text.encode())
    if type(value) is OddNumber:
        raise Unwritable(f"{value.text} is a number that JSON does not have")
    raise TypeError(f"{type(value)} is not JSON")


_ANY_INTEGER: Final = msgspec.json.Encoder(enc_hook=_raw)
_ANY_INTEGER_SORTED: Final = msgspec.json.Encoder(enc_hook=_raw, order="sorted")


class Unwritable(ValueError):
    """A value that has no JSON text in UTF-8; says why."""


def json_bytes(value: Any, *, sort_keys: bool = False) -> bytes:
    """A value as compact JSON in UTF-8.

    Args:
        value: What JSON can say.
        sort_keys: Whether the fields of objects are sorted.

    Raises:
        Unwritable: A text holds a lone surrogate, or the value nests too deeply.
    """
    try:
        return orjson.dumps(value, fragment, orjson.OPT_SORT_KEYS if sort_keys else None)
    except orjson.JSONEncodeError:
        pass  # beside what cannot be written, it refuses integers beyond 64 bits
    try:
        return (_ANY_INTEGER_SORTED if sort_keys else _ANY_INTEGER).encode(value)
    except UnicodeEncodeError as error:
        character = _described(error.object[error.start])
        raise Unwritable(f"a text holds {character}, which is not a character") from error
    except RecursionError as error:
        raise Unwritable("it is nested too deeply") from error


#: What the bytes 0x80 to 0xFF are read as where they are not UTF-8.
_ESCAPED_BYTES: Final = range(0xDC80, 0xDD00)


def _described(surrogate: str) -> str:
    code = ord(surrogate)
    # What a server spelled out and a byte that is not UTF-8 cannot be told apart any more.
    byte = f" or the byte 0x{code - 0xDC00:02X}" if code in _ESCAPED_BYTES else ""
    return f"a lone surrogate (\\u{code:04x}){byte}"


_BEYOND_ASCII: Final = re.compile("[^\x00-\x7f]")


def ascii_json(value: Any) -> str:
    """A value as compact JSON in ASCII, which any database and terminal takes."""
    try:
        text = json_bytes(value).decode()
    except Unwritable:
        # A lone surrogate is an escape in ASCII. Digits beyond those of a double are lost here, and here alone.
        return json.dumps(value, separators=(",", ":"))
    return text if text.isascii() else _BEYOND_ASCII.sub(_escaped, text)


def _escaped(character: re.Match[str]) -> str:
    return json.dumps(character[0])[1:-1]
