"""A claim locks tasks block by block, in the order of the queue: recording confirms must not wait for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from collect_ops.broker.publisher import Publisher
from collect_ops.lanes.publication import Publication, publish
from collect_ops.storage import Connection, connect, query
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source


def test_confirms_of_tasks_that_a_claim_has_in_hand(world: World, db: Connection) -> None:
    world.add(source())
    low = world.submit(params={"day": "low"}, priority=4).task_id
    high = world.submit(params={"day": "high"}, priority=7).task_id
    db.execute("UPDATE collect.task SET confirmed_generation = 0")
    publications = [
        Publication(task_id=task_id, generation=1, priority=5, lane="normal") for task_id in (low, high)
    ]

    def confirm() -> int:
        with (
            connect(world.backends.postgres_dsn, application_name="test confirm") as connection,
            Publisher(world.backends.amqp_url) as publisher,
        ):
            return len(publish(connection, publisher, world.rules, publications))

    with ThreadPoolExecutor(1) as pool, connect(world.backends.postgres_dsn) as claiming:
        with claiming.transaction():
            claiming.execute(query("lanes/lock_named"), {"task_ids": [high], "generations": [1]})
            confirming = pool.submit(confirm)
            until(lambda: confirming.done() or waits(db), "the confirms are recorded, or wait")
            claiming.execute(query("lanes/lock_named"), {"task_ids": [low], "generations": [1]})
        assert confirming.result(timeout=30) == 2


def waits(db: Connection) -> bool:
    row = db.execute(
        "SELECT count(*) AS n FROM pg_stat_activity "
        "WHERE application_name = 'test confirm' AND wait_event_type = 'Lock'"
    ).fetchone()
    return row is not None and row["n"] > 0


def test_a_message_that_was_claimed_is_confirmed_by_that(world: World, db: Connection) -> None:
    world.add(source())
    task_id = world.submit().task_id
    db.execute("UPDATE collect.task SET confirmed_generation = 0")
    assert world.claim().claimed == 1
    assert world.task(task_id)["confirmed_generation"] == 1
