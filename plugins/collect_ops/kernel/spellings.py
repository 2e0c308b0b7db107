r"""Known secrets within a text, in whatever spelling the other side has echoed them. Pure.

A server rarely repeats a password as it got it: it percent-encodes it (`%2F`, `%2f`, `%252F`), escapes it for HTML
(`&#x2F;`, `&quot;`), for JSON (`\/`, `\u003c`, `\\\"`) or for source code (`\057`, `\x{2f}`, `\u{2f}`), packs it into
base64 or hex, alone or as `user:secret`, reads its UTF-8 as Latin-1, and does several of these one after the other. So
a text is never decoded as a whole, which goes wrong wherever what stands before a secret looks like half an escape.
Instead every character of a secret is looked for in every spelling: what a text can be read as at one place is a small
set of characters, each with the place where its spelling ends, and the escapes' own characters are read the same way.
Base64 and hex are unpacked at every alignment and looked through again.
"""

from __future__ import annotations

import binascii
import html
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import TypeAlias

#: Secrets shorter than this are not looked for within texts: masking every `x` would spoil every address.
MIN_LENGTH = 6

Span: TypeAlias = tuple[int, int]
"""Where something begins and ends."""

Way: TypeAlias = tuple[str, ...]
"""A character as one or several others: what does at each place."""

Reading: TypeAlias = tuple[str, int]
"""A character that a text can be read as, and where its spelling ends."""

# How many encodings may lie over each other, and how often something may be packed again.
_DEPTH = 3
_PACKED = 2
# Characters at the end of a text that was cut which may be the beginning of an escape.
_CUT_ESCAPE = 16
_MOST_READINGS = 16
# Texts up to this length are searched once.
_REMEMBERED = 512

_ESCAPE = re.compile(r"[%&\\]")
_ELLIPSIS = re.compile(r"\.\.\.|\u2026")
_ESCAPES = frozenset("%&\\")
_HEX = frozenset("0123456789abcdefABCDEF")
_OCTAL = frozenset("01234567")
_LONGEST_BRACED = 6
_NAME = frozenset("#0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LONGEST_NAME = 33
_NUMBERED = re.compile(r"#(?:0*(?P<decimal>[1-9][0-9]{0,5})|[xX]0*(?P<hex>[1-9a-fA-F][0-9a-fA-F]{0,4}));?")
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}
_LOST = "?\ufffd"  # what an encoder or a decoder writes for a character that it does not know
_BASE64_RUN = re.compile(r"[A-Za-z0-9+/_\r\n-]{8,}")
_HEX_RUN = re.compile(r"[0-9A-Fa-f]{2}(?:[:\s-]?[0-9A-Fa-f]{2}){5,}[:\s-]?[0-9A-Fa-f]?")
_PACKED_RUN = re.compile(f"{_BASE64_RUN.pattern}|{_HEX_RUN.pattern}")
_TO_STANDARD = str.maketrans("-_", "+/", "\r\n")


class _Text:
    """A text, and what it can be read as wherever an escape begins."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._known: dict[tuple[int, int], tuple[Reading, ...]] = {}
        self._starts: dict[str, list[int]] | None = None
        self._decoders: dict[str, Callable[[int, int], Iterator[Reading]]] = {
            "%": self._percent,
            "&": self._entity,
            "\\": self._backslash,
        }

    def readings(self, at: int, depth: int = _DEPTH) -> tuple[Reading, ...]:
        """What the text can be read as at a place; first the character that stands there."""
        character = self.text[at]
        if depth == 0 or character not in _ESCAPES:
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
            for match in _ESCAPE.finditer(self.text):
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


class _Form:
    """A secret as it is looked for.

    Args:
        secret: It.
    """

    def __init__(self, secret: str) -> None:
        # What a charset has no place for may be missing; where nothing else would be left, that would be anything.
        lossy = sum(map(str.isascii, secret)) >= MIN_LENGTH
        self._characters = [_ways(character, lossy=lossy) for character in secret]
        self._first = _first_of(self._characters)
        second = f"(?=[%&\\\\]|[{re.escape(_first_of(self._characters[1:]))}])" if secret[0].isascii() else ""
        self.begins = f"[{re.escape(self._first)}]{second}"
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
        self.secrets = frozenset(secret for secret in secrets if len(secret) >= MIN_LENGTH)
        self._forms = [_Form(secret) for secret in sorted(self.secrets)]
        self._shortest = min((max(MIN_LENGTH, sum(map(str.isascii, one))) for one in self.secrets), default=0)

        # Most texts hold nothing that a secret could begin with, no escape, and nothing packed.
        self._promising = re.compile("|".join([form.begins for form in self._forms] + [r"[%&\\\0]"]))
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
        if not self._promising.search(text) and not (packed and _PACKED_RUN.search(text)):
            return
        read = _Text(text)
        for form in self._forms:
            yield from form.spans(read, cut=cut)
        for layer, places in _layers(read, packed):
            for start, end in self._unpacked(layer, packed, cut=cut):
                yield places[start], places[end]
            if "\0" in layer:
                # UTF-16 that was read as another encoding.
                kept = [at for at, character in enumerate(layer) if character != "\0"]
                kept.append(len(layer))
                for start, end in self._found(layer.replace("\0", ""), packed, cut=cut):
                    yield places[kept[start]], places[kept[end]]

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
        for skipped in range(4):
            # What stands before it may look like base64, too: a path, a name.
            part = digits[skipped:]
            part = part[:-1] if len(part) % 4 == 1 else part
            packed_bytes = binascii.a2b_base64(part + "=" * (-len(part) % 4))
            for start, end in self._in_bytes(packed_bytes, packed - 1, cut=cut):
                last = min(skipped + -(-end * 4 // 3), len(places))
                yield places[skipped + start * 4 // 3], places[last - 1] + 1

    def _in_hex(self, run: re.Match[str], packed: int, *, cut: bool) -> Iterator[Span]:
        places = [run.start() + at for at, character in enumerate(run[0]) if character in _HEX]
        digits = "".join(character for character in run[0] if character in _HEX)
        for skipped in range(2):
            part = digits[skipped:]
            packed_bytes = bytes.fromhex(part[: len(part) // 2 * 2])
            for start, end in self._in_bytes(packed_bytes, packed - 1, cut=cut):
                yield places[skipped + start * 2], places[skipped + end * 2 - 1] + 1

    def _in_bytes(self, raw: bytes, packed: int, *, cut: bool) -> Iterator[Span]:
        text = raw.decode("utf-8", errors="surrogateescape")
        if len(text) == len(raw):
            yield from self._found(text, packed, cut=cut)
            return
        places = [0, *accumulate(1 if "\udc80" <= c <= "\udcff" else len(c.encode()) for c in text)]
        for start, end in self._found(text, packed, cut=cut):
            yield places[start], places[end]


def _layers(read: _Text, packed: int) -> Iterator[tuple[str, Sequence[int]]]:
    """A text, and with one encoding after the other undone: what is packed is searched for in each."""
    places: Sequence[int] = range(len(read.text) + 1)
    yield read.text, places
    for _ in range(_DEPTH if packed > 0 else 0):
        if not _ESCAPE.search(read.text):
            return
        text, own = read.decoded()
        if text == read.text:
            return
        places = [places[at] for at in own]
        read = _Text(text)
        yield text, places


def _ways(character: str, *, lossy: bool) -> tuple[Way, ...]:
    """What a character may have become by being read in another charset than it was written in."""
    if character.isascii():
        return ((" +" if character == " " else character,),)  # a form's space
    lost = _LOST if lossy else ""
    ways = {(character + lost,), _as_bytes(character, "utf-8", lost)}
    # UTF-16, whose NULs are left out.
    ways |= {_as_bytes(character, "utf-16-le", lost), _as_bytes(character, "utf-16-be", lost)}
    return (*ways, ()) if lossy else tuple(ways)


def _as_bytes(character: str, encoding: str, lost: str) -> Way:
    raw = character.encode(encoding, errors="surrogatepass").replace(b"\0", b"")
    return tuple("".join(_as_single(byte)) + (lost if byte >= 0x80 else "") for byte in raw)


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


@lru_cache(maxsize=64)
def spellings_of(secrets: frozenset[str]) -> Spellings:
    """The spellings of these secrets; the same few come with every request."""
    return Spellings(secrets)
