"""Parameters from the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from collect_ops.kernel.errors import Fault, ValidationFailed

_AGO = re.compile(r"(\d{1,6})\s*([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_params(pairs: Sequence[str], *, option: str = "--param") -> dict[str, str]:
    """`NAME=VALUE` pairs as a mapping.

    Args:
        pairs: As they were given.
        option: The option's name, for faults.

    Raises:
        ValidationFailed: Some are not of that form.
    """
    faults = [
        Fault(field=option, value=pair, problem="must be NAME=VALUE") for pair in pairs if "=" not in pair
    ]
    if faults:
        raise ValidationFailed("command line", faults)
    return dict(pair.split("=", 1) for pair in pairs)


def parse_time(option: str, text: str | None) -> datetime | None:
    """A moment with its offset from UTC; None for None.

    Args:
        option: The option's name, for the fault.
        text: ISO 8601.

    Raises:
        ValidationFailed: It is none, or has no offset.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        problem = "must be ISO 8601 with an offset, such as 2026-01-31T08:00:00Z"
        raise ValidationFailed("command line", [Fault(field=option, value=text, problem=problem)])
    return moment


def parse_since(option: str, text: str | None, *, now: datetime) -> datetime | None:
    """A moment, or how long ago one was; None for None.

    Args:
        option: The option's name, for the fault.
        text: ISO 8601 with an offset, or `30m`, `2h`, `7d`.
        now: What these count from.

    Raises:
        ValidationFailed: It is neither.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment: datetime | None = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or moment.tzinfo is None:
        problem = (
            "must be ISO 8601 with an offset, such as 2026-01-31T08:00:00Z, or how long ago: 30m, 2h, 7d"
        )
        raise ValidationFailed("command line", [Fault(field=option, value=text, problem=problem)])
    return moment.astimezone(UTC)
