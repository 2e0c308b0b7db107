"""What Redis says is checked: whoever can write to it may be no process of ours."""

from __future__ import annotations

import logging
import re

log = logging.getLogger(__name__)

_NUMBER = re.compile(rb"-?[0-9]{1,19}")
#: Characters of a value in a log line.
_SHOWN = 80


def whole_number(key: str, value: object, *, least: int, most: int) -> int | None:
    """The number that a key holds; None, with a line in the log, when it holds none that we would have written.

    Args:
        key: The key.
        value: What Redis said.
        least: The least that we write.
        most: The greatest.
    """
    if isinstance(value, bytes) and _NUMBER.fullmatch(value) and least <= (number := int(value)) <= most:
        return number
    ignored(key, value)
    return None


def text(value: object, *, most: int = 500) -> str:
    """A text from Redis, for people: cut, and of characters that can be shown."""
    decoded = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in decoded[:most])


def ignored(key: str, value: object) -> None:
    """Say that what a key holds is nothing that we have written."""
    log.warning(
        "Redis key %s holds what collect-ops does not write, it is ignored: %s", key, repr(value)[:_SHOWN]
    )
