"""The look at what is due: nothing for an idle system, and each pass of the sweep as soon as it has something to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import pairwise

import pytest

from collect_ops.delivery import dispatch, due
from collect_ops.delivery.due import Reminders
from collect_ops.delivery.sweep import sweep
from collect_ops.lanes.runs import RunState
from collect_ops.nodes.rules import placement_rules
from collect_ops.storage import Connection
from tests.plugins.integration.delivery.test_lost_messages import purge
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())


def passes(world: World, db: Connection) -> set[str]:
    return set(due.look(db, world.backends, world.rules, placement_rules()))


def put(db: Connection, statement: str) -> None:
    """Bring about what only a crash does, past the table of legal moves."""
    db.execute("ALTER TABLE collect.task DISABLE TRIGGER USER")
    db.execute(statement.encode())
    db.execute("ALTER TABLE collect.task ENABLE TRIGGER USER")


def claimed(world: World) -> str:
    world.submit()
    return world.claim().runs[0].run_id


def test_nothing_is_due_of_an_empty_system_or_of_work_that_goes_well(
    world: World, db: Connection, serve: Callable[..., PagedServer]
) -> None:
    world.serve_from(serve(rows=120).base_url)
    assert passes(world, db) == set()
    world.submit()
    assert passes(world, db) == set()
    run_id = world.claim().runs[0].run_id
    assert passes(world, db) == set()
    world.plan(run_id)
    assert passes(world, db) == set()


#: What makes a pass due, as SQL on a task that waits, by the pass.
WAITING = {
    "outbox": "UPDATE collect.task SET confirmed_generation = 0, queued_at = now() - interval '6 s'",
    "retrying": (
        "UPDATE collect.task SET status = 'RETRYING', reason = 'failed', due_at = now() - interval '61 s', "
        "queued_at = now() - interval '90 s'"
    ),
    "messages": "UPDATE collect.task SET queued_at = now() - interval '3 hours'",
    "held": "UPDATE collect.task SET status = 'HELD', reason = 'a limit'",
    "placeless": "UPDATE collect.task SET status = 'HELD', held_for = 'node', reason = 'no node'",
    "undispatched": "UPDATE collect.task SET status = 'DISPATCH_FAILED', due_at = now(), reason = 'no node'",
    "ageing": "UPDATE collect.task SET aged_from = now() - interval '30 days'",
    "redrives": (
        "INSERT INTO collect.redrive (asked, rate_per_s, reason, requested_by, total) "
        "VALUES ('{}', 1, 'again', 'test', 1)"
    ),
    "notes": (
        "INSERT INTO collect.run_note (task_id, attempt, dag_id, run_id, status, reason, written_at) "
        "SELECT id, 1, 'collect_normal', 'r', 'DEAD', 'x', now() - interval '9 s' FROM collect.task"
    ),
    "tables": (
        "INSERT INTO collect.table_event (table_name, task_id, source, rows_landed, landed_at) "
        "SELECT 'things', id, 'things', 1, now() - interval '9 s' FROM collect.task"
    ),
}


@pytest.mark.parametrize("name", WAITING)
def test_each_pass_is_due_as_soon_as_it_has_something_to_do(world: World, db: Connection, name: str) -> None:
    world.submit()
    put(db, WAITING[name])
    assert name in passes(world, db)


def test_a_task_overtaken_by_younger_ones_has_lost_its_message(world: World, db: Connection) -> None:
    world.submit()
    db.execute("UPDATE collect.task SET queued_at = now() - interval '90 s', in_queue_at = NULL")
    assert passes(world, db) == set(), "it waits its turn"
    db.execute(
        "INSERT INTO collect.lane_progress (lane, priority, queued_at) SELECT lane, priority, now() FROM collect.task"
    )
    assert passes(world, db) == {"messages"}


def retried_in_vain(world: World, db: Connection, ago: str) -> None:
    """A RETRYING task that was published once since it was due, and not claimed."""
    world.submit()
    put(
        db,
        "UPDATE collect.task SET status = 'RETRYING', reason = 'failed', in_queue_at = NULL, "
        f"queued_at = now() - interval '{ago}', due_at = now() - interval '{ago}'",
    )


def expect_one_message(world: World, db: Connection) -> None:
    """The look says what the pass does."""
    assert passes(world, db) == {"messages"}
    assert sweep(world.backends, world.rules, world.runs, actor="test").repaired.republished == 1
    assert passes(world, db) == set()


def test_a_retry_whose_second_message_has_expired_is_due(world: World, db: Connection) -> None:
    retried_in_vain(world, db, "90 seconds")
    assert passes(world, db) == set(), "its turn may come"
    put(
        db, "UPDATE collect.task SET queued_at = queued_at - interval '3 h', due_at = due_at - interval '3 h'"
    )
    expect_one_message(world, db)


def test_a_retry_whose_second_message_was_overtaken_is_due(world: World, db: Connection) -> None:
    retried_in_vain(world, db, "90 seconds")
    db.execute(
        "INSERT INTO collect.lane_progress (lane, priority, queued_at) SELECT lane, priority, now() FROM collect.task"
    )
    expect_one_message(world, db)


def test_a_retry_beside_an_empty_queue_is_due(world: World, db: Connection) -> None:
    world.backends = replace(world.backends, rabbitmq_api_url=os.environ["COLLECT_RABBITMQ_API_URL"])
    retried_in_vain(world, db, "90 seconds")
    purge(world)
    until(lambda: passes(world, db) == {"messages"}, "the pass is due", deadline_s=40)
    expect_one_message(world, db)


def test_what_stands_still_is_due(world: World, db: Connection, serve: Callable[..., PagedServer]) -> None:
    world.serve_from(serve(rows=120).base_url)
    run_id = claimed(world)
    world.plan(run_id)
    db.execute("UPDATE collect.task SET progress_at = now() - interval '31 s'")
    db.execute("UPDATE collect.shard SET progress_at = now() - interval '31 s'")
    assert "unsettled" in passes(world, db)
    put(db, "UPDATE collect.task SET status = 'CANCELLED', reason = 'no', finished_at = now()")
    db.execute("UPDATE collect.shard_group SET opened_at = now() - interval '31 s'")
    assert "orphans" in passes(world, db)


@pytest.mark.parametrize("name", ["outbox", "retrying", "messages", "held", "undispatched"])
def test_a_sweep_leaves_nothing_due(world: World, db: Connection, name: str) -> None:
    world.submit()
    put(db, WAITING[name])
    sweep(world.backends, world.rules, world.runs, actor="test")
    assert passes(world, db) == set()


def test_a_sweep_settles_what_a_run_that_ended_left(
    world: World, db: Connection, serve: Callable[..., PagedServer]
) -> None:
    world.serve_from(serve(rows=120).base_url)
    run_id = claimed(world)
    world.plan(run_id)
    world.runs.states[run_id] = RunState.ENDED
    db.execute("UPDATE collect.task SET progress_at = now() - interval '31 s'")
    db.execute("UPDATE collect.shard SET progress_at = now() - interval '31 s'")
    sweep(world.backends, world.rules, world.runs, actor="test")
    assert passes(world, db) == set()


def remind(reminders: Reminders, due_now: Mapping[str, Iterable[str]], now: float) -> list[str]:
    """One look of the watcher, which starts a run for what is worth one."""
    passes = {name: frozenset(subjects) for name, subjects in due_now.items()}
    worth = reminders.worth_a_run(passes, now)
    reminders.told({name: passes[name] for name in worth}, now)
    return worth


def test_what_stays_due_is_told_again_after_twice_as_long_each_time() -> None:
    reminders = Reminders(first_s=4.0)
    told = [now for now in range(0, 300, 4) if remind(reminders, {"outbox": set()}, float(now))]
    assert told[:5] == [0, 4, 12, 28, 60]
    assert max(b - a for a, b in pairwise(told)) <= due.LONGEST_S + 4


def test_what_is_due_again_is_told_at_once() -> None:
    reminders = Reminders(first_s=4.0)
    for now in (0.0, 4.0, 12.0):
        assert remind(reminders, {"ageing": set()}, now) == ["ageing"]
    assert remind(reminders, {"ageing": set()}, 16.0) == []
    assert remind(reminders, {}, 20.0) == []
    assert reminders.worth_a_run({"ageing": due.NOBODY}, 24.0) == ["ageing"]
    assert reminders.worth_a_run({"ageing": due.NOBODY, "outbox": due.NOBODY}, 24.0) == ["ageing", "outbox"]


def test_what_is_due_for_a_new_reason_is_told_at_once() -> None:
    """A group that is lost does not wait for the reminder of others, which no pass could mend."""
    reminders = Reminders(first_s=4.0)
    for now in (0.0, 4.0, 12.0, 28.0):
        assert remind(reminders, {"groups": {"a/0", "b/0"}}, now) == ["groups"]
    assert remind(reminders, {"groups": {"a/0"}}, 32.0) == [], "one less is no reason"
    assert remind(reminders, {"groups": {"a/0", "c/1"}}, 36.0) == ["groups"]
    assert remind(reminders, {"groups": {"a/0", "c/1"}}, 40.0) == ["groups"], (
        "the pause is that of a new reason"
    )
    assert remind(reminders, {"groups": {"a/0", "c/1"}}, 44.0) == []


def test_a_lost_group_is_told_beside_groups_that_wait_for_airflow(
    world: World, db: Connection, serve: Callable[..., PagedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Placed groups that Airflow has not handed out stay due; one that falls silent meanwhile is due of its own."""
    monkeypatch.setattr(dispatch, "SETTLED_S", 0.0)
    world.backends = replace(world.backends, node_queues=True)
    world.serve_from(serve(rows=400).base_url)
    run_id = claimed(world)
    world.plan(run_id)
    db.execute("UPDATE collect.shard_group SET placed_node = 'a', opened_at = now() - interval '90 s'")
    reminders = Reminders(first_s=4.0)
    groups = {f"{run_id}/{row['group_no']}" for row in world.rows("SELECT group_no FROM collect.shard_group")}
    assert len(groups) > 1
    waiting = due.look(db, world.backends, world.rules, placement_rules())
    assert (set(waiting["unstarted"]), "groups" in waiting) == (groups, False)
    for now in (0.0, 4.0, 12.0, 28.0):
        assert remind(reminders, waiting, now) == ["unstarted"]
    db.execute(
        "UPDATE collect.shard_group SET node = 'a', started_at = now() - interval '80 s', alive_at = now() - "
        "interval '80 s', doubted_at = now() - interval '40 s' WHERE group_no = 0"
    )
    later = due.look(db, world.backends, world.rules, placement_rules())
    assert later["groups"] == {f"{run_id}/0"}
    assert remind(reminders, later, 32.0) == ["groups"]
