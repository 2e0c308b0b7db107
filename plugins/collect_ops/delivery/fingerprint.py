"""Which errors are the same fault: a message without what differs from case to case. Pure.

A thousand tasks that fail for one cause give a thousand messages, which differ in numbers, ids, times, quoted values
and queries of URLs. What is left when these are gone is the pattern; its hash is the fingerprint.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

#: Characters of a message that are looked at; beyond that the beginnings decide.
MAX_CHARS = 2000
#: Characters of a pattern that are kept.
MAX_PATTERN_CHARS = 500

_URL = re.compile(r"\b[a-z][a-z0-9+.-]{0,20}://[^\s'\"<>]+", re.IGNORECASE)
_UUID = re.compile(
    r"(?<![0-9a-z])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9a-z])", re.IGNORECASE
)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?)?"
    r"|\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b"
)
# A value in quotes; the quote must not stand within a word, as in "server's". Bounded, so that it is never quadratic.
_QUOTED = re.compile(
    r"(?<!\w)b?(?P<quote>['\"`])(?:\\.|(?!(?P=quote))[^\\]){0,600}(?P=quote)(?!\w)", re.DOTALL
)
# Messages are cut where they get long: a quote that does not end has lost its end.
_UNCLOSED = re.compile(r"(?<!\w)b?['\"`][^'\"`]*\Z", re.DOTALL)
_HEX = re.compile(r"\b0x[0-9a-f]+\b|(?<![0-9a-z])(?=[a-f]*\d)[0-9a-f]{8,}(?![0-9a-z])", re.IGNORECASE)
# The numbers that say what went wrong: statuses of answers, error numbers.
_TELLING = re.compile(
    r"\b(?P<word>answered|status|HTTP|errno|SQLSTATE|code)(?P<gap>[ :=]{1,3})(?P<number>\d{1,5})\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[-+]?\d+(?:[.,_]\d+)*(?:e[-+]?\d+)?", re.IGNORECASE)
_LETTERS = str.maketrans("0123456789", "ABCDEFGHIJ")
_DIGITS = str.maketrans("ABCDEFGHIJ", "0123456789")
_KEPT = re.compile(r"\ue000([A-J]+)\ue001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """The group of an error.

    Args:
        value: 16 hexadecimal digits; equal for the same fault.
        pattern: The message without what differs.
    """

    value: str
    pattern: str


def fingerprint(error_class: str | None, message: str) -> Fingerprint:
    """The group that an error belongs to.

    Args:
        error_class: Name of the exception's class, None when it is not known.
        message: What it said.
    """
    pattern = normalised(message)
    digest = hashlib.sha256(f"{error_class or ''}\0{pattern}".encode("utf-8", "backslashreplace"))
    return Fingerprint(value=digest.hexdigest()[:16], pattern=pattern)


def normalised(message: str) -> str:
    """A message without numbers, ids, times, quoted values and queries; hosts, statuses and error numbers stay."""
    text = message[:MAX_CHARS].replace("\ue000", "").replace("\ue001", "")
    text = _URL.sub(_without_query, text)
    text = _UNCLOSED.sub("…", _QUOTED.sub("…", text))
    text = _TIME.sub("<time>", text)
    text = _UUID.sub("#", text)
    text = _TELLING.sub(lambda found: f"{found['word']}{found['gap']}{_kept(found['number'])}", text)
    text = _HEX.sub("#", text)
    text = _NUMBER.sub("#", text)
    text = _KEPT.sub(lambda found: found[1].translate(_DIGITS), text)
    return " ".join(text.split())[:MAX_PATTERN_CHARS]


def _kept(digits: str) -> str:
    """Digits, hidden from the patterns that follow."""
    return f"\ue000{digits.translate(_LETTERS)}\ue001"


def _without_query(found: re.Match[str]) -> str:
    url = found[0]
    # What ends a sentence is not the URL's.
    bare = url.rstrip(".,;:)]}")
    try:
        parts = urlsplit(bare)
        host = parts.hostname or ""
        port = f":{_kept(str(parts.port))}" if parts.port else ""
    except ValueError:
        return "<url>"
    # A host's own digits (a server's number, an address) are part of its name.
    named = re.sub(r"\d+", lambda digits: _kept(digits[0]), host)
    path = "/".join(_segment(segment) for segment in parts.path.rstrip("/").split("/"))
    return f"{parts.scheme}://{named}{port}{path}{url[len(bare) :]}"


def _segment(segment: str) -> str:
    """A segment of a path: a word or a version stays, what else holds a digit or is long is somebody's id."""
    if re.fullmatch(r"v\d{1,2}", segment):
        return f"v{_kept(segment[1:])}"
    return "#" if len(segment) > 32 or re.search(r"\d", segment) else segment
