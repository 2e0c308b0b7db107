"""One pending wake-up a lane."""

from __future__ import annotations

import logging
import time

from redis.exceptions import RedisError

from collect_ops.coordination import keys
from collect_ops.coordination.client import connect

log = logging.getLogger(__name__)


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
        try:
            if not self._redis.set(keys.wake(lane), "1", nx=True, ex=keys.WAKE_LIFETIME_S):
                return False
            unanswered = int(self._redis.incr(keys.unanswered_wakes(lane)))
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
            return bool(self._redis.exists(keys.wake(lane)))
        except RedisError:
            return False  # `begin` says that Redis is away

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
