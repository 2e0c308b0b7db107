"""What the broker has confirmed is recorded: never too much, never lowered, whatever the order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collect_ops.broker.consumer import Consumer
from collect_ops.broker.message import TaskMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.delivery import outbox
from collect_ops.lanes.publication import Publication, publish
from collect_ops.storage import Connection, query
from tests.examples import examples
from tests.plugins.integration.world import World, source


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())


def publication(task_id: int, generation: int = 1, **fields: float) -> Publication:
    base = Publication(task_id=task_id, generation=generation, priority=5, lane="normal")
    return replace(base, **fields)  # type: ignore[arg-type]


def test_a_confirmed_generation_is_recorded(world: World, db: Connection) -> None:
    task_id = world.submit().task_id
    db.execute("UPDATE collect.task SET generation = 3, confirmed_generation = 1")
    with Publisher(world.backends.amqp_url) as publisher:
        (done,) = publish(db, publisher, world.rules, [publication(task_id, 2)])
        assert world.task(task_id)["confirmed_generation"] == 2
        assert publish(db, publisher, world.rules, [publication(task_id, 1)]), "late, and harmless"
    assert (done.task_id, done.generation) == (task_id, 2)
    assert world.task(task_id)["confirmed_generation"] == 2


def test_what_no_queue_takes_is_not_confirmed(world: World, db: Connection) -> None:
    known = world.submit(params={"day": "a"}).task_id
    lost = world.submit(params={"day": "b"}).task_id
    db.execute("UPDATE collect.task SET confirmed_generation = 0")
    nowhere = replace(publication(lost), lane="nowhere")
    with Publisher(world.backends.amqp_url) as publisher:
        done = publish(db, publisher, world.rules, [publication(known), nowhere])
    assert [each.task_id for each in done] == [known]
    assert [world.task(task_id)["confirmed_generation"] for task_id in (known, lost)] == [1, 0]


def test_without_a_broker_nothing_is_confirmed(world: World, db: Connection) -> None:
    task_id = world.submit().task_id
    db.execute("UPDATE collect.task SET confirmed_generation = 0")
    with Publisher("amqp://guest:guest@127.0.0.1:1/none") as publisher:
        assert publish(db, publisher, world.rules, [publication(task_id)]) == []
        passed = outbox.run_once(db, publisher, world.rules, older_than_s=0)
    assert (passed.found, passed.confirmed, passed.lanes) == (1, 0, frozenset())
    assert world.task(task_id)["confirmed_generation"] == 0


def test_the_outbox_leaves_young_and_ended_ones(world: World, db: Connection) -> None:
    ids = [world.submit(params={"day": str(number)}).task_id for number in range(3)]
    db.execute("UPDATE collect.task SET confirmed_generation = 0")
    db.execute(
        "UPDATE collect.task SET queued_at = now() - interval '1 minute' WHERE id = ANY(%s)", (ids[:2],)
    )
    db.execute("UPDATE collect.task SET status = 'CANCELLED' WHERE id = %s", (ids[0],))
    with Publisher(world.backends.amqp_url) as publisher:
        passed = outbox.run_once(db, publisher, world.rules)
    assert (passed.found, passed.confirmed) == (1, 1)
    assert [world.task(task_id)["confirmed_generation"] for task_id in ids] == [0, 1, 0]


def test_a_publication_that_waits_takes_its_rung(world: World, db: Connection) -> None:
    task_id = world.submit().task_id
    with Publisher(world.backends.amqp_url) as publisher:
        assert publish(db, publisher, world.rules, [publication(task_id, delay_s=4000, retry_count=2)])
    with Consumer(world.backends.amqp_url) as consumer:
        (waiting,) = consumer.take("collect.retry.3600s", 10)
    assert TaskMessage.decode(waiting.body) == TaskMessage(task_id=task_id, generation=1)
    assert (waiting.headers["retry-count"], waiting.headers["retry-delay-s"]) == (2, 3600)
    assert waiting.routing_key == "lane.normal"


@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(confirms=st.lists(st.integers(1, 6), max_size=8), generation=st.integers(1, 5))
def test_confirms_in_any_order_record_the_highest(
    world: World, db: Connection, confirms: list[int], generation: int
) -> None:
    rows = db.execute("SELECT id FROM collect.task").fetchall()
    task_id = rows[0]["id"] if rows else world.submit().task_id
    db.execute("UPDATE collect.task SET generation = %s, confirmed_generation = 0", (generation,))
    for confirmed in confirms:
        values = {"task_ids": [task_id], "generations": [confirmed]}
        db.execute(query("lanes/confirm_publication"), values)
    possible = [confirmed for confirmed in confirms if confirmed <= generation]
    assert world.task(task_id)["confirmed_generation"] == max(possible, default=0)
