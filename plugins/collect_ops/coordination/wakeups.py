"""One pending wake-up a lane."""

from __future__ import annotations

import logging

from redis.exceptions import RedisError

from collect_ops.coordination import keys
from collect_ops.coordination.client import connect

log = logging.getLogger(__name__)


class Wakeups:
    """Marks of pending wake-ups in Redis. With Redis away every wake-up goes through: too many cost time only.

    Args:
        redis_url: Where Redis is.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis = connect(redis_url)

    def begin(self, lane: str) -> bool:
        """Whether the caller is the one to wake the lane now; if so, others hold back until `clear`."""
        try:
            return bool(self._redis.set(keys.wake(lane), "1", nx=True, ex=keys.WAKE_LIFETIME_S))
        except RedisError as error:
            log.warning("Redis is away, waking lane %s all the same: %r", lane, error)
            return True

    def clear(self, lane: str) -> None:
        """The wake-up has arrived (or failed): the next one may go out."""
        try:
            self._redis.delete(keys.wake(lane))
        except RedisError as error:
            log.warning("wake-up mark of lane %s not cleared, it expires by itself: %r", lane, error)
