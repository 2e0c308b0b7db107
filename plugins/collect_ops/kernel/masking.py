"""Masking of secrets: the one function through which everything goes that is logged, traced or shown. Pure.

Two ways, used together: values under names that sound like secrets (headers, query parameters, members of
JSON, `password=...` and credentials of addresses within texts) are masked wherever they stand; secrets that
the caller knows are masked in every text, in whatever spelling (see `spellings`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

from collect_ops.kernel.errors import Fault
from collect_ops.kernel.secret_names import (
    Span,
    secret_assignments,
    secret_encoded_assignments,
    secret_members,
    sounds_secret,
)
from collect_ops.kernel.spellings import Spellings, spellings_of

MASK = "***"

Anything: TypeAlias = Any
"""Whatever somebody wants to log."""

# Deeper levels are cut: a trace is read by people, and Python's stack is not endless.
MAX_DEPTH = 64
# So much of a text is masked beyond what is shown of it.
_LOOKED_AT = 4096
# Characters of an error's text that are kept.
_LONGEST = 16_384
# Fields of Python's own errors that they are shown with and that `vars` does not have.
_PYTHONS_FIELDS: Sequence[tuple[type[BaseException], Sequence[str]]] = (
    (OSError, ("strerror", "filename", "filename2")),
    (UnicodeError, ("reason",)),
    (ImportError, ("msg", "name", "path")),
    (SyntaxError, ("msg", "filename", "text")),
    (StopIteration, ("value",)),
    (SystemExit, ("code",)),
)

# Texts come from servers one does not trust: every pattern starts at the start of a word or has a bound, so
# that none of them is quadratic.
_USERINFO = re.compile(
    r"(?<![A-Za-z0-9+.-])(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,30}:(?:\\{0,9}/){2})[^\s/?#\"'<>]*(?P<at>@)"
)
# The same where an address is a parameter of another one.
_USERINFO_ENCODED = re.compile(
    r"(?<![A-Za-z0-9+.-])(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,30}%(?P<depth>(?:25){0,3})3[Aa](?:%(?P=depth)2[Ff]){2})"
    r"(?:(?!%(?P=depth)(?:2[Ff]|3[Ff]|23|40))[^\s/?#&\"'<>])*(?P<at>%(?P=depth)40)"
)
_SCHEMED = re.compile(
    r"\b(?P<scheme>Bearer|Basic|Digest|Negotiate|ApiKey)(?P<space>\s{1,9})[^\s,;\"']{4,}", re.IGNORECASE
)
_SPACE = re.compile(r"\s")
_HEADER_LINE = re.compile(
    r"(?<![A-Za-z0-9-])(?P<name>(?:proxy-)?authorization|(?:set-)?cookie|x-[a-z-]{0,60}(?:key|token))"
    r"(?P<colon>['\"]?\s{0,9}:\s{0,9})(?P<value>[^\r\n]+)",
    re.IGNORECASE,
)


def mask(value: Anything, *, secrets: Iterable[str] = (), names: bool = True) -> Anything:
    """The value without its secrets: same shape, secret texts replaced by `***`.

    Args:
        value: Mappings, sequences, texts, bytes (which become text) and scalars, nested as they like.
        secrets: Texts that must not appear anywhere in the result, however they are spelled; those shorter than
            `spellings.MIN_LENGTH` are not looked for.
        names: Whether values under names that sound like secrets are masked, too.

    Returns:
        Mappings as dicts, sequences as lists (tuples as tuples); what holds no secret as it was.
    """
    return _masker(frozenset(secrets), names=names).masked(value, 0)


def mask_beginning(text: str, limit: int, *, secrets: Iterable[str] = (), cut: bool = False) -> str:
    """The beginning of a text without its secrets: masked first, then cut.

    Cut first, a secret that goes on beyond the cut would be one no more, and most of it would be shown.

    Args:
        text: Of any length; no more of it is looked at than is needed.
        limit: Characters of the result.
        secrets: As for `mask`.
        cut: Whether the text is itself the beginning of a longer one.
    """
    looked_at = text[: limit + _LOOKED_AT]
    masker = _masker(frozenset(secrets))
    # A secret that itself goes beyond what is looked at is masked as far as it is there.
    return masker.text(looked_at, cut=cut or len(looked_at) < len(text))[:limit]


def mask_error(error: BaseException, *, secrets: Iterable[str]) -> None:
    """Mask known secrets in an error, in place: in its text, its fields, its notes, and in what it was raised from.

    An error that it was raised from and that goes on showing a secret is cut off.
    """
    masker = _masker(frozenset(secrets), names=False)
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        each.args = tuple(_masked_field(masker, value) for value in each.args)
        for name, value in vars(each).items():
            each.__dict__[name] = _masked_field(masker, value)
        for kind, names in _PYTHONS_FIELDS:
            if isinstance(each, kind):
                _mask_fields(each, names, masker)
        waiting += [one for one in (each.__cause__, each.__context__) if one is not None]
        waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        _cut_off(each, masker)


def _mask_fields(error: BaseException, names: Iterable[str], masker: _Masker) -> None:
    for name in names:
        value = getattr(error, name)
        if value is not None:  # Python tells None from a field that nobody has set
            setattr(error, name, _masked_field(masker, value))


def _masked_field(masker: _Masker, value: Anything) -> Anything:
    match value:
        case bytes() | bytearray():
            text = value.decode("utf-8", errors="backslashreplace")
            masked = masker.text(text[:_LONGEST], cut=len(text) > _LONGEST)
            return value if masked == text else type(value)(masked.encode())
        case str() if len(value) > _LONGEST:
            return masker.text(value[:_LONGEST], cut=True)
        case Fault():
            masked_value = _masked_field(masker, value.value)
            return replace(value, value=masked_value, problem=_masked_field(masker, value.problem))
        case str() | dict():
            return masker.masked(value, 0)
    if type(value) in (tuple, list):
        return type(value)(_masked_field(masker, item) for item in value)
    return value


def _cut_off(error: BaseException, masker: _Masker) -> None:
    """Leave out what an error was raised from, where its text is not made of what could be masked."""
    for link in ("__cause__", "__context__"):
        linked = getattr(error, link)
        if linked is None:
            continue
        linked.args = tuple(_masked_field(masker, value) for value in linked.args)
        if masker.masked(str(linked), 0) != str(linked):
            suppressed = error.__suppress_context__
            setattr(error, link, None)
            error.__suppress_context__ = suppressed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Masker:
    mask: str
    names: bool
    known: Spellings | None

    def masked(self, value: Anything, depth: int) -> Anything:
        match value:
            case None | bool():
                return value
            case int() | float() if self.known is None:
                return value  # no name, no address: nothing in it could be masked
            case str():
                return self.text(value)
            case bytes() | bytearray():
                return self.text(value.decode("utf-8", errors="backslashreplace"))
            case Mapping() | Sequence() | set() | frozenset():
                return self.mask if depth >= MAX_DEPTH else self._nested(value, depth)
        text = str(value)
        masked = self.text(text)
        return value if masked == text else masked

    def _nested(self, value: Anything, depth: int) -> Anything:
        if isinstance(value, Mapping):
            return {self._name(name): self._member(name, item, depth) for name, item in value.items()}
        return self._sequence(value if isinstance(value, Sequence) else list(value), depth)

    def _name(self, name: Anything) -> Anything:
        return self._known_masked(name) if isinstance(name, str) else self.masked(name, MAX_DEPTH)

    def _member(self, name: Anything, item: Anything, depth: int) -> Anything:
        text = name.decode("latin-1") if isinstance(name, bytes) else str(name)
        if self.names and sounds_secret(text):
            return item if item is None or item == "" else self.mask
        return self.masked(item, depth + 1)

    def _sequence(self, items: Sequence[Any], depth: int) -> Anything:
        # Headers and query parameters often come as pairs.
        if len(items) == 2 and isinstance(items[0], str | bytes):
            masked = [self.masked(items[0], depth + 1), self._member(items[0], items[1], depth)]
        else:
            masked = [self.masked(item, depth + 1) for item in items]
        return tuple(masked) if isinstance(items, tuple) else masked

    def text(self, text: str, *, cut: bool = False) -> str:
        text = self._known_masked(text, cut=cut)
        if not self.names:
            return text
        # Each pattern is tried only where a character that it needs is there: most texts are names and numbers.
        if "@" in text:
            text = _USERINFO.sub(self._userinfo, text)
        if ":" in text:
            text = _HEADER_LINE.sub(lambda match: f"{match['name']}{match['colon']}{self.mask}", text)
        if _SPACE.search(text):
            text = _SCHEMED.sub(lambda match: f"{match['scheme']}{match['space']}{self.mask}", text)
        if ":" in text or "=>" in text:
            text = self._without(text, secret_members(text))
        if "=" in text:
            text = self._without(text, secret_assignments(text))
        if "%" in text:
            text = _USERINFO_ENCODED.sub(self._userinfo, text)
            text = self._without(text, secret_encoded_assignments(text))
        return text

    def _userinfo(self, match: re.Match[str]) -> str:
        return f"{match['scheme']}{self.mask}{match['at']}"

    def _known_masked(self, text: str, *, cut: bool = False) -> str:
        # One pass is enough: what replaces a secret occurs in none, so nothing new can form around it.
        return self._without(text, self.known.spans(text, cut=cut)) if self.known else text

    def _without(self, text: str, spans: Iterable[Span]) -> str:
        parts: list[str] = []
        last = 0
        for start, end in spans:
            parts += [text[last:start], self.mask]
            last = end
        return "".join([*parts, text[last:]]) if parts else text


@lru_cache(maxsize=64)
def _masker(secrets: frozenset[str], *, names: bool = True) -> _Masker:
    """The masker of these secrets; the same few come with every request."""
    known = spellings_of(secrets)
    if not known.secrets:
        return _Masker(mask=MASK, known=None, names=names)
    return _Masker(mask=_mask_outside(known.secrets), known=known, names=names)


def _mask_outside(secrets: Iterable[str]) -> str:
    """`***`, or, when a secret itself has asterisks, a mask of a character that no secret has."""
    taken = set("".join(secrets))
    character = next(one for one in ("*", "#", "•", *map(chr, range(0xE000, 0xF8FF))) if one not in taken)
    return character * len(MASK)
