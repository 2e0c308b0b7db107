"""Connecting to Redis: time-outs of a second or two, since nothing here is worth waiting longer for."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from collect_ops.kernel.errors import OwnOutage

__all__ = ["RedisError", "connect", "connect_async"]

OwnOutage.register(RedisConnectionError)
OwnOutage.register(RedisTimeoutError)

_OPTIONS: dict[str, Any] = {"socket_timeout": 2.0, "socket_connect_timeout": 2.0, "health_check_interval": 15}


def connect(redis_url: str) -> redis.Redis:
    """A client; it connects at its first command."""
    return redis.Redis.from_url(redis_url, **_OPTIONS)


def connect_async(redis_url: str, **options: Any) -> redis.asyncio.Redis:
    """The same for asyncio.

    Args:
        redis_url: Where Redis is.
        options: Of redis-py's client, instead of the usual ones.
    """
    return redis.asyncio.Redis.from_url(redis_url, **{**_OPTIONS, **options})
