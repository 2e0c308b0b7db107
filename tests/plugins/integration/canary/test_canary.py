"""No secret of a connection is written anywhere, whatever a server does with what it was sent.

Without Airflow: everything that collecting writes into PostgreSQL, Redis, RabbitMQ and logs. `make test` takes every
way to repeat a secret with one kind of authentication, and every kind with some ways; `make test-long` takes them all,
and once more on a whole stack (`tests/e2e/test_canary.py`).
"""

from __future__ import annotations

import json
import logging
from typing import Any

import pika
import psycopg
import pytest
import redis

from collect_ops.collectors import token_keeper
from collect_ops.sources.file_defaults import with_file_defaults
from tests.canaries import Canary, escaped
from tests.plugins.integration.canary.written import in_postgres, in_rabbitmq, in_redis
from tests.plugins.integration.execution.checks import publish_overdue
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source
from tests.servers.echo import GOOD, TOKEN_WAYS, WAYS, EchoServer

pytestmark = pytest.mark.timeout(600)

#: What the source of a way declares beside the usual.
DECLARED: dict[str, dict[str, Any]] = {
    "records_failing": {"records": "abs(rows)"},
    "records_failing_late": {"records": "abs(rows)"},
    "total_header": {"total": {"type": "header", "name": "X-Total"}},
    "next": {
        "paging": {"type": "next_url", "next_url": "next"},
        "page_size": None,
        "total": {"type": "unknown"},
    },
    "cursor": {
        "paging": {"type": "cursor", "cursor": "next_cursor", "cursor_param": "cursor"},
        "page_size": None,
        "total": {"type": "unknown"},
    },
}
PASSWORD, LOGIN, HEADER, TENANT = map(Canary.new, ("password", "login", "header", "tenant"))
# RFC 6750 allows no others in a token.
TOKEN = Canary.new("token", special='/+=&"\\')
AUTHS: dict[str, tuple[dict[str, Any], list[Canary]]] = {
    "basic": ({"type": "basic"}, [PASSWORD, LOGIN]),
    "bearer": ({"type": "bearer"}, [PASSWORD]),
    "key_in_header": ({"type": "api_key", "location": "header", "name": "X-Api-Key"}, [PASSWORD]),
    "key_in_query": ({"type": "api_key", "location": "query", "name": "api_key"}, [PASSWORD]),
    "oauth2": ({"type": "oauth2"}, [TOKEN]),
    "oauth2_body": ({"type": "oauth2", "client_auth": "body"}, [TOKEN]),
    "none": ({"type": "none"}, []),
}
ALL = [PASSWORD, LOGIN, HEADER, TENANT, TOKEN]
RETRIES = {"http_attempts": 2, "http_backoff_s": 0.01, "max_retries": 1, "base_s": 0.2}


ENDS = [way for way in WAYS if way != "final"]  # where a redirect leads
#: Every way with one kind of authentication, every kind with every seventh way and with those that end well.
SOME = sorted(
    {(way, list(AUTHS)[number % len(AUTHS)]) for number, way in enumerate(ENDS)}
    | {(way, auth) for way in GOOD for auth in AUTHS}
)


def declare(world: World, way: str, auth: dict[str, Any], *, name: str) -> str:
    fields: dict[str, Any] = {
        "connection": name,
        "auth": auth,
        "request": {"path": f"/{way}"},
        "batch_size": 100,
        "retries": RETRIES,
        **DECLARED.get(way, {}),
    }
    world.add(with_file_defaults(source(name, **fields)))
    return name


def collect_all(world: World, names: list[str]) -> dict[str, str]:
    """Run every source to its end; returns how each ended."""
    tasks = {name: world.submit(name).task_id for name in names}

    def ended() -> bool:
        for started in world.claim().runs:
            world.run(started.run_id)
        publish_overdue(world)
        return all(world.task(task_id)["finished_at"] is not None for task_id in tasks.values())

    until(ended, "every task has ended", deadline_s=400)
    return {name: world.task(task_id)["status"] for name, task_id in tasks.items()}


def written(world: World, caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """All that was written, by place."""
    formatter = logging.Formatter("%(name)s %(message)s")
    logs = {f"log {number}": formatter.format(record) for number, record in enumerate(caplog.records)}
    backends = world.backends
    return {
        **dict(in_postgres(backends.postgres_dsn)),
        **dict(in_redis(backends.redis_url)),
        **dict(in_rabbitmq(backends.amqp_url)),
        **logs,
    }


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param(SOME, id="some"),
        *(pytest.param([(way, auth) for way in ENDS], marks=pytest.mark.long, id=auth) for auth in AUTHS),
    ],
)
def test_nothing_that_is_written_holds_a_secret(
    world: World, caplog: pytest.LogCaptureFixture, pairs: list[tuple[str, str]]
) -> None:
    caplog.set_level(logging.DEBUG)
    token_keeper._tokens.clear()
    with EchoServer(TOKEN.text) as server:
        world.serve_from(
            server.base_url,
            login=LOGIN.text,
            password=PASSWORD.text,
            headers={"X-Tenant": TENANT.text, "X-Tenant-Key": HEADER.text},
            token_url=f"{server.base_url}/token",
        )
        names = {(way, auth): f"{way}_{auth}" for way, auth in pairs}
        ends = collect_all(
            world, [declare(world, way, AUTHS[auth][0], name=name) for (way, auth), name in names.items()]
        )
        for way, auth in pairs:
            for canary in [*AUTHS[auth][1], HEADER, TENANT]:
                assert any(canary.text in text for text in server.heard[way]), (way, auth, canary.name)
        assert any(HEADER.text in text for text in server.heard["final"])
    assert {ends[name] for (way, _), name in names.items() if way in GOOD} == {"COMPLETED"}
    assert "DEAD" in ends.values()
    places = written(world, caplog)
    assert escaped(ALL, places) == []
    assert {place.split(" ")[0].split(".")[1] for place in places if place.startswith("collect.")} >= {
        "task", "task_log", "shard", "trace", "dead_letter", "host", "bad_row",
    }  # fmt: skip
    assert any(place.startswith("queue collect.dead") for place in places)
    assert any("***" in text for place, text in places.items() if place.startswith("log"))


@pytest.mark.parametrize("way", TOKEN_WAYS)
def test_what_a_token_endpoint_repeats_is_written_nowhere(
    world: World, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    caplog.set_level(logging.DEBUG)
    token_keeper._tokens.clear()
    with EchoServer(TOKEN.text) as server:
        server.token_way = way
        world.serve_from(
            server.base_url,
            login=LOGIN.text,
            password=PASSWORD.text,
            token_url=f"{server.base_url}/token?tenant_key={HEADER.text.replace('&', '')[:17]}",
        )
        ends = collect_all(
            world,
            [
                declare(
                    world,
                    "ok",
                    {"type": "oauth2", "client_auth": place},
                    name=f"{way}_{place}",
                )
                for place in ("basic", "body")
            ],
        )
        assert any(PASSWORD.text in text for text in server.heard["token"])
    assert set(ends.values()) == {"DEAD"}
    assert escaped(ALL, written(world, caplog)) == []


def test_what_is_planted_is_found(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The search itself: a canary in each kind of place, each in another spelling."""
    caplog.set_level(logging.DEBUG)
    world.add(source())
    task_id = world.submit().task_id
    password = PASSWORD.text
    with psycopg.connect(world.backends.postgres_dsn, autocommit=True) as connection:
        connection.execute(
            "UPDATE collect.task SET error = %s WHERE id = %s", (json.dumps({"a": [password]}), task_id)
        )
    client = redis.Redis.from_url(world.backends.redis_url)
    client.hset("collect:planted", "field", password.encode().hex())
    client.close()
    connection = pika.BlockingConnection(pika.URLParameters(world.backends.amqp_url))
    connection.channel().basic_publish(
        "", "collect.dead", b"", pika.BasicProperties(headers={"error-message": password[:12]})
    )
    connection.close()
    logging.getLogger("planted").debug("it is %r", password.encode("utf-16"))
    found = {place.rsplit(" ", 1)[0] for _, place, _ in escaped(ALL, written(world, caplog))}
    assert found == {"collect.task.error", "redis", "queue collect.dead", "log"}
