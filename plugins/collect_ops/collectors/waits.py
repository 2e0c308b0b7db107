"""Times to wait as servers spell them: seconds, with or without a unit, dates, seconds since 1970. Pure.

What cannot be read says nothing: it is never an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_NUMBER = re.compile(
    r"\"?([0-9]{1,19}(?:\.[0-9]{0,9})?)\s*([a-z]*)\"?(?:\s*[,;].*)?", re.IGNORECASE | re.DOTALL
)
_UNITS_S = {
    "": 1.0, "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0,
    "ms": 0.001, "millisecond": 0.001, "milliseconds": 0.001,
    "m": 60.0, "min": 60.0, "mins": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
}  # fmt: skip
#: From here on a number is a moment: seconds since 1970, milliseconds, microseconds, nanoseconds.
_MOMENTS = ((1e9, 1.0), (1e12, 1e3), (1e15, 1e6), (1e18, 1e9))


def seconds_until(text: str, now: datetime) -> float | None:
    """Seconds that a text asks to wait, not less than 0; None when it cannot be read.

    Args:
        text: `120`, `1.5`, `120s`, an HTTP or ISO date, seconds or milliseconds since 1970.
        now: The time to count from, by the server's clock if that is known.
    """
    text = text.strip()
    number = _NUMBER.fullmatch(text)
    if number is None or number[2].lower() not in _UNITS_S:
        until = moment_in(text)
        return None if until is None else max(0.0, (until - now).total_seconds())
    value = float(number[1]) * _UNITS_S[number[2].lower()]
    # The largest of the measures that is not above it.
    per_second = next((each for least, each in reversed(_MOMENTS) if value >= least), None)
    if per_second is None or number[2]:
        return value
    return max(0.0, value / per_second - now.timestamp())


def moment_in(text: str) -> datetime | None:
    """The moment that a text names, as an HTTP or ISO date; UTC when it says no zone."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = read(text.strip())
        except (ValueError, OverflowError):
            continue
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def server_time(headers: Mapping[str, str], now: datetime) -> datetime:
    """The time by the server's clock, when it tells it: ours may differ."""
    return moment_in(headers.get("Date", "")) or now
