"""Numbers of a JSON document with all of their digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final


class SpelledNumber(float):
    """A number with a fraction or an exponent, as its document spells it.

    It is the nearest double to whoever calculates or compares (JMESPath, paging), and `text` to whoever writes it down.

    Attributes:
        text: The digits as they came: `1.50`, `2e0`, `0.123456789123456789`.
    """

    __slots__ = ("text",)

    text: str

    def __new__(cls, text: str) -> SpelledNumber:  # noqa: PYI034 - there are no subclasses
        """The number that a text spells."""
        return spelled(text)

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        return (self.text,)


def spelled(
    text: str,
    # Bound here: this runs once for every such number of a page.
    new: Callable[[Any, str], Any] = float.__new__,
    cls: type = SpelledNumber,
) -> SpelledNumber:
    """The number that a text spells, which must be one of JSON's."""
    number: SpelledNumber = new(cls, text)
    number.text = text
    return number


# jmespath tells types by the name of their class, and knows no subclasses.
SpelledNumber.__name__ = "float"

#: Integers of more digits are kept as they are spelled: Python refuses to read them (CVE-2020-10735).
MAX_INTEGER_DIGITS: Final = 4300


def integer(text: str) -> int | SpelledNumber:
    """The integer that a text spells."""
    return int(text) if len(text) <= MAX_INTEGER_DIGITS else spelled(text)
