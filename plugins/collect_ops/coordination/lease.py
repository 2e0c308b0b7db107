"""Leases on shards: redis-py's lock (SET NX PX, released and renewed by its owner's token only).

A lease keeps two holders from working on the same shard; that it can be lost (Redis away or flushed, holder asleep) is
allowed for: the fencing token in PostgreSQL keeps two from landing. A holder renews only what makes progress, so a
hung one loses its shards after one lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

import redis.asyncio
from redis.asyncio.lock import Lock
from redis.exceptions import LockError, LockNotOwnedError, RedisError

from collect_ops.coordination import keys
from collect_ops.coordination.client import connect_async
from collect_ops.coordination.reading import ignored

log = logging.getLogger(__name__)

#: What PTTL says of a key that is not there.
_MISSING: Final = -2

LEASE_S = 30.0
WAIT_S = 5.0


class Lease:
    """A lease that is held; `progressed` is called whenever its work moves on."""

    def __init__(self, lock: Lock | None, name: str) -> None:
        self._lock = lock
        self.name = name
        self._progress_at = time.monotonic()

    def progressed(self) -> None:
        """The work under this lease has moved on: keep it."""
        self._progress_at = time.monotonic()

    def stalled_s(self) -> float:
        """Seconds since the work moved on."""
        return time.monotonic() - self._progress_at

    async def renew(self) -> None:
        """Set the lease's expiry to its full length again."""
        if self._lock is not None:
            await self._lock.reacquire()

    async def release(self) -> None:
        """Give the lease back, if it is still ours and Redis is there."""
        if self._lock is None:
            return
        try:
            await self._lock.release()
        except LockError as error:
            # It expired, was flushed or was let go when a renewal failed: nothing of ours is left to release.
            log.info("lease %s was gone before it was released: %s", self.name, error)
        except RedisError as error:
            log.warning("lease %s not released, it expires by itself: %r", self.name, error)


class Leases:
    """The leases of one shard group, renewed in the background while their work makes progress.

    Args:
        redis_url: Where Redis is.
        lease_s: How long a lease lives without renewal, in seconds.
        wait_s: How long to wait for one that somebody else holds, in seconds.
    """

    def __init__(self, redis_url: str, *, lease_s: float = LEASE_S, wait_s: float = WAIT_S) -> None:
        self._redis: redis.asyncio.Redis = connect_async(redis_url)
        self._lease_s = lease_s
        self._wait_s = wait_s
        self._held: set[Lease] = set()
        self._renewal: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._renewal = asyncio.create_task(self._renew())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewal
        await self._redis.aclose()

    @contextlib.asynccontextmanager
    async def hold(self, task_id: int, shard_no: int, *, wait: bool = True) -> AsyncIterator[Lease | None]:
        """Hold the lease of a shard; yields None when somebody else holds it.

        With Redis away the work goes on without a lease (the fencing token still guards the landing), and says so.

        Args:
            task_id: The collect task.
            shard_no: Its shard.
            wait: Whether to wait for a lease that is held.
        """
        name = keys.lease(task_id, shard_no)
        lock: Lock | None
        lock = own = Lock(self._redis, name, timeout=self._lease_s, blocking_timeout=self._wait_s, sleep=0.25)
        try:
            taken = await self._taken(own, name, wait=wait)
        except RedisError as error:
            log.warning(
                "no lease for shard %s of task %s, going on under its fencing token: %r",
                shard_no,
                task_id,
                error,
            )
            lock, taken = None, True
        if not taken:
            yield None
            return
        lease = Lease(lock, name)
        self._held.add(lease)
        try:
            yield lease
        finally:
            self._held.discard(lease)
            await lease.release()

    async def _taken(self, lock: Lock, name: str, *, wait: bool) -> bool:
        """Whether the lease is ours now. One that does not end as ours do is nobody's, and is taken over."""
        if await lock.acquire(blocking=wait):
            return True
        left_ms = await self._redis.pttl(name)
        if 0 <= left_ms <= max(self._lease_s, LEASE_S) * 1000 or left_ms == _MISSING:
            return False
        ignored(name, f"a lease that ends in {left_ms} ms" if left_ms >= 0 else "a lease without end")
        await self._redis.delete(name)
        return bool(await lock.acquire(blocking=False))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            for lease in tuple(self._held):
                if lease.stalled_s() < self._lease_s:
                    await self._renew_one(lease)

    async def _renew_one(self, lease: Lease) -> None:
        try:
            await lease.renew()
        except LockNotOwnedError:
            log.warning(
                "lease %s is gone (expired or flushed); going on while the fencing token is ours", lease.name
            )
            self._held.discard(lease)
        except RedisError as error:
            log.warning("lease %s not renewed: %r", lease.name, error)
