"""All that the services hold: every row of every table, every key of Redis, every message of every queue."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psycopg
import redis
from psycopg import sql

_TABLES = """
SELECT table_schema, table_name FROM information_schema.tables
WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')
ORDER BY 1, 2
"""


def in_postgres(dsn: str, *, without: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """Every row of every table as text, by where it is. Binary columns are read as text, too.

    Args:
        dsn: The database.
        without: Columns (`table.column`) that are left out.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        for schema, table in connection.execute(_TABLES).fetchall():
            statement = sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table))
            rows = connection.execute(statement)
            names = [column.name for column in rows.description or ()]
            for number, row in enumerate(rows):
                for name, value in zip(names, row, strict=True):
                    if value is not None and f"{table}.{name}" not in without:
                        yield f"{schema}.{table}.{name} {number}", _text(value)


def in_redis(url: str) -> Iterator[tuple[str, str]]:
    """Every key and its value."""
    client = redis.Redis.from_url(url)
    readers: dict[bytes, Any] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
    }
    try:
        for key in client.scan_iter("*"):
            value = readers[client.type(key)](key)
            yield f"redis {key.decode(errors='replace')}", f"{key!r} {value!r}"
    finally:
        client.close()


def in_rabbitmq(amqp_url: str) -> Iterator[tuple[str, str]]:
    """Every message of every queue, with its headers; it stays there."""
    vhost = quote(urlsplit(amqp_url).path.removeprefix("/") or "/", safe="")
    for queue in _broker("GET", f"queues/{vhost}"):
        body = {"count": 10_000, "ackmode": "ack_requeue_true", "encoding": "auto"}
        name = quote(queue["name"], safe="")
        for number, message in enumerate(_broker("POST", f"queues/{vhost}/{name}/get", **body)):
            yield f"queue {queue['name']} {number}", json.dumps(message, ensure_ascii=False)


def _broker(method: str, path: str, **body: object) -> Any:
    parts = urlsplit(os.environ["COLLECT_RABBITMQ_API_URL"])
    found = httpx.request(
        method,
        f"{parts.scheme}://{parts.hostname}:{parts.port}/api/{path}",
        auth=(parts.username or "", parts.password or ""),
        json=body or None,
        timeout=30,
        trust_env=False,
    )
    found.raise_for_status()
    return found.json()


def _text(value: object) -> str:
    match value:
        case bytes() | memoryview():
            return bytes(value).decode("utf-8", errors="backslashreplace")
        case dict() | list():
            return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
