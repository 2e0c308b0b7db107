"""Lengths of time as declared: ISO 8601 durations. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from dateutil.relativedelta import relativedelta  # type: ignore[import-untyped]

_DURATION = re.compile(
    r"P(?=.)(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?=.)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d{1,6})?)S)?)?",
    re.ASCII,
)
#: Longer than what lies between the first day of a calendar and its last.
_MAX_MONTHS = 12 * 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A length of time: months by the calendar, the rest by the clock (in UTC every day has 24 hours)."""

    months: int = 0
    length: timedelta = timedelta()

    @classmethod
    def of(cls, text: str) -> Self:
        """What an ISO 8601 duration means (`P1M`, `P2W`, `P1DT12H`, `PT0.5S`).

        Raises:
            ValueError: It is none, or one that no calendar holds.
        """
        found = _DURATION.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not an ISO 8601 duration")
        parts = {name: float(number) for name, number in found.groupdict().items() if number is not None}
        try:
            months = int(12 * parts.pop("years", 0) + parts.pop("months", 0))
            window = cls(months=min(months, _MAX_MONTHS), length=timedelta(**parts))
            too_long = months > _MAX_MONTHS or window.least > timedelta.max / 2
        except OverflowError:
            too_long = True
        if too_long:
            raise ValueError(f"{text[:100]!r} is longer than any calendar")
        return window

    @property
    def least(self) -> timedelta:
        """How long it is at least: a month has 28 days at least."""
        return self.length + timedelta(days=28) * self.months

    def after(self, start: datetime, times: int) -> datetime | None:
        """The moment so many windows after a start; None beyond the year 9999.

        Counted from the start, so that a short month does not shorten those after it: 31 January, 29 February,
        31 March.
        """
        try:
            moved: datetime = start + relativedelta(months=self.months * times) + self.length * times
        except (OverflowError, ValueError):
            return None
        return moved


def duration_problem(text: str) -> str | None:
    """What keeps a text from being a length of time."""
    wanted = "must be an ISO 8601 duration above zero, such as P1D, P1M or PT6H"
    try:
        return None if Window.of(text).least > timedelta() else wanted
    except ValueError:
        return wanted
