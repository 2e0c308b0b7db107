"""A claim beside whoever else has its tasks in hand, and beside messages that nobody of ours has written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from collect_ops.broker.consumer import Consumer
from collect_ops.broker.message import OutgoingMessage, TaskMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.delivery.intervene import cancel
from collect_ops.delivery.priorities import adjust
from collect_ops.lanes.claim import Claimed, _Claim
from collect_ops.storage import Connection, connect, query
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())


def waits_for_lock(db: Connection, application: str) -> bool:
    row = db.execute(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'",
        (application,),
    ).fetchone()
    return row is not None and row["n"] > 0


def test_a_generation_that_no_task_can_have_is_stale(world: World) -> None:
    """Anybody who may publish could else stop a lane: each claim would fail at it and give it back."""
    ended = world.submit().task_id
    cancel([ended], world.backends, world.rules, actor="test", reason="no more")
    live = world.submit().task_id
    with Publisher(world.backends.amqp_url) as publisher:
        for task_id, generation in ((ended, 2**31), (2**63 - 1, 2**63 - 1)):
            body = TaskMessage(task_id=task_id, generation=generation).encode()
            publisher.publish(
                [OutgoingMessage(exchange="collect.tasks", routing_key="lane.normal", body=body)]
            )
    claimed = world.claim()
    # The cancelled task's own message and the made-up generation of it; and a task that does not exist.
    assert (claimed.claimed, claimed.stale, claimed.orphans) == (1, 2, 1)
    assert world.task(live)["status"] == "CLAIMED"


@pytest.mark.parametrize("act", ["cancel", "priority"])
def test_many_are_changed_while_a_claim_goes_on(world: World, db: Connection, act: str) -> None:
    """A claim locks tasks in the order of its queue, others in the order of their ids: neither waits for the other."""
    low = world.submit(params={"day": "low"}, priority=4).task_id
    high = world.submit(params={"day": "high"}, priority=7).task_id

    def change() -> tuple[int, ...]:
        if act == "cancel":
            return cancel([low, high], world.backends, world.rules, actor="test", reason="no more").moved
        return adjust([low, high], 5, world.backends, world.rules, actor="test", reason="other").moved

    names = {"cancel": "collect-ops cancel", "priority": "collect-ops priority"}
    with ThreadPoolExecutor(1) as pool, connect(world.backends.postgres_dsn) as claiming:
        with claiming.transaction():
            claiming.execute(query("lanes/lock_named"), {"task_ids": [high], "generations": [1]})
            changing = pool.submit(change)
            until(lambda: waits_for_lock(db, names[act]), "the change waits for the claim")
            rows = claiming.execute(
                query("lanes/lock_named"), {"task_ids": [low], "generations": [1]}
            ).fetchall()
        assert changing.result(timeout=30) == (low, high)
    assert rows == []


def test_a_task_that_another_has_in_hand_is_left_for_the_next_claim(world: World, db: Connection) -> None:
    task_id = world.submit().task_id
    with db.transaction():
        db.execute("UPDATE collect.task SET progress_at = now() WHERE id = %s", (task_id,))
        claimed = world.claim()
        assert (claimed.claimed, claimed.stale, claimed.more) == (0, 0, True)
    with Consumer(world.backends.amqp_url) as consumer:
        assert consumer.depth(world.rules.queue("normal")) == 1
    assert "normal" in world.runs.woken
    assert world.claim().claimed == 1


def test_two_lanes_at_once_keep_a_sources_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither sees what the other has not committed: who comes second leaves the source's tasks in the queue."""
    world.add(source("few", max_active_tasks=1))
    ids = [
        world.submit("few", params={"day": str(priority)}, priority=priority).task_id for priority in (5, 9)
    ]
    others = [world.submit(params={"day": lane}, priority=4).task_id for lane in ("a", "b")]
    counted, go_on = Event(), Event()
    commit = _Claim.commit

    def paused(claiming: _Claim) -> Claimed:
        if not counted.is_set():
            counted.set()
            assert go_on.wait(20)
        return commit(claiming)

    monkeypatch.setattr(_Claim, "commit", paused)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(world.claim, "urgent")
        assert counted.wait(20)
        second = world.claim("normal")
        go_on.set()
        assert first.result(timeout=30).claimed == 1
    assert (second.claimed, second.held, second.more) == (2, 0, True)
    assert {world.task(task_id)["status"] for task_id in others} == {"CLAIMED"}
    assert sorted(world.task(task_id)["status"] for task_id in ids) == ["CLAIMED", "QUEUED"]
    assert world.claim("normal").held == 1
