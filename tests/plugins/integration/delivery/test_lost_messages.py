"""Tasks whose messages are gone, in a lane whose queue is never empty: found by what is claimed past them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pika
import pytest

from collect_ops.broker.publisher import Publisher
from collect_ops.delivery import outbox, repair
from collect_ops.storage import Connection, query
from tests.plugins.integration.world import World, source

AWAY = "amqp://guest:guest@127.0.0.1:1/none"


@pytest.fixture(autouse=True)
def declared(world: World, db: Connection) -> None:
    """Every claim takes one task, so that it takes what its queue has first."""
    world.add(source())
    world.backends = replace(world.backends, rabbitmq_api_url=None)
    set_room(db, 1)


def set_room(db: Connection, slots: int) -> None:
    db.execute(
        "INSERT INTO collect.lane_setting (lane, slots) VALUES ('normal', %s) "
        "ON CONFLICT (lane) DO UPDATE SET slots = excluded.slots",
        (slots,),
    )


@pytest.fixture
def days() -> Iterator[str]:
    return iter(map(str, range(10_000)))


def submit(world: World, days: Iterator[str], *priorities: int, name: str = "things") -> list[int]:
    return [
        world.submit(name, params={"day": next(days)}, priority=priority).task_id for priority in priorities
    ]


def purge(world: World, lane: str = "normal") -> int:
    """As an operator does by mistake, or a broker that lost its disk."""
    with pika.BlockingConnection(pika.URLParameters(world.backends.amqp_url)) as connection:
        return int(connection.channel().queue_purge(world.rules.queue(lane)).method.message_count)


def wait(db: Connection, seconds: float) -> None:
    """Time passes: everything that is written down has happened so much earlier."""
    db.execute(
        "UPDATE collect.task SET queued_at = queued_at - make_interval(secs => %(s)s), "
        "in_queue_at = in_queue_at - make_interval(secs => %(s)s), due_at = due_at - make_interval(secs => %(s)s)",
        {"s": seconds},
    )
    db.execute(
        "UPDATE collect.lane_progress SET queued_at = queued_at - make_interval(secs => %s)", (seconds,)
    )


def claim_one(world: World, db: Connection) -> list[int]:
    """The tasks of the next claim; they end at once, and their slots are free again."""
    world.claim()
    rows = db.execute(
        "UPDATE collect.task SET status = 'DISPATCHED', groups_reserved = 0 WHERE status = 'CLAIMED' RETURNING id"
    ).fetchall()
    db.execute(
        "UPDATE collect.task SET status = 'COMPLETED', finished_at = now() WHERE status = 'DISPATCHED'"
    )
    return [row["id"] for row in rows]


def republished(world: World) -> int:
    return repair.run_once(world.backends, world.rules, world.runs, actor="repair").republished


def test_what_was_purged_is_claimed_in_its_order_though_the_queue_is_never_empty(
    world: World, db: Connection, days: Iterator[str]
) -> None:
    low, high, middle, second_high = submit(world, days, 5, 7, 6, 7)
    assert purge(world) == 4
    others: list[int] = []
    for _ in range(3):  # traffic: more comes than is claimed
        wait(db, 15)
        others += submit(world, days, 4, 4)
        others.remove(*claim_one(world, db))
        assert republished(world) == 0, "it is not a minute yet"
    wait(db, 16)
    assert republished(world) == 4, "those that are gone, none of those that wait in the queue"
    assert republished(world) == 0
    others += submit(world, days, 4, 4)
    assert [claim_one(world, db) for _ in range(4)] == [[high], [second_high], [middle], [low]]
    assert claim_one(world, db) == [others[0]]


def test_a_task_that_is_lost_again_is_published_again_once_a_minute(
    world: World, db: Connection, days: Iterator[str]
) -> None:
    (task_id,) = submit(world, days, 6)
    for generation in (2, 3):
        purge(world)
        submit(world, days, 5)
        assert len(claim_one(world, db)) == 1
        wait(db, 45)
        assert republished(world) == 0
        wait(db, 20)
        assert republished(world) == 1
        assert world.task(task_id)["generation"] == generation
        assert republished(world) == 0


def test_what_waits_its_turn_is_left_alone(world: World, db: Connection, days: Iterator[str]) -> None:
    """A backlog, and more urgent tasks that come later: nothing is lost, however long it lasts."""
    submit(world, days, 4, 5, 5, 5, 5)
    for _ in range(3):
        wait(db, 300)
        submit(world, days, 7)
        assert len(claim_one(world, db)) == 1
        assert len(claim_one(world, db)) == 1
        assert republished(world) == 0
    assert {row["generation"] for row in world.rows("SELECT generation FROM collect.task")} == {1}


def test_what_a_claim_passes_over_on_purpose_is_not_lost(
    world: World, db: Connection, days: Iterator[str]
) -> None:
    """Small tasks share the last run of a claim, one that is not small stays behind: it was seen."""
    world.add(source("small"))
    (model,) = submit(world, days, 5, name="small")
    claim_one(world, db)
    db.execute(
        "UPDATE collect.task SET shards_total = 1, result = %s WHERE id = %s",
        ('{"seconds": {"fetch": 0.1, "land": 0.1}}', model),
    )
    submit(world, days, 5, name="small")
    (large,) = submit(world, days, 5)
    submit(world, days, 5, name="small")
    assert len(claim_one(world, db)) == 2, "the small ones, in one run"
    assert world.task(large)["status"] == "QUEUED"
    wait(db, 300)
    assert republished(world) == 0
    assert claim_one(world, db) == [large]


def test_what_an_outage_of_the_broker_kept_back_is_published_once(
    world: World, db: Connection, days: Iterator[str]
) -> None:
    away = world.service(replace(world.backends, amqp_url=AWAY))
    old = away.admit(world.submission(params={"day": "old"}, priority=6)).task_id
    wait(db, 600)
    submit(world, days, 5, 5)
    claim_one(world, db)
    assert republished(world) == 0, "it is the outbox's"
    with Publisher(world.backends.amqp_url) as publisher:
        assert outbox.run_once(db, publisher, world.rules).confirmed == 1
    assert republished(world) == 0, "its message is as young as its confirm"
    assert claim_one(world, db) == [old]


def test_a_retry_whose_message_is_lost_behind_others(
    world: World, db: Connection, days: Iterator[str]
) -> None:
    (task_id,) = submit(world, days, 6)
    purge(world)
    db.execute(
        "UPDATE collect.task SET status = 'CLAIMED', attempt = 1 WHERE id = %s",
        (task_id,),
    )
    db.execute(
        "UPDATE collect.task SET status = 'RETRYING', generation = 2, confirmed_generation = 2, reason = 'it failed', "
        "due_at = now(), queued_at = now() WHERE id = %s",
        (task_id,),
    )
    submit(world, days, 5, 5)
    claim_one(world, db)
    wait(db, 61)
    assert republished(world) == 1
    assert world.task(task_id)["reason"] == "it failed"
    assert claim_one(world, db) == [task_id]


@pytest.mark.parametrize(("strict", "lost"), [(True, 2), (False, 1)])
def test_a_queue_that_mixes_priorities_tells_nothing_of_higher_ones(
    world: World, db: Connection, days: Iterator[str], strict: bool, lost: int
) -> None:
    submit(world, days, 7, 5)
    purge(world)
    submit(world, days, 5)
    claim_one(world, db)
    wait(db, 61)
    values = {"lane": "normal", "ttl_s": 7200, "grace_s": 60, "queue_empty": False, "actor": "test"}
    rows = db.execute(query("delivery/republish_overdue"), {**values, "strict": strict}).fetchall()
    assert len(rows) == lost
