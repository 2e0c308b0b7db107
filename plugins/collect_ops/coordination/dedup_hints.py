"""Hints which task holds a dedup key: one round trip a batch. PostgreSQL has the last word on every hit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from redis.exceptions import RedisError

from collect_ops.coordination import keys
from collect_ops.coordination.client import connect
from collect_ops.coordination.priorities import commands
from collect_ops.coordination.reading import whole_number

log = logging.getLogger(__name__)


class DedupHints:
    """Dedup keys in Redis.

    Args:
        redis_url: Where Redis is.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis = connect(redis_url)

    def read(self, dedup_keys: Sequence[bytes]) -> dict[bytes, int]:
        """The holders that Redis knows of; empty when Redis is away. A hint that is none is left out."""
        if not dedup_keys:
            return {}
        names = [keys.dedup(key) for key in dedup_keys]
        try:
            found = self._redis.mget(names)
        except RedisError as error:
            log.warning("Redis is away, deduplicating from PostgreSQL alone: %r", error)
            return {}
        return {
            key: task_id
            for key, name, value in zip(dedup_keys, names, found, strict=True)
            if value is not None
            and (task_id := whole_number(name, value, least=1, most=keys.MAX_TASK_ID)) is not None
        }

    def write(
        self, holders: Mapping[bytes, tuple[int, float]], priorities: Mapping[int, int] | None = None
    ) -> None:
        """Remember holders, and the priorities of new tasks in the same round trip.

        Args:
            holders: Dedup key to (task id, lifetime in seconds).
            priorities: By task.
        """
        if not holders:
            return
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for key, (task_id, lifetime_s) in holders.items():
                    pipeline.execute_command(  # type: ignore[no-untyped-call]
                        "SET", keys.dedup(key), task_id, "PX", max(1, int(lifetime_s * 1000))
                    )
                for command in commands((priorities or {}).items()):
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                pipeline.execute()
        except RedisError as error:
            log.warning("dedup hints not written, PostgreSQL has them: %r", error)
