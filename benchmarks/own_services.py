"""A database, virtual hosts and a Redis database of the benchmarks' own, on the stack's servers.

What the stack is doing is neither seen nor touched, and every measurement begins with nothing in the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx
import psycopg
import redis
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmarks.settings import BenchSettings
from collect_ops.broker.topology import declare
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import LaneRules, lane_rules
from collect_ops.storage import connect
from collect_ops.storage.migrate import migrate

DATABASE: Final = "collect_bench"
#: A Redis database of its own: leases are named by task id, and ids of two PostgreSQL databases are equal.
REDIS_DATABASE: Final = 9
VHOST: Final = "collect-bench"
PEERS_VHOST: Final = "collect-bench-peers"
API_TIMEOUT_S: Final = 30


@contextmanager
def own_database(settings: BenchSettings, name: str = DATABASE) -> Iterator[str]:
    """An empty database for the length of the block; gives its address."""
    owner = conninfo_to_dict(settings.dsn)["user"]
    with psycopg.connect(settings.stack.postgres_admin_dsn, autocommit=True) as admin:
        drop = f"drop database if exists {name} with (force)".encode()
        admin.execute(drop)
        admin.execute(f'create database {name} owner "{owner}"'.encode())
        try:
            yield make_conninfo(settings.dsn, dbname=name)
        finally:
            admin.execute(drop)


def own_redis(settings: BenchSettings) -> str:
    """The address of the benchmarks' Redis database."""
    return f"{settings.stack.redis_url.rsplit('/', 1)[0]}/{REDIS_DATABASE}"


@contextmanager
def own_vhost(settings: BenchSettings, name: str) -> Iterator[str]:
    """An empty virtual host for the length of the block; gives its address."""
    user = urlsplit(settings.stack.amqp_url).username or ""
    call_broker(settings, "DELETE", f"vhosts/{name}", missing_is_fine=True)
    call_broker(settings, "PUT", f"vhosts/{name}")
    try:
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        call_broker(settings, "PUT", f"permissions/{name}/{quote(user)}", everything)
        yield urlsplit(settings.stack.amqp_url)._replace(path=f"/{name}").geturl()
    finally:
        call_broker(settings, "DELETE", f"vhosts/{name}", missing_is_fine=True)


def call_broker(
    settings: BenchSettings,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    missing_is_fine: bool = False,
) -> None:
    """Call RabbitMQ's management API."""
    url = urlsplit(settings.stack.rabbitmq_api_url)
    answer = httpx.request(
        method,
        f"{url.scheme}://{url.hostname}:{url.port}/api/{path}",
        auth=(url.username or "", url.password or ""),
        json=dict(body) if body else None,
        timeout=API_TIMEOUT_S,
        trust_env=False,
    )
    if not (missing_is_fine and answer.status_code == httpx.codes.NOT_FOUND):
        answer.raise_for_status()


@contextmanager
def own_backends(settings: BenchSettings, rules: LaneRules | None = None) -> Iterator[Backends]:
    """All three services, migrated and declared; empty them with `empty` before each measurement.

    Args:
        settings: the running stack.
        rules: whose topology is declared; the installation's when None.
    """
    with own_database(settings) as dsn, own_vhost(settings, VHOST) as amqp_url:
        with connect(dsn) as connection:
            migrate(connection)
        declare(amqp_url, (rules or lane_rules()).topology())
        yield Backends(postgres_dsn=dsn, redis_url=own_redis(settings), amqp_url=amqp_url)


def empty(backends: Backends, rules: LaneRules) -> None:
    """No task, no message, no key; statistics are fresh and dirty pages written, so that no round pays for another."""
    with psycopg.connect(backends.postgres_dsn, autocommit=True) as connection:
        connection.execute("truncate collect.task, collect.source_version, collect.shard_group cascade")
        connection.execute("vacuum analyze collect.task, collect.submission, collect.dedup")
    with redis.Redis.from_url(backends.redis_url) as client:
        client.flushdb()
    purge(backends.amqp_url, rules)


def purge(amqp_url: str, rules: LaneRules) -> None:
    """Empty the lanes' queues."""
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(amqp_url))
    channel = connection.channel()
    for lane in rules.lanes:
        channel.queue_purge(rules.queue(lane))
    connection.close()
