"""When a request is tried again, inside a shard. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from collect_ops.collectors.errors import CollectorError, HostBusy
from collect_ops.kernel.errors import Transient
from collect_ops.sources.model import Retries


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryNotice:
    """A request that failed and is tried again.

    Args:
        attempt: The attempt that failed, from 1.
        attempts: How many there may be.
        wait_s: Seconds until the next one.
        error: Why it failed.
    """

    attempt: int
    attempts: int
    wait_s: float
    error: CollectorError


def wait_before_retry(
    error: CollectorError, attempt: int, retries: Retries, random: Callable[[], float]
) -> float | None:
    """Seconds to wait after failed attempt number `attempt` (from 1), or None when it was the last.

    Full jitter under a doubling ceiling. A host's Retry-After is a floor: asking earlier is useless. One
    beyond `http_max_backoff_s` is left to the retry of the task, which holds no slot while it waits.

    Args:
        error: What failed.
        attempt: Number of the failed attempt.
        retries: The source's policy.
        random: Uniform in [0, 1).
    """
    asked_s = error.retry_after_s if isinstance(error, HostBusy) else None
    if not isinstance(error, Transient) or attempt >= retries.http_attempts:
        return None
    ceiling_s = min(retries.http_max_backoff_s, retries.http_backoff_s * 2.0 ** (attempt - 1))
    jitter_s = random() * ceiling_s
    if asked_s is None:
        return jitter_s
    if asked_s > retries.http_max_backoff_s:
        return None
    return min(retries.http_max_backoff_s, asked_s + jitter_s)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that `Retry-After` asks for; None when it is absent or unreadable.

    Args:
        headers: Response headers, case-insensitive.
        now: The time to count from when it names a date and the response has no `Date` of its own.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    until = _date(value)
    if until is None:
        return None
    # Both dates by the server's clock, when it tells it: ours may differ.
    return max(0.0, (until - (_date(headers.get("Date", "")) or now)).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
