"""Small tasks that share a run share its connections as well: what a task opens of its own costs more than its rows."""

from __future__ import annotations

from collections.abc import Callable

from collect_ops.storage import Connection
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

CLOSED_SQL = """
SELECT count(*) = 0 AS closed FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend'
    AND pid <> pg_backend_pid() AND application_name <> 'test look'
"""
SESSIONS_SQL = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"


def sessions(db: Connection) -> int:
    """Sessions that were ever opened in this test's database, once all but our own have ended."""

    def closed() -> bool:
        row = db.execute(CLOSED_SQL).fetchone()
        return row is not None and bool(row["closed"])

    until(closed, "all connections but the test's own are closed")
    row = db.execute(SESSIONS_SQL).fetchone()
    assert row is not None
    return int(row["sessions"])


def opened_by(world: World, db: Connection, tasks: int, *, of: str) -> int:
    """Connections that a run of so many tasks opens, from its plan to its settling."""
    ids = [world.submit(params={"day": f"{of} {number}"}).task_id for number in range(tasks)]
    (run,) = world.claim().runs
    assert len(run.conf["tasks"]) == tasks
    before = sessions(db)
    world.run(run.run_id)
    opened = sessions(db) - before
    assert {world.task(task_id)["status"] for task_id in ids} == {"COMPLETED"}
    return opened


def test_a_run_of_many_tasks_opens_no_more_connections_than_one_of_few(
    world: World, serve: Callable[..., PagedServer], db: Connection
) -> None:
    world.add(source())
    world.serve_from(serve(rows=20).base_url)
    world.collect(params={"day": "first"})  # its source is known to be small from now on
    few = opened_by(world, db, 6, of="few")
    many = opened_by(world, db, 20, of="many")
    # Each of the four workers has one, and one to settle with when two of them end a task at once.
    assert many <= few + 4
