"""Draining collect.dead: every message is kept once, whatever it holds, and none holds up the others."""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import replace
from typing import Any

import pika
import pytest

from collect_ops.broker.consumer import Consumer
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.delivery import dead_drain
from collect_ops.delivery.dead_message import MAX_BODY_BYTES, dead_message
from collect_ops.delivery.dead_model import Selection
from collect_ops.storage import connect
from tests.plugins.integration.delivery.letters import dead_tasks, drained, published, service
from tests.plugins.integration.world import World, source

ROWS = "SELECT * FROM collect.dead_letter ORDER BY id"


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())


def send(world: World, body: bytes, key: str = "somewhere", **properties: Any) -> None:
    """A message to collect.dead, as anybody may publish one."""
    connection = pika.BlockingConnection(pika.URLParameters(world.backends.amqp_url))
    connection.channel().basic_publish("collect.dead", key, body, pika.BasicProperties(**properties))
    connection.close()


def malformed(world: World, *bodies: bytes) -> None:
    """Messages to a lane that no claim can read."""
    with Publisher(world.backends.amqp_url) as publisher:
        publisher.publish(
            [
                OutgoingMessage(exchange="collect.tasks", routing_key="lane.normal", body=body)
                for body in bodies
            ]
        )
    world.claim()


def test_a_tasks_letter_gets_its_message(world: World) -> None:
    (task_id,) = dead_tasks(world, 1)
    assert published(world) == 1
    done = drained(world)
    assert (done.messages, done.letters, done.others) == (1, 1, 0)
    (row,) = world.rows(ROWS)
    assert (row["task_id"], row["message_id"], row["source"]) == (task_id, f"dead-{row['id']}", "things")
    assert row["headers"]["retry-count"] == 3
    assert row["headers"]["error-message"] == row["error_message"]
    assert row["body_bytes"] == len(row["body"]) > 0
    assert row["drained_at"] is not None
    with Consumer(world.backends.amqp_url) as consumer:
        assert consumer.depth("collect.dead") == 0


def test_a_crash_between_commit_and_ack_stores_nothing_twice(world: World) -> None:
    dead_tasks(world, 2)
    published(world)
    send(world, b"who knows", headers={"error-message": "strange", "failed-time": 1_700_000_000})
    send(world, b"with an id", message_id="m1")
    with Consumer(world.backends.amqp_url) as consumer, connect(world.backends.postgres_dsn) as db:
        block = consumer.take("collect.dead", 10)
        assert dead_drain.store(db, [(each, dead_message(each, world.rules)) for each in block]) == (2, 2)
        # Here it dies: the connection closes, and the broker delivers all of them again.
    before = world.rows(ROWS)
    done = drained(world)
    assert (done.messages, done.letters, done.others) == (4, 0, 0)
    kept = ("id", "message_key", "drained_at", "body")
    assert [[row[name] for name in kept] for row in world.rows(ROWS)] == [
        [row[name] for name in kept] for row in before
    ]


def test_drains_at_once_store_each_message_once(world: World) -> None:
    ids = dead_tasks(world, 120)
    published(world)
    published(world)
    for number in range(80):
        send(world, b"raw %d" % number)
    threads = [threading.Thread(target=drained, args=(world,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drained(world)
    rows = world.rows(ROWS)
    assert len(rows) == len(ids) + 80
    assert all(row["drained_at"] for row in rows)


def test_two_equal_malformed_messages_count_as_two(world: World) -> None:
    malformed(world, b"{nonsense", b"{nonsense")
    assert drained(world).others == 2
    rows = world.rows(ROWS)
    assert len({row["message_id"] for row in rows}) == 2
    assert all(row["task_id"] is None and row["body"] == b"{nonsense" for row in rows)
    assert all(
        (row["send_exchange"], row["send_routing_key"]) == ("collect.tasks", "lane.normal") for row in rows
    )
    (group,) = service(world).groups(Selection())
    assert (group.letters, group.example_task_id) == (2, None)


WEIRD: list[dict[str, Any]] = [
    {"body": b""},
    {"body": b"\xff\xfe\x00\x01"},
    {"body": b"\x00" * 100, "headers": {"error-message": "nul \x00 here", "nul\x00name": "x\x00y"}},
    {"body": b"x", "headers": {"failed-time": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "retry-count": -5}},
    {
        "body": b"x",
        "headers": {
            "failed-time": 10**18,
            "retry-count": 2**40,
            "deep": {"a": [{"b": [{"c": dt.datetime(2026, 1, 1)}]}]},
        },
    },
    {"body": b"x", "headers": {"error-message": {"not": "a text"}, "bytes": b"\xff\xfe"}},
    {"body": b"x", "headers": {"x-death": ["odd", 3]}, "priority": 200},
    {"body": b"x", "headers": {"x-death": [{"exchange": 5, "routing-keys": "no list"}]}},
    {"body": b'{"dead_letter_id": 99999}', "message_id": "dead-99999"},
    {"body": b"x", "message_id": "dead-1"},
    {"body": b"x", "message_id": "m" * 255, "correlation_id": "c", "reply_to": "r", "key": "k" * 255},
    {"body": b"y" * (MAX_BODY_BYTES + 10)},
]


def test_no_message_makes_it_fail_or_holds_up_another(world: World) -> None:
    dead_tasks(world, 1)
    for weird in WEIRD:
        send(world, **weird)
    published(world)
    done = drained(world)
    assert (done.messages, done.letters, done.others) == (len(WEIRD) + 1, 1, len(WEIRD))
    rows = world.rows(ROWS)
    assert all(row["error_message"] and row["fingerprint"] for row in rows)
    assert max(row["body_bytes"] for row in rows) == MAX_BODY_BYTES + 10
    assert max(len(row["body"]) for row in rows) == MAX_BODY_BYTES
    for row in rows:
        assert service(world).show(row["id"])["message"]["body"] is not None


def test_what_the_database_refuses_is_kept_without_its_headers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should ever something get through that PostgreSQL does not take: the others must not wait for it."""

    def careless(delivery: Any, rules: Any) -> Any:
        message = dead_message(delivery, rules)
        return replace(message, routing_key="\x00") if delivery.body == b"bad" else message

    monkeypatch.setattr(dead_drain, "dead_message", careless)
    for body in (b"good", b"bad", b"fine"):
        send(world, body)
    assert drained(world).others == 3
    kept = {bytes(row["body"]): row for row in world.rows(ROWS)}
    assert set(kept) == {b"good", b"bad", b"fine"}
    assert "could not be kept" in kept[b"bad"]["error_message"]


def test_a_thousand_equal_faults_are_one_group(world: World) -> None:
    ids = dead_tasks(world, 1000)
    other = dead_tasks(world, 1, message="{url}?day={n}: answered 500", days=["another"])
    groups = service(world).groups(Selection())
    assert [group.letters for group in groups] == [1000, 1]
    group = groups[0]
    assert (group.error_class, group.sources, group.example_task_id) == (
        "ServerFailed",
        ("things",),
        max(ids),
    )
    assert group.pattern == "https://api.example.org/v1/things: answered 503"
    assert group.first_at <= group.last_at
    assert groups[1].example_task_id == other[0]
