"""Secrets that are recognised wherever a part of them comes to light, by other means than what masks them."""

from __future__ import annotations

import base64
import secrets
import string
from dataclasses import dataclass
from functools import cached_property

#: Characters that come together are enough to be a find.
FRAGMENT = 8
SPECIAL = '/+=&"\u2039é\\'


@dataclass(frozen=True)
class Canary:
    """A secret: two words that no encoding changes, with what every encoding changes between them.

    Args:
        name: Whose secret it is.
        text: It.
    """

    name: str
    text: str

    @classmethod
    def new(cls, name: str, *, special: str = SPECIAL) -> Canary:
        return cls(name, f"{_word()}{special}{_word()}")

    @cached_property
    def fragments(self) -> tuple[str, ...]:
        """What gives it away: eight of its letters, as they are, as numbers, in hex, or in base64."""
        words = "".join(c if c in string.ascii_letters + string.digits else " " for c in self.text).split()
        pieces = [word[at : at + FRAGMENT] for word in words for at in range(len(word) - FRAGMENT + 1)]
        found = set(pieces)
        for piece in pieces:
            raw = piece.encode()
            found |= {raw.hex(), raw.hex().upper(), "".join(f"&#{byte};" for byte in raw)}
            # Of each alignment the digits that hold nothing but it: eight of them.
            found |= {
                base64.b64encode(bytes(skip) + raw)[digits].decode()
                for skip, digits in enumerate((slice(8), slice(4, 12), slice(4, 12)))
            }
        return tuple(found)

    def is_in(self, text: str) -> bool:
        """Whether a part of it is there. UTF-16 counts."""
        plain = text.replace("\0", "").replace("\\u0000", "").replace("\\x00", "")
        return any(fragment in plain for fragment in self.fragments)


def _word() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(17))


def escaped(canaries: list[Canary], places: dict[str, str]) -> list[tuple[str, str, str]]:
    """Which canary has escaped where: its name, the place, and what stands there."""
    # Nearly always nothing is there, and one search of it all says so.
    if not any(canary.is_in("\n".join(places.values())) for canary in canaries):
        return []
    return [
        (canary.name, place, text[:300])
        for place, text in places.items()
        for canary in canaries
        if canary.is_in(text)
    ]
