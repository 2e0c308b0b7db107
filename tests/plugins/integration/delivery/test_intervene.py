"""Cancelling and re-prioritising: what moves, what stays, and who gets room by it (DESIGN guarantee 9)."""

from __future__ import annotations

import pytest

from collect_ops.broker.consumer import Consumer
from collect_ops.delivery.intervene import Intervened, cancel
from collect_ops.delivery.priorities import adjust
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.storage import Connection
from tests.plugins.integration.world import World, source


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())


def stop(world: World, *ids: int) -> Intervened:
    return cancel(ids, world.backends, world.rules, actor="someone", reason="not needed")


def prioritise(world: World, priority: int, *ids: int) -> Intervened:
    return adjust(ids, priority, world.backends, world.rules, actor="someone", reason="hurry")


def test_cancelling_moves_what_has_not_ended_once(world: World) -> None:
    waiting, claimed = (world.submit(params={"day": day}).task_id for day in ("a", "b"))
    world.claim()
    done = stop(world, waiting, claimed, 10**9)
    assert (done.moved, done.left) == ((waiting, claimed), (10**9,))
    again = stop(world, waiting, claimed)
    assert (again.moved, again.left) == ((), (waiting, claimed))
    task = world.task(claimed)
    assert (task["status"], task["reason"], task["moved_by"]) == ("CANCELLED", "not needed", "someone")
    assert (task["groups_reserved"], task["finished_at"] is None) == (0, False)


def test_a_cancelled_tasks_run_finds_nothing_to_do(world: World) -> None:
    task_id = world.submit().task_id
    run_id = world.claim().runs[0].run_id
    stop(world, task_id)
    planned = world.plan(run_id)
    assert planned.groups == ()
    assert "is not CLAIMED any more: it is CANCELLED" in planned.skipped[0]
    assert world.finish(run_id) == []


def test_a_priority_moves_what_waits(world: World, db: Connection) -> None:
    waiting = world.submit(params={"day": "a"}, priority=5).task_id
    same = world.submit(params={"day": "b"}, priority=9).task_id
    held = world.submit(params={"day": "c"}, priority=5).task_id
    running = world.submit(params={"day": "d"}, priority=2).task_id
    world.claim("bulk")
    db.execute("UPDATE collect.task SET status = 'HELD' WHERE id = %s", (held,))
    done = prioritise(world, 9, waiting, same, held, running)
    assert (done.moved, done.left) == ((waiting, held), (same, running))
    assert done.lanes == {"urgent"}, "what is held is published when it is let go"
    assert {world.task(task_id)["lane"] for task_id in (waiting, same, held)} == {"urgent"}
    assert (world.task(running)["priority"], world.task(running)["lane"]) == (2, "bulk")
    with Consumer(world.backends.amqp_url) as consumer:
        assert consumer.depth(world.rules.queue("urgent")) == 2


def test_a_retry_with_another_priority_keeps_its_delay(world: World, db: Connection) -> None:
    task_id = world.submit().task_id
    world.claim()
    db.execute(
        "UPDATE collect.task SET status = 'RETRYING', due_at = now() + interval '2 hours', retry_count = 1"
    )
    assert prioritise(world, 9, task_id).moved == (task_id,)
    with Consumer(world.backends.amqp_url) as consumer:
        assert consumer.depth("collect.retry.3600s") == 1
        assert consumer.depth(world.rules.queue("urgent")) == 0


@pytest.mark.parametrize("priority", [-1, 11, True, "5"])
def test_a_priority_out_of_range_changes_nothing(world: World, priority: object) -> None:
    task_id = world.submit().task_id
    with pytest.raises(ValidationFailed, match="0 to 10"):
        prioritise(world, priority, task_id)  # type: ignore[arg-type]
    assert world.task(task_id)["generation"] == 1
