"""Hints which task holds a dedup key: one round trip a batch. PostgreSQL has the last word on every hit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from redis.exceptions import RedisError

from collect_ops.coordination import keys
from collect_ops.coordination.client import connect
from collect_ops.coordination.priorities import commands

log = logging.getLogger(__name__)


class DedupHints:
    """Dedup keys in Redis.

    Args:
        redis_url: Where Redis is.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis = connect(redis_url)

    def read(self, dedup_keys: Sequence[bytes]) -> dict[bytes, int]:
        """The holders that Redis knows of; empty when Redis is away."""
        if not dedup_keys:
            return {}
        try:
            found = self._redis.mget([keys.dedup(key) for key in dedup_keys])
        except RedisError as error:
            log.warning("Redis is away, deduplicating from PostgreSQL alone: %r", error)
            return {}
        return {key: int(value) for key, value in zip(dedup_keys, found, strict=True) if value is not None}

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
