"""Claiming from a real broker."""

from __future__ import annotations

import time

import pytest

from collect_ops.broker.consumer import Consumer
from collect_ops.broker.message import OutgoingMessage, TaskMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.delivery.intervene import cancel
from collect_ops.delivery.priorities import adjust
from collect_ops.lanes.why import why
from collect_ops.storage import Connection, connect, query
from tests.plugins.integration.world import World, source


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())


def submit(world: World, count: int, **fields: object) -> list[int]:
    batch = [
        world.submission(params={"day": f"{number} {time.monotonic_ns()}"}, **fields)
        for number in range(count)
    ]
    return [answer.task_id for answer in world.service().admit_batch(batch)]  # type: ignore[union-attr]


def depth(world: World, lane: str = "normal") -> int:
    with Consumer(world.backends.amqp_url) as consumer:
        return consumer.depth(world.rules.queue(lane))


def test_the_highest_priority_comes_first_and_no_more_than_fits(world: World) -> None:
    low, high = submit(world, 6, priority=4), submit(world, 2, priority=7)
    claimed = world.claim()
    assert claimed.claimed == world.rules.lanes["normal"].slots == 4
    ids = [task["task_id"] for run in claimed.runs for task in run.conf["tasks"]]
    assert set(ids[:2]) == set(high)
    assert set(ids[2:]) < set(low)
    assert depth(world) == 4
    assert world.claim().claimed == 0


def test_a_claim_names_run_and_attempt(world: World) -> None:
    (task_id,) = submit(world, 1)
    run = world.claim().runs[0]
    assert run.dag_id == "collect_normal"
    assert run.run_id == f"things-{task_id}-attempt-1"
    assert run.conf == {
        "tasks": [{"task_id": task_id, "attempt": 1}],
        "priority": 5,
        "lane": "normal",
        "sources": ["things"],
    }
    task = world.task(task_id)
    assert (task["status"], task["attempt"], task["run_id"]) == ("CLAIMED", 1, run.run_id)
    assert world.runs.started == {run.run_id: run.conf}


def test_a_message_that_comes_again_moves_nothing(world: World) -> None:
    """As after a claim that died between its commit and its acks."""
    (task_id,) = submit(world, 1)
    world.claim()
    body = TaskMessage(task_id=task_id, generation=1).encode()
    with Publisher(world.backends.amqp_url) as publisher:
        message = OutgoingMessage(exchange="collect.tasks", routing_key="lane.normal", body=body)
        assert publisher.publish([message, message]).confirmed == {0, 1}
    claimed = world.claim()
    assert (claimed.claimed, claimed.stale) == (0, 2)
    assert world.task(task_id)["attempt"] == 1
    assert depth(world) == 0


def test_two_claims_at_once_do_not_share_a_lane(world: World, db: Connection) -> None:
    submit(world, 1)
    with db.transaction():
        db.execute(query("lanes/lock_lane"), {"lane": "normal"})
        assert world.claim().busy
    assert world.claim().claimed == 1


def test_a_claim_that_dies_before_its_commit_leaves_everything(world: World) -> None:
    (task_id,) = submit(world, 1)
    with Consumer(world.backends.amqp_url) as dying:
        assert len(dying.take(world.rules.queue("normal"), 1)) == 1
        assert world.claim().claimed == 0
    assert world.claim().claimed == 1
    assert world.task(task_id)["attempt"] == 1


def test_a_broker_that_does_not_deliver_in_time_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task_id,) = submit(world, 1)
    world.runs.woken.clear()
    with monkeypatch.context() as slow:
        slow.setattr(Consumer, "take", lambda *_, **__: [])
        claimed = world.claim()
    assert (claimed.claimed, claimed.more, world.runs.woken) == (0, True, ["normal"])
    claimed = world.claim()
    assert (claimed.claimed, claimed.more) == (1, False)
    assert world.task(task_id)["status"] == "CLAIMED"


def test_a_thousand_stale_messages_do_not_hide_the_live_one(world: World) -> None:
    stale = submit(world, 1000, priority=7)
    cancel(stale, world.backends, world.rules, actor="test", reason="no more")
    (live,) = submit(world, 1, priority=4)
    claimed = world.claim()
    while not claimed.claimed and claimed.more:
        claimed = world.claim()
    assert claimed.claimed == 1
    assert world.task(live)["status"] == "CLAIMED"
    assert depth(world) == 0


def test_what_is_no_message_goes_raw_to_the_dead_letters(world: World) -> None:
    bodies = [b"not json", b'{"schema": 2}', b'{"schema": 1, "task_id": "7", "generation": 1}']
    with Publisher(world.backends.amqp_url) as publisher:
        publisher.publish(
            [
                OutgoingMessage(exchange="collect.tasks", routing_key="lane.normal", body=body)
                for body in bodies
            ]
        )
    (live,) = submit(world, 1)
    claimed = world.claim()
    assert (claimed.malformed, claimed.claimed) == (3, 1)
    assert world.task(live)["status"] == "CLAIMED"
    with Consumer(world.backends.amqp_url) as consumer:
        dead = consumer.take("collect.dead", 10)
    assert sorted(delivery.body for delivery in dead) == sorted(bodies)
    assert all("error-message" in delivery.headers for delivery in dead)


def test_a_source_over_its_limit_is_held_and_let_go_again(world: World, db: Connection) -> None:
    world.add(source("few", max_active_tasks=1))
    batch = [world.submission("few", params={"day": str(number)}) for number in range(3)]
    ids = [answer.task_id for answer in world.service().admit_batch(batch)]  # type: ignore[union-attr]
    (other,) = submit(world, 1, priority=4)
    claimed = world.claim()
    assert (claimed.claimed, claimed.held) == (2, 2)
    held = [task_id for task_id in ids if world.task(task_id)["status"] == "HELD"]
    assert "max_active_tasks is 1" in world.task(held[0])["reason"]
    assert world.task(other)["status"] == "CLAIMED"
    running = next(task_id for task_id in ids if world.task(task_id)["status"] == "CLAIMED")
    cancel([running], world.backends, world.rules, actor="test", reason="done with it")
    assert sorted(world.task(task_id)["status"] for task_id in held) == ["HELD", "QUEUED"]
    assert world.claim().claimed == 1


def test_another_priority_is_another_generation(world: World) -> None:
    first, second = submit(world, 2, priority=1)
    done = adjust([first], 9, world.backends, world.rules, actor="test", reason="urgent now")
    assert (done.moved, done.lanes) == ((first,), {"urgent"})
    task = world.task(first)
    assert (task["lane"], task["generation"], task["confirmed_generation"]) == ("urgent", 2, 2)
    assert world.claim("urgent").claimed == 1
    bulk = world.claim("bulk")
    assert (bulk.claimed, bulk.stale) == (1, 1)
    assert world.task(second)["status"] == "CLAIMED"


def test_a_retry_that_is_not_due_goes_up_the_ladder_again(world: World, db: Connection) -> None:
    (task_id,) = submit(world, 1)
    world.claim()
    db.execute(
        "UPDATE collect.task SET status = 'RETRYING', due_at = now() + interval '1.2 s', generation = 2 WHERE id = %s",
        (task_id,),
    )
    body = TaskMessage(task_id=task_id, generation=2).encode()
    with Publisher(world.backends.amqp_url) as publisher:
        publisher.publish([OutgoingMessage(exchange="collect.tasks", routing_key="lane.normal", body=body)])
    claimed = world.claim()
    assert (claimed.claimed, claimed.deferred) == (0, 1)
    assert depth(world) == 0
    deadline = time.monotonic() + 10
    while world.claim().claimed == 0:
        assert time.monotonic() < deadline, "the retry did not come back"
        time.sleep(0.1)
    with connect(world.backends.postgres_dsn) as connection:
        moves = connection.execute(query("tasks/select_log"), {"task_id": task_id}).fetchall()
    assert [move["to_status"] for move in moves] == ["QUEUED", "CLAIMED", "RETRYING", "CLAIMED"]


def test_messages_of_tasks_that_are_gone_are_dropped_and_told_of(
    world: World, db: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a restore from a backup that is older than what the queue holds."""
    gone, live = submit(world, 3), submit(world, 1)
    db.execute("DELETE FROM collect.task WHERE id = ANY(%s)", (gone,))
    claimed = world.claim()
    assert (claimed.claimed, claimed.orphans, claimed.stale) == (1, 3, 0)
    assert [task["task_id"] for run in claimed.runs for task in run.conf["tasks"]] == live
    assert f"messages of tasks that are not in the database: {gone}" in caplog.text
    assert depth(world) == 0


def test_why_names_the_limit_while_what_was_let_go_before_waits_in_the_queue(world: World) -> None:
    world.add(source(max_active_tasks=1))
    first, second, third = (world.submit(params={"day": str(n)}).task_id for n in range(3))
    world.claim()
    assert [world.task(each)["status"] for each in (second, third)] == ["HELD", "HELD"]
    with connect(world.backends.postgres_dsn) as db:
        cancel([first], world.backends, world.rules, actor="test", reason="room")
        assert [world.task(each)["status"] for each in (second, third)] == ["QUEUED", "HELD"]
        sentences = why(db, world.rules, third).sentences
    assert "max_active_tasks is 1" in sentences[1]
