"""One pending wake-up a lane."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from collect_ops.coordination import keys
from collect_ops.coordination.client import connect
from collect_ops.coordination.reading import ignored

log = logging.getLogger(__name__)

#: What PTTL says of a key that is not there.
_MISSING: Final = -2


class Wakeups:
    """Marks of pending wake-ups in Redis.

    Wake-ups that no claim answers get rarer, up to `keys.WAKE_LIFETIME_MAX_S`: those of a paused lane DAG pile up as
    queued runs, all of which run one after the other when it is resumed. With Redis away every user of this class
    wakes a lane once in `keys.WAKE_LIFETIME_S`.

    Args:
        redis_url: Where Redis is.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis = connect(redis_url)
        self._without_redis: dict[str, float] = {}

    def begin(self, lane: str) -> bool:
        """Whether the caller is the one to wake the lane now; if so, others hold back until `clear`."""
        mark: dict[str, Any] = {"nx": True, "ex": keys.WAKE_LIFETIME_S}
        try:
            if not self._redis.set(keys.wake(lane), "1", **mark):
                if self._holds_back(lane):
                    return False
                # A mark that does not end is none of ours, and would hold everybody back for ever.
                self._redis.delete(keys.wake(lane))
                if not self._redis.set(keys.wake(lane), "1", **mark):
                    return False
            unanswered = self._count_unanswered(lane)
            lifetime_s = min(keys.WAKE_LIFETIME_MAX_S, keys.WAKE_LIFETIME_S * 2 ** min(unanswered - 1, 10))
            with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.expire(keys.wake(lane), lifetime_s)
                pipeline.expire(keys.unanswered_wakes(lane), 2 * keys.WAKE_LIFETIME_MAX_S)
                pipeline.execute()
        except RedisError as error:
            log.warning("Redis is away, waking lane %s all the same: %r", lane, error)
            return self._begin_without_redis(lane)
        return True

    def begin_watched(self, lane: str) -> bool:
        """The same for a watcher, whose events may be answered late: its mark holds back watchers, nobody else.

        Airflow leaves an event of a DAG at its `max_active_runs` unread until the DAG's file is parsed again, up to 30
        seconds (3.3.2; seen twice in 30 urgent submissions under load). A run that a publisher starts is not affected.
        """
        return not self.pending(lane) and self.begin(keys.watched(lane))

    def pending(self, lane: str) -> bool:
        """Whether `begin` would say no, so that nothing has to be found out about the lane."""
        try:
            return self._holds_back(lane)
        except RedisError:
            return False  # `begin` says that Redis is away

    def _holds_back(self, lane: str) -> bool:
        """Whether there is a mark that ends when ours end."""
        left_ms = self._redis.pttl(keys.wake(lane))
        if left_ms == _MISSING:
            return False
        if not 0 <= left_ms <= keys.WAKE_LIFETIME_MAX_S * 1000:
            ignored(
                keys.wake(lane), f"a mark that ends in {left_ms} ms" if left_ms >= 0 else "a mark without end"
            )
            return False
        return True

    def _count_unanswered(self, lane: str) -> int:
        """Wake-ups since the lane's last claim, this one included."""
        name = keys.unanswered_wakes(lane)
        try:
            unanswered = self._redis.incr(name)
        except ResponseError as error:
            ignored(name, error)
            unanswered = 0
        if unanswered < 1:
            self._redis.delete(name)
            return 1
        return unanswered

    def clear(self, lane: str) -> None:
        """The wake-up has arrived (or failed): the next one may go out."""
        watched = keys.watched(lane)
        for name in (lane, watched):
            self._without_redis.pop(name, None)
        try:
            self._redis.delete(
                *(keys.wake(name) for name in (lane, watched)),
                *(keys.unanswered_wakes(name) for name in (lane, watched)),
            )
        except RedisError as error:
            log.warning("wake-up mark of lane %s not cleared, it expires by itself: %r", lane, error)

    def _begin_without_redis(self, lane: str) -> bool:
        now = time.monotonic()
        if now - self._without_redis.get(lane, -keys.WAKE_LIFETIME_S) < keys.WAKE_LIFETIME_S:
            return False
        self._without_redis[lane] = now
        return True
