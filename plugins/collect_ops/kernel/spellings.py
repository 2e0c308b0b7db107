r"""Known secrets within a text, in whatever spelling the other side has echoed them. Pure.

A server rarely repeats a password as it got it: it percent-encodes it (`%2F`, `%2f`, `%252F`), escapes it for HTML
(`&#x2F;`, `&quot;`), for JSON (`\/`, `\u003c`, `\\\"`), for source code (`\057`, `\x{2f}`, `\u{2f}`) or for mail
(`=2F`, `+AC8-`), packs it into base64 or hex, alone or as `user:secret`, reads its UTF-8 as Latin-1, composes or
decomposes its accents, and does several of these one after the other. So a text is never decoded as a whole, which goes
wrong wherever what stands before a secret looks like half an escape. Instead every character of a secret is looked for
in every spelling: what a text can be read as at one place is a small set of characters, each with the place where its
spelling ends, and the escapes' own characters are read the same way. Base64 and hex are unpacked at every alignment and
looked through again. Two things are looked for as they are: the whole secret in other case, and its base64 with
anything between the digits (lines, groups, quotation marks).
"""

from __future__ import annotations

import binascii
import html
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal, TypeAlias

#: Secrets shorter than this are not looked for within texts: masking every `x` would spoil every address.
MIN_LENGTH = 6

Span: TypeAlias = tuple[int, int]
"""Where something begins and ends."""

Way: TypeAlias = tuple[str, ...]
"""A character as one or several others: what does at each place."""

Reading: TypeAlias = tuple[str, int]
"""A character that a text can be read as, and where its spelling ends."""

Undone: TypeAlias = tuple[str, Sequence[int], Sequence[int]]
"""A text without an encoding, and where what begins or ends at a place of it does so in the original."""

# How many encodings may lie over each other, and how often something may be packed again.
_DEPTH = 3
_PACKED = 2
# Characters at the end of a text that was cut which may be the beginning of an escape.
_CUT_ESCAPE = 16
_MOST_READINGS = 16
# An escape costs as much as so many letters.
_ESCAPE_WORK = 32
# Texts up to this length are searched once.
_REMEMBERED = 512

_ESCAPE = re.compile(r"[%&\\]")
_BYTE = "[0-9A-Fa-f]{2}"
# In quoted-printable: a byte that is no letter, no digit and no control character below 32, mail's `=46rom`, or the end
# of a line that is none. What stands behind most equals signs is neither.
_QUOTED_BYTE = (
    "0[9ADad]|2[0-9A-Fa-f]|3[A-Fa-f]|[46]0|46(?=rom)|5[B-Fb-f]|7[B-Fb-f]|[89A-Fa-f][0-9A-Fa-f]"
    # Any byte before or after another one.
    f"|{_BYTE}(?=={_BYTE})|(?<=={_BYTE}=){_BYTE}"
)
# Costs half as much again wherever numbers are parameters: only where a secret has such characters.
_QUOTED_CONTROL = "[01][0-9A-Fa-f]"
# What may have become of base64 and hex by it, and of what stands between their digits.
_QUOTED_DIGIT = re.compile(
    rf"=(?:(?P<byte>0[ADad]|2[02BCDFbcdf]|3[ADEade]|5[Ff]|{_BYTE}(?=={_BYTE})|(?<=={_BYTE}=){_BYTE})|[ \t]{{0,3}}\r?\n)"
)
_ELLIPSIS = re.compile(r"\.\.\.|\u2026")
_ESCAPES = frozenset("%&\\=")
_IN_ESCAPES = _ESCAPES | set("+#;{}")
_HEX = frozenset("0123456789abcdefABCDEF")
_OCTAL = frozenset("01234567")
_LONGEST_BRACED = 6
_NAME = frozenset("#0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LONGEST_NAME = 33
_NUMBERED = re.compile(r"#(?:0*(?P<decimal>[1-9][0-9]{0,5})|[xX]0*(?P<hex>[1-9a-fA-F][0-9a-fA-F]{0,4}));?")
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}
_FORMS: Sequence[Literal["NFC", "NFD", "NFKC", "NFKD"]] = ("NFC", "NFD", "NFKC", "NFKD")
_ASCII = re.compile(r"[\0-\x7f]+")
_LOST = "?\ufffd"  # what an encoder or a decoder writes for a character that it does not know
_BASE64_RUN = re.compile(r"[A-Za-z0-9+/_\r\n-]{8,}")
# Between bytes: colons, commas, lines, a form's spaces, and what says in source code that one is in hex.
_HEX_SEPARATOR = r"[:,+\s-]{0,8}(?:0[xX])?"
_HEX_RUN = re.compile(
    rf"[0-9A-Fa-f]{{2}}(?:{_HEX_SEPARATOR}[0-9A-Fa-f]{{2}}){{5,}}{_HEX_SEPARATOR}[0-9A-Fa-f]?"
)
_HEX_PREFIX = re.compile("0[xX]")
_PACKED_RUN = re.compile(f"{_BASE64_RUN.pattern}|{_HEX_RUN.pattern}")
# In unpacked bytes: what may be a text, UTF-16's NULs included.
_TEXT_RUN = re.compile(rf"[\t\n\r\0\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]{{{MIN_LENGTH},}}")
_TO_STANDARD = str.maketrans("-_", "+/", "\r\n")
_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# Between digits anything may stand; `+` and `-` are digits, and a form's spaces and what joins texts in source code.
_NO_SEPARATORS = _DIGITS.replace(b"+", b"_")
_BYTES_TO_STANDARD = bytes.maketrans(b"_", b"/")
_BETWEEN_DIGITS = bytes(byte for byte in range(256) if byte not in _NO_SEPARATORS)
_SEPARATORS = r"[^A-Za-z0-9/_]*+"
# Letters that a secret has at least which is looked for in other case: fewer may be there by chance.
_LEAST_LETTERS = 8
# Digits of UTF-7 that are read as one piece.
_LONGEST_UTF_7 = 1024
# Of spaces before the end of a line that goes on.
_MOST_SPACES = 3
# Of ends of lines that go on, one after the other.
_MOST_BREAKS = 3


class _Quoting:
    """Where an escape of quoted-printable may begin.

    Args:
        controls: Whether it may be that of a control character with no other escape beside it.
    """

    def __init__(self, *, controls: bool) -> None:
        follows = f"{_QUOTED_BYTE}|{_QUOTED_CONTROL}" if controls else _QUOTED_BYTE
        ahead = rf"(?:(?={follows}|[ \t]{{0,3}}\r?\n|[%&\\]))"
        #: There.
        self.begins = re.compile(f"={ahead}")
        #: There, or at any other escape. Begins with a set, which is searched for ten times as fast as an alternative.
        self.starts = re.compile(rf"[%&\\=](?:(?<!=)|{ahead})")


_QUOTING = _Quoting(controls=False)
_QUOTING_CONTROLS = _Quoting(controls=True)


class _Text:
    """A text, and what it can be read as wherever an escape begins.

    Args:
        text: It.
        quoting: What is read as quoted-printable in it.
    """

    def __init__(self, text: str, quoting: _Quoting) -> None:
        self.text = text
        self.quoting = quoting
        self._known: dict[tuple[int, int], tuple[Reading, ...]] = {}
        self._starts: dict[str, list[int]] | None = None
        self._breaks = 0
        self._decoders: dict[str, Callable[[int, int], Iterator[Reading]]] = {
            "%": self._percent,
            "&": self._entity,
            "\\": self._backslash,
            "=": self._quoted_printable,
        }

    def readings(self, at: int, depth: int = _DEPTH) -> tuple[Reading, ...]:
        """What the text can be read as at a place; first the character that stands there."""
        character = self.text[at]
        if depth == 0 or character not in _ESCAPES:
            return ((character, at + 1),)
        if character == "=" and not self.quoting.begins.match(self.text, at):
            return ((character, at + 1),)
        known = self._known.get((at, depth))
        if known is None:
            found = {(character, at + 1): None}
            outer: list[Reading] = [(character, at + 1)]
            for _ in range(depth):
                # What is read as the beginning of an escape may be that of one more.
                inner = [each for each in outer if each[0] in _ESCAPES and each[1] < len(self.text)]
                # Each once, and no more than are kept: a run of backslashes can be read in very many ways.
                read = dict.fromkeys(one for c, end in inner for one in self._decoders[c](end, depth - 1))
                outer = [one for one in read if one not in found]
                found.update(dict.fromkeys(outer))
                if not outer or len(found) >= _MOST_READINGS:
                    break
            known = self._known[at, depth] = tuple(found)[:_MOST_READINGS]
        return known

    def escaped(self, characters: Iterable[str]) -> Iterator[int]:
        """Where an escape begins that can be read as one of the characters."""
        if self._starts is None:
            self._starts = {}
            for match in self.quoting.starts.finditer(self.text):
                for character in {reading[0] for reading in self.readings(match.start())}:
                    self._starts.setdefault(character, []).append(match.start())
        for character in characters:
            yield from self._starts.get(character, ())

    def decoded(self) -> tuple[str, Sequence[int]]:
        """The text with one encoding undone, and where each of its characters came from."""
        parts: list[str] = []
        places: list[int] = []
        at = 0
        for match in _ESCAPE.finditer(self.text):
            start = match.start()
            if start < at:
                continue
            character, end = max(self.readings(start, 1), key=lambda reading: reading[1])
            parts += [self.text[at:start], character]
            places += range(at, start + 1)
            at = end
        return "".join([*parts, self.text[at:]]), [*places, *range(at, len(self.text) + 1)]

    def ends(self, places: Collection[int], way: Way) -> Collection[int]:
        """Where a spelling of a character ends that begins at one of the places."""
        for accepted in way:
            places = {end for place in places for _, end in self._next(place, _DEPTH, accepted)}
        return places

    def _next(self, at: int, depth: int, allowed: Collection[str]) -> list[Reading]:
        if at >= len(self.text):
            return []
        character = self.text[at]
        if character not in _ESCAPES:
            return [(character, at + 1)] if character in allowed else []
        return [reading for reading in self.readings(at, depth) if reading[0] in allowed]

    def _several(self, at: int, depth: int, allowed: Sequence[Collection[str]]) -> list[Reading]:
        found: list[Reading] = [("", at)]
        for each in allowed:
            found = [(text + c, end) for text, here in found for c, end in self._next(here, depth, each)]
            if not found:
                break
        return found

    def _quoted_printable(self, at: int, depth: int) -> Iterator[Reading]:
        yield from self._byte(at, depth, "=")
        # A line that goes on in the next: what it goes on with.
        places = {at}
        for _ in range(_MOST_SPACES):
            places |= {end for place in places for _, end in self._next(place, depth, " \t")}
        places |= {end for place in places for _, end in self._next(place, depth, "\r")}
        for begins in {end for place in places for _, end in self._next(place, depth, "\n")}:
            if begins < len(self.text):
                yield from self._after_break(begins, depth)

    def _after_break(self, at: int, depth: int) -> tuple[Reading, ...]:
        """What a line goes on with: the break is none of the encodings that may lie over each other."""
        self._breaks += 1
        try:
            return self.readings(at, depth + 1 if self._breaks <= _MOST_BREAKS else depth)
        finally:
            self._breaks -= 1

    def _percent(self, at: int, depth: int) -> Iterator[Reading]:
        yield from self._byte(at, depth, "%")
        for _, end in self._next(at, depth, "uU"):
            yield from self._unit(end, depth, "%u")

    def _backslash(self, at: int, depth: int) -> Iterator[Reading]:
        for character, end in self.readings(at, depth):
            if character in _CONTROLS:
                yield _CONTROLS[character], end
            if character in "0123":
                yield from self._byte(at, depth, "\\", digits=[_OCTAL] * 3, base=8)
            elif character == "u":
                yield from self._unit(end, depth, "\\u")
                yield from self._braced(end, depth)
            elif character == "x":
                yield from self._byte(end, depth, "\\x")
                yield from self._braced(end, depth)
            elif character == "U":
                yield from (
                    (chr(int(digits, 16)), stop)
                    for digits, stop in self._several(end, depth, [_HEX] * 8)
                    if int(digits, 16) <= 0x10FFFF
                )
            elif character.isprintable() and not character.isalnum() and character not in "%&":
                yield character, end

    def _braced(self, at: int, depth: int) -> Iterator[Reading]:
        """A character's number in braces, as in Rust, Perl and newer JavaScript."""
        for _, here in self._next(at, depth, "{"):
            digits, place = "", here
            while len(digits) < _LONGEST_BRACED and (step := self._next(place, depth, _HEX)):
                digits, place = digits + step[0][0], step[0][1]
            if digits and int(digits, 16) <= 0x10FFFF:
                yield from ((chr(int(digits, 16)), end) for _, end in self._next(place, depth, "}"))

    def _byte(
        self,
        at: int,
        depth: int,
        introducer: str,
        *,
        digits: Sequence[Collection[str]] = (_HEX, _HEX),
        base: int = 16,
    ) -> Iterator[Reading]:
        """A byte in digits: of Latin-1, of Windows-1252, or the first of a character in UTF-8."""
        for written, end in self._several(at, depth, digits):
            byte = int(written, base)
            if byte > 0xFF:
                continue
            yield from ((character, end) for character in _as_single(byte))
            if byte < 0xC2 or byte > 0xF4:
                continue
            more = 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3
            found = [(bytes((byte,)), end)]
            for _ in range(more):
                found = [
                    (before + bytes((int(after, base),)), stop)
                    for before, here in found
                    for _, start in self._several(here, depth, introducer)
                    for after, stop in self._several(start, depth, digits)
                    if int(after, base) <= 0xFF
                ]
            for encoded, stop in found:
                character = encoded.decode("utf-8", errors="ignore")
                if len(character) == 1:
                    yield character, stop

    def _unit(self, at: int, depth: int, introducer: str) -> Iterator[Reading]:
        """A unit of UTF-16 in four hexadecimal digits, or two of them."""
        for digits, end in self._several(at, depth, [_HEX] * 4):
            unit = int(digits, 16)
            yield chr(unit), end
            if not 0xD800 <= unit < 0xDC00:
                continue
            for _, start in self._several(end, depth, introducer):
                for low, stop in self._several(start, depth, [_HEX] * 4):
                    if 0xDC00 <= int(low, 16) < 0xE000:
                        yield chr(0x10000 + ((unit - 0xD800) << 10) + int(low, 16) - 0xDC00), stop

    def _entity(self, at: int, depth: int) -> Iterator[Reading]:
        name, ends = "", [at]
        while len(name) < _LONGEST_NAME and (step := self._next(ends[-1], depth, _NAME)):
            name += step[0][0]
            ends.append(step[0][1])
        for _, end in self._next(ends[-1], depth, ";"):
            if character := _named(f"{name};"):
                yield character, end
        # HTML does without the semicolon where old browsers did.
        for length in range(len(name), 1, -1):
            if character := _named(name[:length]):
                yield character, ends[length]


class _Unescaped(_Text):
    """A text in which nothing is an escape."""

    def readings(self, at: int, depth: int = _DEPTH) -> tuple[Reading, ...]:  # noqa: ARG002 - as above
        return ((self.text[at], at + 1),)

    def escaped(self, characters: Iterable[str]) -> Iterator[int]:  # noqa: ARG002 - as above
        return iter(())


class _Form:
    """A secret as it is looked for.

    Args:
        secret: It.
    """

    def __init__(self, secret: str) -> None:
        # What a charset has no place for may be missing; where nothing else would be left, that would be anything.
        characters = _with_their_marks(secret)
        lossy = sum(map(str.isascii, characters)) >= MIN_LENGTH
        self._characters = [_ways(character, lossy=lossy) for character in characters]
        self._first = _first_of(self._characters)
        self.begins = "|".join(dict.fromkeys(_beginnings(self._characters)))
        self._begins = re.compile(self.begins)

    def spans(self, text: _Text, *, cut: bool) -> Iterator[Span]:
        """Where it stands."""
        places = [match.start() for match in self._begins.finditer(text.text)]
        places += text.escaped(self._first)
        last = 0
        for place in sorted(places):
            end = self._end(text, place, cut=cut) if place >= last else None
            if end is not None:
                yield place, end
                last = end

    def _end(self, text: _Text, start: int, *, cut: bool) -> int | None:
        """Where the spelling that begins at `start` ends; None when it is none."""
        places = {start}
        for number, ways in enumerate(self._characters):
            if number >= MIN_LENGTH:
                for place in places:
                    if (end := _cut_at(text.text, place, cut=cut)) is not None:
                        return end
            places = {end for way in ways for end in text.ends(places, way)}
            if not places:
                return None
        return max(places)


class Spellings:
    """Secrets, to be found in any spelling.

    Args:
        secrets: Them; those shorter than `MIN_LENGTH` are left out.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        # What a secret begins and ends with may be trimmed: the end of its line, when it came from a file.
        given = {one for secret in secrets for one in (secret, secret.strip())}
        self.secrets = frozenset(secret for secret in given if len(secret) >= MIN_LENGTH)
        composed = {unicodedata.normalize("NFC", secret) for secret in self.secrets}
        unix = {secret.replace("\r\n", "\n") for secret in self.secrets}
        texts = sorted(self.secrets | {text for text in composed | unix if len(text) >= MIN_LENGTH})
        self._forms = [_Form(text) for text in texts]
        # Their bytes may be none of a text: those of another charset, of UTF-16.
        self._no_text = [form for form, text in zip(self._forms, texts, strict=True) if not _is_plain(text)]
        plain = (sum(map(str.isascii, _with_their_marks(text))) for text in texts)
        self._shortest = min((max(MIN_LENGTH, length) for length in plain), default=0)
        self._recased = [_Recased(secret) for secret in sorted(self.secrets) if _Recased.fits(secret)]
        self._broken = [core for secret in sorted(self.secrets) for core in _cores(secret)]
        controls = any(unicodedata.category(c) == "Cc" and c not in "\t\r\n" for c in "".join(texts))
        self._quoting = _QUOTING_CONTROLS if controls else _QUOTING
        self._utf_7 = _Utf7("".join(texts))

        # Most texts hold nothing that a secret could begin with, no escape, and nothing packed.
        begins = "|".join([form.begins for form in self._forms] + [r"[%&\\\0]", self._quoting.begins.pattern])
        self._promising = re.compile(begins)
        self._known = lru_cache(maxsize=1024)(self._search)

    def spans(self, text: str, *, cut: bool = False) -> list[Span]:
        """Where they stand, in order, each apart from the next.

        Args:
            text: Any text.
            cut: Whether it is the beginning of a longer one: then one that goes on beyond its end counts.
        """
        # The same headers come with every page.
        return self._search(text, cut) if len(text) > _REMEMBERED else self._known(text, cut)

    def _search(self, text: str, cut: bool) -> list[Span]:  # noqa: FBT001 - the cache knows positions
        merged: list[Span] = []
        for start, end in sorted(set(self._found(text, _PACKED, cut=cut))):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def _found(self, text: str, packed: int, *, cut: bool) -> Iterator[Span]:
        if not self._forms or len(text) < MIN_LENGTH:
            return
        if len(text) < self._shortest and not cut and not _ELLIPSIS.search(text):
            return
        outermost = packed == _PACKED
        promising = self._promising.search(text) or (packed and _PACKED_RUN.search(text))
        if not promising and not (outermost and self._utf_7.may_be_in(text)):
            if outermost:
                yield from self._as_they_are(text)
            return
        read = _Text(text, self._quoting)
        for form in self._forms:
            yield from form.spans(read, cut=cut)
        for layer in _layers(read, packed, self._utf_7 if outermost else None):
            for start, end in self._in_layer(layer, packed, cut=cut):
                yield layer.starts[start], layer.ends[end]

    def _in_layer(self, layer: _Layer, packed: int, *, cut: bool) -> Iterator[Span]:
        text = layer.text
        if layer.rewritten:
            read = _Text(text, self._quoting)
            for form in self._forms:
                yield from form.spans(read, cut=cut)
            return
        yield from self._unpacked(text, packed, cut=cut)
        if packed == _PACKED:
            yield from self._as_they_are(text)
        if "\0" in text:
            without, places = _without_nuls(text)
            for start, end in self._found(without, packed, cut=cut):
                yield places[start], places[end]

    def _as_they_are(self, text: str) -> Iterator[Span]:
        """Where they stand in other case, or as base64 with anything between its digits.

        Each of these costs a search for some bytes, which is next to nothing.
        """
        plain = text.encode("ascii", errors="replace")
        if self._recased:
            lowered = plain.lower()
            for recased in self._recased:
                if recased.word in lowered:
                    yield from (match.span() for match in recased.pattern.finditer(text))
        digits = plain.translate(_BYTES_TO_STANDARD, _BETWEEN_DIGITS)
        for own, core in self._broken:
            if own in digits:
                yield from (match.span() for match in _with_anything_between(core).finditer(text))

    def _unpacked(self, text: str, packed: int, *, cut: bool) -> Iterator[Span]:
        """Where they stand within base64 and hex."""
        if packed == 0:
            return
        for match in _BASE64_RUN.finditer(text):
            yield from self._in_base64(match, packed, cut=_cut_at(text, match.end(), cut=cut) == match.end())
        for match in _HEX_RUN.finditer(text):
            yield from self._in_hex(match, packed, cut=_cut_at(text, match.end(), cut=cut) == match.end())

    def _in_base64(self, run: re.Match[str], packed: int, *, cut: bool) -> Iterator[Span]:
        digits = run[0].translate(_TO_STANDARD)
        if len(digits) * 3 // 4 < (MIN_LENGTH if cut else self._shortest):
            return
        places: Sequence[int] = range(run.start(), run.end())
        if len(digits) < len(run[0]):
            places = [run.start() + at for at, character in enumerate(run[0]) if character not in "\r\n"]
        for skipped, packed_bytes in enumerate(_base64_bytes(digits)):
            for start, end in self._in_bytes(packed_bytes, packed - 1, cut=cut):
                last = min(skipped + -(-end * 4 // 3), len(places))
                yield places[skipped + start * 4 // 3], places[last - 1] + 1

    def _in_hex(self, run: re.Match[str], packed: int, *, cut: bool) -> Iterator[Span]:
        digits, places = _hex_digits(run)
        for skipped, packed_bytes in enumerate(_hex_bytes(digits)):
            for start, end in self._in_bytes(packed_bytes, packed - 1, cut=cut):
                yield places[skipped + start * 2], places[skipped + end * 2 - 1] + 1

    def _in_bytes(self, raw: bytes, packed: int, *, cut: bool) -> Iterator[Span]:
        text = raw.decode("utf-8", errors="surrogateescape")
        runs, is_text = _text_runs(text)
        spans = self._found(text, packed, cut=cut) if is_text else self._in_noise(text, runs, packed, cut=cut)
        places: Sequence[int] = range(len(text) + 1) if len(text) == len(raw) else ()
        for start, end in spans:
            places = places or list(
                accumulate((1 if "\udc80" <= c <= "\udcff" else len(c.encode()) for c in text), initial=0)
            )
            yield places[start], places[end]

    def _in_noise(self, text: str, runs: Sequence[Span], packed: int, *, cut: bool) -> Iterator[Span]:
        """Where they stand in bytes that are mostly no text: nobody has escaped anything but what is text in them.

        What was packed is read at every alignment, and so most of what is read is noise.
        """
        for start, end in runs:
            for first, last in self._found(text[start:end], packed, cut=cut and end == len(text)):
                yield start + first, start + last
        if not self._no_text:
            return
        for each, places in [(text, range(len(text) + 1)), *([_without_nuls(text)] if "\0" in text else [])]:
            unescaped = _Unescaped(each, self._quoting)
            for form in self._no_text:
                yield from ((places[start], places[end]) for start, end in form.spans(unescaped, cut=cut))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """A text in which something was undone.

    Args:
        text: It.
        starts: Where what begins at a place of it begins in the original.
        ends: Where what ends at a place of it ends there.
        rewritten: Whether it is searched as the original was, and for nothing that is packed.
    """

    text: str
    starts: Sequence[int]
    ends: Sequence[int]
    rewritten: bool = False

    def undone(self, undone: Undone, *, rewritten: bool = False) -> _Layer:
        """With one thing more undone: the text, and its places in this one."""
        text, starts, ends = undone
        here = [self.starts[at] for at in starts]
        same = starts is ends and self.starts is self.ends
        there = here if same else [self.ends[at] for at in ends]
        return _Layer(text=text, starts=here, ends=there, rewritten=rewritten)


class _Recased:
    """A secret as a whole, in whatever case.

    Args:
        secret: It.
    """

    def __init__(self, secret: str) -> None:
        self.pattern = re.compile(re.escape(secret), re.IGNORECASE)
        #: Is in every text that holds it.
        self.word = max(_ASCII.findall(secret), key=len, default="").lower().encode()

    @staticmethod
    def fits(secret: str) -> bool:
        """Whether it has so many letters that it is nowhere by chance."""
        return sum(letter.lower() != letter.upper() for letter in secret) >= _LEAST_LETTERS


class _Utf7:
    """UTF-7 undone, where it may spell a secret.

    Args:
        characters: Of the secrets.
    """

    def __init__(self, characters: str) -> None:
        units = [unit for form in _FORMS for unit in unicodedata.normalize(form, characters)]
        firsts = {_DIGITS.decode()[min(ord(unit), 0xFFFF) >> 10] for unit in units} | {"A"}
        self._special = {unit for unit in units if not (unit.isascii() and unit.isalnum())} | _IN_ESCAPES
        digits = f"[A-Za-z0-9+/]{{2,{_LONGEST_UTF_7 - 1}}}"
        self._begins = re.compile(
            rf"\+(?:(?P<plus>-)|(?=(?P<run>[{re.escape(''.join(sorted(firsts)))}]{digits})))"
        )

    def may_be_in(self, text: str) -> bool:
        """Whether something in a text looks like it."""
        return "+" in text and self._begins.search(text) is not None

    def undone(self, text: str) -> Undone | None:
        """The text without it; None where there is none."""
        if "+" not in text:
            return None
        parts: list[str] = []
        starts: list[int] = []
        ends: list[int] = [0]
        at = 0
        for match in self._begins.finditer(text):
            start = match.start()
            if start < at or not (piece := self._piece(text, match)):
                continue
            written, end = piece
            parts += [text[at:start], written]
            starts += [*range(at, start), *[start] * len(written)]
            ends += [*range(at + 1, start + 1), *[end] * len(written)]
            at = end
        if at == 0:
            return None
        parts.append(text[at:])
        return "".join(parts), [*starts, *range(at, len(text) + 1)], [*ends, *range(at + 1, len(text) + 1)]

    def _piece(self, text: str, match: re.Match[str]) -> tuple[str, int] | None:
        """What one piece is read as, and where it ends."""
        if match["plus"]:
            return "+", match.end()
        run = match["run"]
        if len(run) % 8 not in (0, 3, 6):
            return None
        raw = binascii.a2b_base64(run + "=" * (-len(run) % 4))
        written = raw.decode("utf-16-be", errors="replace")
        if self._special.isdisjoint(written):
            return None
        end = match.start() + 1 + len(run)
        return written, end + text.startswith("-", end)


def _layers(read: _Text, packed: int, utf_7: _Utf7 | None) -> Iterator[_Layer]:
    """A text, and with one encoding after the other undone: what is packed is searched for in each."""
    places: Sequence[int] = range(len(read.text) + 1)
    layer = _Layer(text=read.text, starts=places, ends=places)
    yield from _with_mail_undone(layer, utf_7)
    for _ in range(_DEPTH if packed > 0 else 0):
        if not _ESCAPE.search(read.text):
            return
        text, own = read.decoded()
        if text == read.text:
            return
        layer, read = layer.undone((text, own, own)), _Text(text, read.quoting)
        yield from _with_mail_undone(layer, utf_7)


def _with_mail_undone(layer: _Layer, utf_7: _Utf7 | None) -> Iterator[_Layer]:
    """A text, and without what it may have become to be sent by mail, which nobody packs."""
    yield layer
    if utf_7 is None:
        return
    layers = [layer]
    if undone := _quoted_undone(layer.text):
        layers.append(layer.undone(undone))
        yield layers[-1]
    for each in layers:
        if undone := utf_7.undone(each.text):
            yield each.undone(undone, rewritten=True)


def _quoted_undone(text: str) -> Undone | None:
    """A text without quoted-printable, as far as it may hide what is packed; None where there is none."""
    parts: list[str] = []
    places: list[int] = []
    at = 0
    for match in _QUOTED_DIGIT.finditer(text):
        written = chr(int(match["byte"], 16)) if match["byte"] else ""
        parts += [text[at : match.start()], written]
        places += range(at, match.start() + len(written))
        at = match.end()
    if at == 0:
        return None
    places += range(at, len(text) + 1)
    return "".join([*parts, text[at:]]), places, places


def _base64_bytes(digits: str) -> Iterator[bytes]:
    """What digits of base64 are at each alignment: what stands before them may look like some, too: a path, a name."""
    for skipped in range(4):
        part = digits[skipped:]
        part = part[:-1] if len(part) % 4 == 1 else part
        yield binascii.a2b_base64(part + "=" * (-len(part) % 4))


def _hex_digits(run: re.Match[str]) -> tuple[str, Sequence[int]]:
    """The digits of a run of hex, and where each of them stands."""
    text = _HEX_PREFIX.sub("  ", run[0])
    places = [run.start() + at for at, character in enumerate(text) if character in _HEX]
    return "".join(character for character in text if character in _HEX), places


def _hex_bytes(digits: str) -> Iterator[bytes]:
    """What hexadecimal digits are at each alignment."""
    for skipped in range(2):
        part = digits[skipped:]
        yield bytes.fromhex(part[: len(part) // 2 * 2])


def _text_runs(text: str) -> tuple[Sequence[Span], bool]:
    """Where unpacked bytes are a text, and whether most of them are."""
    runs = [match.span() for match in _TEXT_RUN.finditer(text)]
    return runs, 2 * sum(end - start for start, end in runs) >= len(text)


def _without_nuls(text: str) -> tuple[str, Sequence[int]]:
    """UTF-16 that was read as another encoding, and where each of its characters stands."""
    places = [at for at, character in enumerate(text) if character != "\0"]
    return text.replace("\0", ""), [*places, len(text)]


def _cores(secret: str) -> Iterator[tuple[bytes, bytes]]:
    """The digits of base64 that a secret alone decides, at each alignment, and `?` where it shares one."""
    raw = secret.encode(errors="surrogatepass")
    for skipped in range(3):
        digits = binascii.b2a_base64(bytes(skipped) + raw, newline=False)
        own = digits[-(-skipped * 4 // 3) : (skipped + len(raw)) * 4 // 3].replace(b"+", b"")
        yield own, b"?" * (skipped > 0) + own + b"?" * ((skipped + len(raw)) % 3 > 0)


@lru_cache(maxsize=64)
def _with_anything_between(core: bytes) -> re.Pattern[str]:
    """Digits of base64 in groups, in lines, in quotation marks."""
    digits = core.decode()
    between = _SEPARATORS.join("[/_]" if digit == "/" else digit for digit in digits.strip("?"))
    shared = "[A-Za-z0-9+/_-]?"
    return re.compile(shared * digits.startswith("?") + between + shared * digits.endswith("?"))


def _with_their_marks(text: str) -> list[str]:
    """The characters of a text, each with the accents that follow it."""
    characters: list[str] = []
    for character in text:
        # HTML reads a number among the control characters as the Windows-1252 character of it.
        if (
            characters
            and unicodedata.combining(character)
            and unicodedata.category(characters[-1][0]) != "Cc"
        ):
            characters[-1] += character
        else:
            characters.append(character)
    return characters


def _is_plain(secret: str) -> bool:
    """Whether it stands within a single run of text, wherever it does."""
    return secret.isascii() and _TEXT_RUN.fullmatch(secret) is not None


def _ways(character: str, *, lossy: bool) -> tuple[Way, ...]:
    """What a character may have become by being read in another charset, or normalised, since it was written."""
    if character.isascii():
        return _ASCII_WAYS.get(character, ((character,),))
    lost = _LOST if lossy else ""
    ways: dict[Way, None] = {}
    for written in dict.fromkeys([character, *(unicodedata.normalize(form, character) for form in _FORMS)]):
        ways[tuple(one if one.isascii() else one + lost for one in written)] = None
        ways[_as_bytes(written, "utf-8", lost)] = None
        # UTF-16, whose NULs are left out.
        ways[_as_bytes(written, "utf-16-le", lost)] = None
        ways[_as_bytes(written, "utf-16-be", lost)] = None
        if lossy:
            # Without what the charset has no place for: an accent, or all of it.
            ways[tuple(one for one in written if one.isascii())] = None
    return tuple(ways)


# A form's space, a mail header's, HTML's that does not break, also as Latin-1 reads its UTF-8; Windows' line;
# what HTML reads for `&#0;`.
_ASCII_WAYS: dict[str, tuple[Way, ...]] = {
    " ": ((" +_\xa0\udca0",), ("\xc2\udcc2", "\xa0\udca0")),
    "\n": (("\n",), ("\r", "\n")),
    "\0": (("\0\ufffd",),),
}


def _as_bytes(text: str, encoding: str, lost: str) -> Way:
    raw = text.encode(encoding, errors="surrogatepass").replace(b"\0", b"")
    return tuple("".join(_as_single(byte)) + (lost if byte >= 0x80 else "") for byte in raw)


def _beginnings(characters: Sequence[Sequence[Way]]) -> Iterator[str]:
    """Patterns of what a spelling of some characters may begin with."""
    for way in characters[0]:
        if not way:
            if len(characters) > 1:
                yield from _beginnings(characters[1:])
            continue
        follows = way[1] if len(way) > 1 else _first_of(characters[1:]) if len(characters) > 1 else ""
        ahead = f"(?=[%&\\\\={re.escape(follows)}])" if follows else ""
        yield f"[{re.escape(way[0])}]{ahead}"


def _first_of(characters: Sequence[Sequence[Way]]) -> str:
    """The characters by which a spelling of some characters may begin."""
    found = "".join(way[0] for way in characters[0] if way)
    skippable = () in characters[0] and len(characters) > 1
    return found + (_first_of(characters[1:]) if skippable else "")


@lru_cache(maxsize=256)
def _as_single(byte: int) -> tuple[str, ...]:
    """The characters of one byte in Latin-1, Windows-1252, and where Python keeps what it cannot decode."""
    if byte < 0x80:
        return (chr(byte),)
    windows = bytes([byte]).decode("cp1252", errors="ignore")
    return tuple(dict.fromkeys((chr(byte), *windows, chr(0xDC00 + byte))))


@lru_cache(maxsize=4096)
def _named(name: str) -> str | None:
    """The character of an HTML reference; None when it is none, or several."""
    text = html.unescape(f"&{name}")
    if text == "" and (numbered := _NUMBERED.fullmatch(name)):
        # A character that HTML does not allow, so that it leaves it out; who writes references does not ask.
        number = int(numbered["hex"], 16) if numbered["hex"] else int(numbered["decimal"])
        return chr(number)
    return text if len(text) == 1 and not (text == "&" and name == "") else None


def _cut_at(text: str, place: int, *, cut: bool) -> int | None:
    """Where a text was cut, when nothing but an escape that may have been cut stands before that; None elsewhere.

    Args:
        text: It.
        place: Where something may go on that is looked for.
        cut: Whether the text's end is where it was cut. Where others cut (parsers, databases, `repr`) is an ellipsis.
    """
    if cut and place >= len(text):
        return len(text)
    ellipsis = _ELLIPSIS.search(text, place, place + _CUT_ESCAPE + 3)
    end = ellipsis.start() if ellipsis else len(text) if cut else None
    if end is not None and (place == end or (end - place < _CUT_ESCAPE and text[place] in _ESCAPES)):
        return end
    return None


def search_work(text: str, packed: int = _PACKED) -> int:
    """How much work it is to search a text: about so many microseconds, whatever the secrets are.

    Args:
        text: Any text.
        packed: How often what is packed in it is unpacked.
    """
    work = len(text) + _ESCAPE_WORK * sum(1 for _ in _QUOTING.starts.finditer(text))
    if packed == 0:
        return work
    for run in _BASE64_RUN.finditer(text):
        work += sum(_work_in_bytes(raw, packed - 1) for raw in _base64_bytes(run[0].translate(_TO_STANDARD)))
    for run in _HEX_RUN.finditer(text):
        work += sum(_work_in_bytes(raw, packed - 1) for raw in _hex_bytes(_hex_digits(run)[0]))
    return work


def _work_in_bytes(raw: bytes, packed: int) -> int:
    text = raw.decode("utf-8", errors="surrogateescape")
    runs, is_text = _text_runs(text)
    if is_text:
        return search_work(text, packed)
    return sum(search_work(text[start:end], packed) for start, end in runs)


@lru_cache(maxsize=64)
def spellings_of(secrets: frozenset[str]) -> Spellings:
    """The spellings of these secrets; the same few come with every request."""
    return Spellings(secrets)
