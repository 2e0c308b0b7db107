"""When a request is tried again, inside a shard. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from collect_ops.collectors.errors import CollectorError, HostBusy, NotReady
from collect_ops.collectors.waits import seconds_until, server_time
from collect_ops.kernel.errors import Transient
from collect_ops.sources.model import Retries

# Azure and others say it in milliseconds as well, and mean the same.
_MS_HEADERS = ("Retry-After-Ms", "X-Ms-Retry-After-Ms")
_SECONDS_HEADERS = ("Retry-After", "X-Retry-After")


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
    asked_s = error.retry_after_s if isinstance(error, HostBusy | NotReady) else None
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
    """Seconds that the server asks to wait, as `Retry-After` or a header like it; None when it names none.

    Args:
        headers: Response headers, case-insensitive.
        now: The time to count from when it names a date and the response has no `Date` of its own.
    """
    clock = server_time(headers, now)
    named = (seconds_until(headers.get(name, ""), clock) for name in _SECONDS_HEADERS)
    in_ms = (seconds_until(f"{headers[name].strip()}ms", clock) for name in _MS_HEADERS if name in headers)
    return next((wait_s for wait_s in (*in_ms, *named) if wait_s is not None), None)
