"""What a task costs on disk, and that retention gives it back: nothing grows for ever."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from collect_ops.maintenance.retention import run_once
from collect_ops.maintenance.retention_rules import Pace, RetentionRules
from collect_ops.storage import Connection
from tests.plugins.integration.maintenance.filled import add_tasks, remaining
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

#: More of them show how long it takes: RETENTION_TASKS=100000.
MANY = int(os.environ.get("RETENTION_TASKS", "10000"))
REAL = 300
RULES = RetentionRules(pace=Pace(pause_s=0))
SIZE_SQL = """
SELECT sum(pg_total_relation_size(c.oid))::bigint AS bytes
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'collect' AND c.relkind = 'r'
"""


def size(db: Connection) -> int:
    """Bytes of all tables of `collect`, indexes included, after a vacuum as the autovacuum makes it."""
    db.execute("VACUUM ANALYZE")
    row = db.execute(SIZE_SQL).fetchone()
    assert row is not None
    return int(row["bytes"])


def test_old_tasks_go_and_leave_their_room_to_as_many(
    world: World, db: Connection, record_property: Callable[[str, object], None]
) -> None:
    stays = [*add_tasks(db, 200, age_days=1), *add_tasks(db, 200, status="QUEUED")]
    sizes: list[int] = []
    for year in range(4):
        old = add_tasks(db, MANY, source=f"year {year}")
        sizes.append(size(db))
        done = run_once(world.backends, RULES)
        assert done.complete
        assert done.deleted["tasks"] == MANY
        assert not remaining(db, old)
        assert remaining(db, stays) == set(stays)
        size(db)  # vacuums
        rows = sum(done.deleted.values())
        record_property(f"year {year}", {"seconds": round(done.seconds, 1), "rows": rows, "bytes": sizes[-1]})
        print(f"{MANY:,} tasks, {rows:,} rows deleted in {done.seconds:.1f} s of {sizes[-1]:,} bytes")
    # Pages of indexes that are half full after the first deletion are filled the next time.
    assert sizes[-1] < 1.05 * sizes[-2], sizes


def test_what_a_task_costs_on_disk(
    world: World,
    serve: Callable[..., PagedServer],
    db: Connection,
    record_property: Callable[[str, object], None],
) -> None:
    """One of one shard and one page, with everything that is about it."""
    world.add(source())
    world.serve_from(serve(rows=20).base_url)
    world.collect(params={"day": "first"})
    before = size(db)
    ids = [world.submit(params={"day": f"day {number}"}).task_id for number in range(REAL)]
    while world.claim_and_run():
        pass
    assert {world.task(task_id)["status"] for task_id in ids} == {"COMPLETED"}
    each = (size(db) - before) / REAL
    assert each < 10_000, f"{each:,.0f} bytes a task"
    record_property("bytes_a_task", round(each))
    print(f"{each:,.0f} bytes a task")
