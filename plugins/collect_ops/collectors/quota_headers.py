"""What a host says about how much more it bears, in its response headers. Pure.

Read are the `RateLimit` field of the IETF draft (draft-ietf-httpapi-ratelimit-headers, structured fields since its
version 08, `limit=10, remaining=3, reset=5` before), the older `RateLimit-Limit`, `-Remaining` and `-Reset`, and the
same with `X-` as many servers send it. What cannot be read says nothing: it is never an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from collect_ops.collectors.waits import seconds_until, server_time

#: A longer reset than this is not believed to mean seconds from now.
_MAX_RESET_S = 7 * 24 * 3600.0
#: Of a window of which less than this share is left, what is left is spread over its time.
_SCARCE = 0.1
_NUMBER = re.compile(r"\s*\"?([0-9]{1,15}(?:\.[0-9]{1,6})?)")
_PARAM = re.compile(r"(?:^|[;,\s])([a-z]+)\s*=\s*\"?([0-9]{1,15}(?:\.[0-9]{1,6})?)\"?")
_UNLIMITED = frozenset({"-1", "unlimited", "infinite", "infinity", "none", "no limit"})
_PREFIXES = ("RateLimit-", "X-RateLimit-", "X-Rate-Limit-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What is left of a window.

    Args:
        remaining: Requests.
        reset_s: Seconds until the window begins anew.
        limit: Requests of a whole window; None when it was not named.
    """

    remaining: float
    reset_s: float
    limit: float | None = None

    @property
    def hold_s(self) -> float:
        """Seconds to send nothing."""
        return self.reset_s if self.remaining < 1 else 0.0

    @property
    def requests_per_s(self) -> float | None:
        """What is left, spread over the window's time, when little is left; else None."""
        scarce = 10 if self.limit is None else self.limit * _SCARCE
        if self.remaining < 1 or self.reset_s <= 0 or self.remaining > scarce:
            return None
        return self.remaining / self.reset_s


def allowance(headers: Mapping[str, str], now: datetime) -> Allowance | None:
    """The tightest allowance that a response names; None when it names none that can be read.

    Args:
        headers: Response headers, case-insensitive.
        now: The time, for resets that are times of day; the response's own `Date` goes before it.
    """
    found = [*_structured(headers), *_separate(headers, server_time(headers, now))]
    # An exhausted window before any other, of several the one that lasts longest.
    return min(
        found,
        key=lambda each: (each.remaining >= 1, -each.hold_s or each.remaining / max(each.reset_s, 1e-9)),
        default=None,
    )


def _structured(headers: Mapping[str, str]) -> Iterator[Allowance]:
    """`"default";r=50;t=30` and `limit=100, remaining=50, reset=5`."""
    value = headers.get("RateLimit", "")
    quotas = _quotas(headers.get("RateLimit-Policy", ""))
    if re.search(r"(?:^|[,\s])remaining\s*=", value):
        named = _params(value)
        if "remaining" in named and "reset" in named:
            yield from _sane(named["remaining"], named["reset"], named.get("limit"))
        return
    for item in _items(value):
        named = _params(item)
        if "r" in named and "t" in named:
            yield from _sane(named["r"], named["t"], quotas.get(_name(item)))


def _separate(headers: Mapping[str, str], now: datetime) -> Iterator[Allowance]:
    for prefix in _PREFIXES:
        remaining = _number(headers.get(f"{prefix}Remaining", ""))
        reset_s = seconds_until(headers.get(f"{prefix}Reset-After", ""), now)
        if reset_s is None:
            reset_s = seconds_until(headers.get(f"{prefix}Reset", ""), now)
        limit = headers.get(f"{prefix}Limit", "")
        if remaining is not None and reset_s is not None and not _says_unlimited(limit):
            yield from _sane(remaining, reset_s, _number(limit))


def is_exhausted(headers: Mapping[str, str], now: datetime) -> bool:
    """Whether a response says that nothing is left, though perhaps not for how long."""
    left = allowance(headers, now)
    if left is not None:
        return left.remaining < 1
    return any(
        (remaining := _number(headers.get(f"{prefix}Remaining", ""))) is not None
        and remaining < 1
        and not _says_unlimited(headers.get(f"{prefix}Limit", ""))
        for prefix in _PREFIXES
    )


def _says_unlimited(limit: str) -> bool:
    """`0`, `-1` and `unlimited` mean that there is no limit, so that nothing is left of none."""
    text = limit.strip().strip('"').lower()
    return text in _UNLIMITED or _number(text) == 0


def _sane(remaining: float, reset_s: float, limit: float | None) -> Iterator[Allowance]:
    if 0 <= reset_s <= _MAX_RESET_S and limit != 0:
        yield Allowance(remaining=remaining, reset_s=reset_s, limit=limit)


def _quotas(policy: str) -> dict[str, float]:
    """`"burst";q=100;w=60` by name."""
    return {_name(item): named["q"] for item in _items(policy) if "q" in (named := _params(item))}


def _items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def _name(item: str) -> str:
    return item.partition(";")[0].strip().strip('"')


def _params(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in _PARAM.findall(text.lower())}


def _number(text: str) -> float | None:
    found = _NUMBER.match(text)
    return float(found[1]) if found else None
