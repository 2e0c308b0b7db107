"""How often a host is asked: requests spaced evenly, and pauses that the host asked for."""

from __future__ import annotations

import asyncio
import time


class Pacer:
    """Spaces the requests of one collector.

    Args:
        requests_per_s: At most so many; None means as fast as slots allow.
    """

    def __init__(self, requests_per_s: float | None) -> None:
        self._interval_s = 1 / requests_per_s if requests_per_s else 0.0
        self._next_at = 0.0

    async def turn(self) -> None:
        """Wait until the next request may be sent."""
        now = time.monotonic()
        at = max(now, self._next_at)
        self._next_at = at + self._interval_s
        if at > now:
            await asyncio.sleep(at - now)

    def hold(self, seconds: float) -> None:
        """Send nothing for so long: one answer of 429 speaks for all requests to the host."""
        self._next_at = max(self._next_at, time.monotonic() + seconds)
