"""Dead letters: a row with the move to DEAD, a message once the broker has confirmed it (DESIGN guarantee 7)."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from collect_ops.broker.consumer import Consumer, Delivery
from collect_ops.broker.publisher import Publisher
from collect_ops.delivery import outbox
from collect_ops.execution.settle import settle
from collect_ops.storage import Connection, connect
from tests.plugins.integration.world import World, source

UNCONFIRMED = "SELECT count(*) AS n FROM collect.dead_letter WHERE confirmed_at IS NULL"


def die(world: World, *, max_retries: int = 0, **fields: Any) -> int:
    """A task that fails until its retries are used up: nobody serves it."""
    retries = {"http_attempts": 1, "http_backoff_s": 0.01, "max_retries": max_retries, "base_s": 0.2}
    world.add(source(retries=retries))
    task_id = world.submit(**fields).task_id
    deadline = time.monotonic() + 60
    while world.task(task_id)["status"] != "DEAD":
        assert time.monotonic() < deadline, world.task(task_id)["status"]
        world.claim_and_run()
    return task_id


def drain(world: World) -> list[Delivery]:
    with Consumer(world.backends.amqp_url) as consumer:
        return consumer.take("collect.dead", 100)


def publish(world: World, amqp_url: str | None = None) -> int:
    with (
        connect(world.backends.postgres_dsn) as connection,
        Publisher(amqp_url or world.backends.amqp_url) as publisher,
    ):
        return outbox.run_once(connection, publisher, world.rules).dead_letters


def test_retries_used_up_end_in_one_message_that_says_why(world: World) -> None:
    task_id = die(world, max_retries=2, params={"day": "monday"})
    task = world.task(task_id)
    assert (task["retry_count"], task["attempt"]) == (2, 3)
    assert publish(world) == 1
    (dead,) = drain(world)
    body = json.loads(dead.body)
    assert {name: body[name] for name in ("task_id", "attempt", "source", "params")} == {
        "task_id": task_id, "attempt": 3, "source": "things", "params": {"day": "monday"},
    }  # fmt: skip
    assert dead.headers["retry-count"] == 2
    assert dead.headers["error-message"] == task["reason"]
    assert abs(dead.headers["failed-time"] - time.time()) < 300


def test_without_a_broker_the_row_waits(world: World) -> None:
    die(world)
    assert publish(world, "amqp://guest:guest@127.0.0.1:1/none") == 0
    assert world.rows(UNCONFIRMED) == [{"n": 1}]
    assert publish(world) == 1
    assert world.rows(UNCONFIRMED) == [{"n": 0}]
    assert publish(world) == 0


def test_settling_twice_writes_one(world: World) -> None:
    task_id = die(world)
    for attempt in (0, 1, 2):
        assert settle(task_id, attempt, world.backends, world.rules, actor="late", run_over=True) is None
    assert world.rows("SELECT task_id FROM collect.dead_letter") == [{"task_id": task_id}]


def test_passes_at_once_lose_none(world: World, db: Connection) -> None:
    """Two passes may both send one: whoever drains the queue finds its id, and nothing is missing."""
    task_id = die(world)
    db.execute(
        "INSERT INTO collect.dead_letter (task_id, generation, error_message, retry_count) "
        "SELECT %s, n, repeat('x', 20000), 0 FROM generate_series(100, 149) AS n",
        (task_id,),
    )
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: publish(world), range(3)))
    assert world.rows(UNCONFIRMED) == [{"n": 0}]
    with Consumer(world.backends.amqp_url) as consumer:
        messages = consumer.take("collect.dead", 1000)
    ids = {json.loads(message.body)["dead_letter_id"] for message in messages}
    assert ids == {row["id"] for row in world.rows("SELECT id FROM collect.dead_letter")}
    assert max(len(message.headers["error-message"]) for message in messages) == 16_000
