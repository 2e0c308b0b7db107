"""The current priority of tasks, for cheap reads: a mirror for a day of what PostgreSQL says."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from redis.exceptions import RedisError

from collect_ops.coordination import keys
from collect_ops.coordination.client import connect
from collect_ops.coordination.reading import whole_number

log = logging.getLogger(__name__)


class Priorities:
    """Priorities in Redis, written after each commit that changes them.

    Args:
        redis_url: Where Redis is.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis = connect(redis_url)

    def read(self, task_ids: Sequence[int]) -> dict[int, int]:
        """The priorities that Redis knows of; empty when it is away. What is no priority is left out."""
        if not task_ids:
            return {}
        names = [keys.priority(task_id) for task_id in task_ids]
        try:
            found = self._redis.mget(names)
        except RedisError as error:
            log.warning("Redis is away, no priorities read: %r", error)
            return {}
        return {
            task: priority
            for task, name, value in zip(task_ids, names, found, strict=True)
            if value is not None and (priority := whole_number(name, value, least=0, most=10)) is not None
        }

    def write(self, priorities: Mapping[int, int]) -> None:
        """Remember priorities, by task, for a day. Redis away: readers ask PostgreSQL."""
        if not priorities:
            return
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for command in commands(priorities.items()):
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                pipeline.execute()
        except RedisError as error:
            log.warning("priorities not written, PostgreSQL has them: %r", error)


def commands(priorities: Iterable[tuple[int, int]]) -> Iterable[tuple[str, str, int, str, int]]:
    """The commands that write priorities: (task id, priority) pairs."""
    for task_id, priority in priorities:
        yield ("SET", keys.priority(task_id), priority, "EX", keys.PRIORITY_LIFETIME_S)
