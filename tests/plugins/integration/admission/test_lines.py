"""A service that is kept open: its connections stay, a lost one is replaced, threads do not share one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from collect_ops.storage import Connection
from tests.plugins.integration.world import World, source

BACKENDS_SQL = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'collect-ops admission'
    ORDER BY pid
"""


def pids(db: Connection) -> list[int]:
    return [row["pid"] for row in db.execute(BACKENDS_SQL).fetchall()]


def test_connections_are_kept_in_a_block_and_closed_after_it(world: World, db: Connection) -> None:
    world.add(source())
    with world.service() as service:
        service.admit(world.submission(params={"day": "monday"}))
        kept = pids(db)
        service.admit(world.submission(params={"day": "tuesday"}))
        assert len(kept) == 1
        assert pids(db) == kept
    assert await_none(db)


def await_none(db: Connection) -> bool:
    """The server ends a backend a moment after its client has closed the connection."""
    for _ in range(500):
        if not pids(db):
            return True
        db.execute("SELECT pg_sleep(0.01)")
    return False


def test_without_a_block_nothing_stays_open(world: World, db: Connection) -> None:
    world.add(source())
    world.submit(params={"day": "monday"})
    assert await_none(db)


def test_a_kept_connection_that_the_server_ended_is_replaced(world: World, db: Connection) -> None:
    world.add(source())
    with world.service() as service:
        service.admit(world.submission(params={"day": "monday"}))
        (lost,) = pids(db)
        db.execute("SELECT pg_terminate_backend(%s, 5000)", (lost,))
        answer = service.admit(world.submission(params={"day": "tuesday"}))
        assert world.task(answer.task_id)["confirmed_generation"] == 1
        assert pids(db) != [lost]


def test_callers_of_many_threads_are_each_admitted_once(world: World) -> None:
    world.add(source())
    days = [f"day {number}" for number in range(200)]
    with world.service() as service, ThreadPoolExecutor(8) as pool:
        given = [world.submission(params={"day": day}) for day in days]
        answers = list(pool.map(service.admit, given, timeout=60))
        again = list(pool.map(service.admit, given, timeout=60))
    assert [each.request_id for each in answers] == [each.request_id for each in given]
    assert len({each.task_id for each in answers}) == len(days)
    assert [each.task_id for each in again] == [each.task_id for each in answers]
    assert all(each.known for each in again)
    rows = world.rows("SELECT params FROM collect.task WHERE confirmed_generation = 1")
    assert sorted(row["params"]["day"] for row in rows) == sorted(days)


def test_a_large_batch_is_admitted_traced_and_remembered(world: World) -> None:
    world.add(source())
    given = [world.submission(params={"day": f"day {number}"}) for number in range(250)]
    answers = world.service().admit_batch(given)
    stages = world.rows("SELECT stage, count(*) AS n FROM collect.trace GROUP BY stage ORDER BY stage")
    assert [(row["stage"], row["n"]) for row in stages] == [("admit", 250), ("publish", 250)]
    again = world.service().admit_batch(
        [world.submission(params={"day": f"day {number}"}) for number in range(250)]
    )
    assert [each.duplicate_of for each in again] == [each.task_id for each in answers]  # type: ignore[union-attr]
