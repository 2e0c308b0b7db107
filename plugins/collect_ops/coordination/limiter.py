"""Limits of a host that all nodes share: requests a second, requests at once, and the pauses that the host asks for.

Promises: of all processes that ask here, never more requests are sent at once than the strictest of the limits that
they declare, and in any stretch of time never more than the strictest rate allows for it and `BURST_S` together. A
killed process's places are free when they expire. Redis that is flushed forgets pauses and places: that costs
politeness for as long as a request takes. Redis that is away is told of by `LimiterAway`; the caller has limits of its
own then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from types import TracebackType
from typing import Any, Self, cast

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from collect_ops.coordination import keys
from collect_ops.coordination.client import connect_async
from collect_ops.coordination.reading import ignored, text
from collect_ops.kernel.errors import CollectOpsError, OwnOutage
from collect_ops.kernel.paths import include_dir

log = logging.getLogger(__name__)

#: How long a place lives that its holder does not renew.
PLACE_S = 10.0
#: A request's time is given out so long before it at most: what a killed process has not used is lost.
AHEAD_S = 0.25
#: A burst is as many requests as the rate allows in this time: what processes that wake up late may make up for. When
#: the interval between two requests is longer there is no burst.
BURST_S = 0.025
#: How long a source's limits count after it has last asked, or kept a place: longer than it waits between two requests.
LIMIT_LIFE_S = 10.0
#: A place that was given back goes with the next question, or after this.
RELEASE_DELAY_S = 0.003
TIMEOUT_S = 1.0
_US = 1_000_000


class LimiterAway(CollectOpsError, OwnOutage):
    """Redis does not answer."""

    def __init__(self, reason: object) -> None:
        super().__init__(f"Redis does not give out turns: {reason!r}")


class Verdict(IntEnum):
    """What came of asking for a turn."""

    GRANTED = 0
    HELD = 1
    OVER_RATE = 2
    FULL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimits:
    """What a source declares of its host.

    Args:
        concurrency: Requests at once.
        requests_per_s: Requests a second; None for any number.
    """

    concurrency: int
    requests_per_s: float | None = None

    @property
    def interval_us(self) -> int:
        """Microseconds between two requests; rounded up, so that rounding never makes it faster."""
        return -int(-_US // self.requests_per_s) if self.requests_per_s else 0

    def stricter(self, other: HostLimits) -> HostLimits:
        """The stricter of both, one by one."""
        rates = [rate for rate in (self.requests_per_s, other.requests_per_s) if rate is not None]
        return HostLimits(
            concurrency=min(self.concurrency, other.concurrency), requests_per_s=min(rates, default=None)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The limiter's answer.

    Args:
        verdict: Granted, or why not.
        wait_s: Granted: seconds until the request may be sent. Else: until it is worth asking again.
        place: The place, to be given back; not granted: to ask again with, so that the turn is kept.
        reason: Why the host is held, for people.
    """

    verdict: Verdict
    wait_s: float
    place: str
    reason: str = ""


@cache
def _script(name: str) -> str:
    return (include_dir() / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def read_scripts() -> None:
    """Read every script now, so that this process and its forks go on with these, whatever the files become."""
    for file in (include_dir() / "lua").glob("*.lua"):
        _script(file.stem)


class HostLimiter:
    """Asks for turns at one host; an async context manager around its connections to Redis.

    Args:
        redis_url: Where Redis is.
        host: The Airflow connection that names the host.
        limits: What the source declares of it.
        place_s: Life of a place that is not renewed, in seconds.
    """

    def __init__(self, redis_url: str, host: str, limits: HostLimits, *, place_s: float = PLACE_S) -> None:
        # A command that is sent again after a time-out could take a second place and time.
        self._redis: redis.asyncio.Redis = connect_async(
            redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )
        self._acquire = self._redis.register_script(_script("limiter_acquire"))
        self._advise = self._redis.register_script(_script("limiter_advise"))
        self._renew = self._redis.register_script(_script("limiter_renew"))
        self._keys = keys.limiter(host)
        self._limits = limits
        self._place_us = int(place_s * _US)
        self._suffix = f":{uuid.uuid4().hex[:12]}:"
        self._count = 0
        self._held: set[str] = set()
        self._returned: list[str] = []
        self._returning: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in (self._renewal, self._returning):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._returned.extend(self._held)
        self._held.clear()
        try:
            await self._return()
        finally:
            await self._redis.aclose()

    def tighten(self, limits: HostLimits) -> None:
        """Another source asks through this limiter as well."""
        self._limits = self._limits.stricter(limits)

    async def ask(self, place: str = "") -> Answer:
        """Ask for a turn: one round trip.

        Args:
            place: Of the answer before, when this turn was asked for already.

        Raises:
            LimiterAway: Redis does not answer.
        """
        returned, self._returned = self._returned, []
        self._count += 1
        arguments: list[Any] = [
            place, f"{self._suffix}{self._count}", self._limits.concurrency,
            self._limits.interval_us, self._place_us,
            int(AHEAD_S * _US), self._limit_life_us, int(BURST_S * _US), *returned,
        ]  # fmt: skip
        try:
            verdict, wait_us, named, reason = await self._acquired(arguments)
        except (RedisError, OSError) as error:
            self._returned.extend(returned)
            raise LimiterAway(error) from error
        answer = Answer(
            verdict=Verdict(verdict), wait_s=max(0, wait_us) / _US, place=named.decode(), reason=text(reason)
        )
        if answer.verdict is Verdict.GRANTED:
            self._held.add(answer.place)
            if self._renewal is None:
                self._renewal = asyncio.create_task(self._keep())
        return answer

    async def forget(self) -> None:
        """Forget what the host's keys hold, since it cannot be ours: as after a flush.

        Raises:
            LimiterAway: Redis does not answer.
        """
        try:
            await self._redis.delete(*self._keys)
        except (RedisError, OSError) as error:
            raise LimiterAway(error) from error

    async def _acquired(self, arguments: list[Any]) -> list[Any]:
        """The script's answer; keys that it stumbles over are none of ours, and go."""
        try:
            return cast("list[Any]", await self._acquire(keys=self._keys, args=arguments))
        except ResponseError as error:
            ignored(self._keys[0], error)
            await self._redis.delete(*self._keys)
            return cast("list[Any]", await self._acquire(keys=self._keys, args=arguments))

    def give_back(self, place: str) -> None:
        """The request has ended: its place is free."""
        self._held.discard(place)
        self._returned.append(place)
        if self._returning is None or self._returning.done():
            self._returning = asyncio.create_task(self._return_soon())

    async def hold(self, seconds: float, reason: str) -> None:
        """The host asked for patience: no node sends anything for so long.

        Raises:
            LimiterAway: Redis does not answer.
        """
        await self._advised([int(seconds * _US), reason, 0, 0])

    async def slow_down(self, requests_per_s: float, for_s: float) -> None:
        """The host has little left: all nodes together send so many requests a second at most, for so long.

        Raises:
            LimiterAway: Redis does not answer.
        """
        await self._advised([0, "", HostLimits(concurrency=1, requests_per_s=requests_per_s).interval_us,
                             int(for_s * _US)])  # fmt: skip

    async def _advised(self, arguments: list[Any]) -> None:
        try:
            await self._advise(keys=self._keys[:1], args=arguments)
        except (RedisError, OSError) as error:
            raise LimiterAway(error) from error

    async def _return_soon(self) -> None:
        await asyncio.sleep(RELEASE_DELAY_S)
        await self._return()

    async def _return(self) -> None:
        returned, self._returned = self._returned, []
        if not returned:
            return
        try:
            await self._redis.zrem(self._keys[1], *returned)
        except (RedisError, OSError) as error:
            log.info("places at a host not given back, they expire by themselves: %r", error)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._place_us / _US / 3)
            if not self._held:
                continue
            held = set(self._held)
            try:
                await self._renewed(held)
            except (RedisError, OSError) as error:
                log.info("places at a host not renewed: %r", error)
            # One that was given back meanwhile may have been made anew, if its return was faster.
            for place in held - self._held:
                self.give_back(place)

    async def _renewed(self, places: Iterable[str]) -> None:
        """Keep places, and the limits that hold while they are taken."""
        limits = [self._limit_life_us, self._limits.concurrency, self._limits.interval_us]
        keys = [self._keys[1], self._keys[3]]
        await self._renew(keys=keys, args=[self._place_us, *limits, *places])

    @property
    def _limit_life_us(self) -> int:
        return int(max(LIMIT_LIFE_S * _US, 3 * self._limits.interval_us))
