"""Numbers that servers write and JSON does not have."""

from __future__ import annotations

from typing import Self


class OddNumber(float):
    """A number that is no JSON (NaN, Infinity), or that no double holds (1e400).

    It compares and counts as the double nearest to it, and no JSON writer takes it: a value that holds one can never be
    written as null, or as another number, without anybody noticing.

    Attributes:
        text: The number as it was spelled.
    """

    __slots__ = ("text",)

    text: str

    def __new__(cls, text: str | float) -> Self:
        """From its spelling, as long as it may be: Python's float() takes any."""
        number = super().__new__(cls, text)
        number.text = str(text)
        return number
