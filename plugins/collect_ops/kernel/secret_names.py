r"""Values within a text that stand under names that sound like secrets. Pure.

`password=...` in addresses, forms and connection strings, and `"password": ...` in JSON and in Python's own `repr`.
Names are looked for, never values, so that the value of a harmless name hides nothing that stands within it: an address
as a parameter of another (`next=%2Flogin%3Fpassword%3D...`), JSON as a text in JSON (`"body": "{\"password\": ...`). A
value may be of any length and without an end: a text that was cut ends anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import unquote

Span: TypeAlias = tuple[int, int]
"""Where something begins and ends."""

_SOUNDS_SECRET = re.compile(
    r"authorization|cookie|token|secret|password|passwd|passphrase|credential|signature|apikey|accesskey"
    r"|privatekey|sessionid|jwt|bearer|csrf|xsrf"
)
_SECRET_WORDS = frozenset({"key", "auth", "pwd", "pass", "sig", "sid", "session", "otp", "pin"})
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

# Texts come from servers one does not trust: every pattern starts at the start of a word or has a bound, so that none
# of them is quadratic, and what is read of a value is not read again.
_ASSIGNED = re.compile(r"(?<![A-Za-z0-9_.%\[\]-])(?P<name>[A-Za-z0-9_.%\[\]-]++)=")
_ASSIGNED_VALUE = re.compile(r"[^\s&;#,\"'<>()]+")
# The same in an address that is a parameter of another one, percent-encoded once or several times.
_ASSIGNED_ENCODED = re.compile(
    r"(?:(?<![A-Za-z0-9_.-])|%(?:25){0,3}[0-9A-Fa-f]{2})(?P<name>[A-Za-z0-9_.-]{1,100})%(?P<depth>(?:25){0,3})3[Dd]"
)
_ENCODED_VALUES = tuple(re.compile(rf"(?:(?!%{'25' * depth}26)[^\s&;#,\"'<>()])+") for depth in range(4))
_MEMBER = re.compile(
    r"(?P<quote>[\"'])(?P<name>[^\"'\\\r\n]{1,100})(?P<escape>\\{0,15})(?P=quote)"
    r"\s{0,9}(?::|=>)\s{0,9}"
)
_NUMBER = re.compile(r"-?[0-9][0-9.eE+_-]*+")
_QUOTED = re.compile(r"[bBfFrRuU]{0,2}(?P<escape>\\{0,15})(?P<quote>[\"'])")
_STRUCTURE = re.compile(r"[\[\]{}]|(?P<escape>\\{0,15})(?P<quote>[\"'])")
_LINE_END = re.compile(r"[\r\n]")


@lru_cache(maxsize=1024)
def sounds_secret(name: str) -> bool:
    """Whether a header, query parameter or member of this name is likely to hold a secret."""
    name = unquote(name)
    squashed = re.sub(r"[^a-z0-9]", "", name.lower())
    return bool(_SOUNDS_SECRET.search(squashed)) or any(
        word.lower() in _SECRET_WORDS for word in _WORDS.findall(name)
    )


def secret_members(text: str) -> Iterator[Span]:
    """Where the values of members (`"name": value`, `'name' => value`) stand, without their quotation marks."""
    at = 0
    while match := _MEMBER.search(text, at):
        at = match.end()
        if sounds_secret(match["name"]) and (span := _member_value(text, match)):
            yield span
            at = span[1]


def secret_assignments(text: str) -> Iterator[Span]:
    """Where the values of assignments (`name=value`, `name='a value'`) stand, without their quotation marks."""
    at = 0
    while match := _ASSIGNED.search(text, at):
        at = match.end()
        if sounds_secret(match["name"]) and (span := _assigned_value(text, at)):
            yield span
            at = span[1]


def secret_encoded_assignments(text: str) -> Iterator[Span]:
    """Where the values of percent-encoded assignments (`name%3Dvalue`) stand."""
    at = 0
    while match := _ASSIGNED_ENCODED.search(text, at):
        at = match.end()
        values = _ENCODED_VALUES[len(match["depth"]) // 2]
        if sounds_secret(match["name"]) and (value := values.match(text, at)):
            yield value.span()
            at = value.end()


def _assigned_value(text: str, at: int) -> Span | None:
    if opening := _QUOTED.match(text, at):
        end, _ = _quoted_end(text, opening)
        # In a connection string no value goes on in the next line.
        line_end = _LINE_END.search(text, opening.end(), end)
        return opening.end(), line_end.start() if line_end else end
    value = _ASSIGNED_VALUE.match(text, at)
    return value.span() if value else None


def _member_value(text: str, name: re.Match[str]) -> Span | None:
    at = name.end()
    if opening := _QUOTED.match(text, at):
        return opening.end(), _quoted_end(text, opening)[0]
    if text[at : at + 1] in ("[", "{"):
        return at, _structure_end(text, at, len(name["escape"]))
    value = _NUMBER.match(text, at)
    return value.span() if value else None


def _structure_end(text: str, at: int, escape: int) -> int:
    """Where a list or an object ends: at its bracket, at the end of the text, or of the value that the JSON is.

    Args:
        text: That it is in.
        at: Where it begins.
        escape: Backslashes before its quotation marks.
    """
    depth = 0
    while match := _STRUCTURE.search(text, at):
        at = match.end()
        if match["quote"]:
            if len(match["escape"]) < escape:
                return match.start()
            end, at = _quoted_end(text, match)
            if end == at:
                return end
            continue
        depth += 1 if match[0] in "[{" else -1
        if depth == 0:
            return at
    return len(text)


def _quoted_end(text: str, opening: re.Match[str]) -> Span:
    r"""Where a quoted text ends, and where its closing quotation mark does; the same where there is none.

    JSON as a text in JSON has as many backslashes before each quotation mark as its depth has made of none: 1, 3, 7.
    One of the value itself has more of them, and one of what it lies in has fewer.
    """
    quote, escape = opening["quote"], len(opening["escape"])
    at = opening.end()
    while (place := text.find(quote, at)) >= 0:
        before = text[at:place]
        backslashes = len(before) - len(before.rstrip("\\"))
        if backslashes < escape:
            return place - backslashes, place - backslashes
        if (backslashes - escape) % (2 * (escape + 1)) == 0:
            return place - escape, place + 1
        at = place + 1
    return len(text), len(text)
