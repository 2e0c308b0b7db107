"""What the passes read of a database that has a past and a backlog: neither is looked through."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from collect_ops.storage import Connection, connect, query
from tests.plugins.integration.databases import new_database

ENDED = 60_000
WAITING = 10_000
#: 8 KiB blocks that a pass may read when there is nothing to do: an index's height for each priority and status.
FEW_BLOCKS = 150


@pytest.fixture(scope="module")
def filled(template_database: str) -> Iterator[Connection]:
    """Tasks of the past, and a backlog whose messages are all in their queue, with statistics."""
    with new_database("flat", template_database) as (_, dsn), connect(dsn) as connection:
        _fill(connection)
        yield connection


def _fill(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO collect.source_version (hash, source, definition) "
        "SELECT decode(md5(n::text), 'hex'), 's' || n, "
        "json_build_object('name', 's' || n, 'connection', 'c', 'max_active_tasks', 4) "
        "FROM generate_series(0, 9) AS n"
    )
    columns = (
        "source, source_version, dedup_key, priority, lane, status, moved_by, submitted_by, submitted_via, "
        "max_retries, confirmed_generation, attempt, queued_at, aged_from, created_at, claimed_at, finished_at"
    )
    values = (
        "SELECT 's' || n %% 10, decode(md5((n %% 10)::text), 'hex'), decode(md5(n::text), 'hex'), {priority}, "
        "'normal', {status}, 'test', 'test', 'test', 3, {confirmed}, 1, {at}, {at}, {at}, {claimed}, {finished} "
        "FROM generate_series(1, %s) AS n"
    )
    ended = values.format(
        priority="4 + n %% 4",
        status="CASE n %% 3 WHEN 0 THEN 'DEAD' WHEN 1 THEN 'COMPLETED' ELSE 'CANCELLED' END",
        confirmed="CASE n %% 3 WHEN 2 THEN 0 ELSE 1 END",
        at="now() - interval '10 days' + n * interval '10 seconds'",
        claimed="now() - interval '9 days'",
        finished="now() - interval '9 days' + n * interval '10 seconds'",
    )
    waiting = values.format(
        priority="4 + n %% 4",
        status="'QUEUED'",
        confirmed="1",
        at="now() - interval '1 hour' + n * interval '0.3 seconds'",
        claimed="NULL",
        finished="NULL",
    )
    held = waiting.replace("'QUEUED'", "'HELD'")
    connection.execute(f"INSERT INTO collect.task ({columns}) {ended}", (ENDED,))  # type: ignore[arg-type]
    connection.execute(f"INSERT INTO collect.task ({columns}) {waiting}", (WAITING,))  # type: ignore[arg-type]
    connection.execute(f"INSERT INTO collect.task ({columns}) {held}", (5,))  # type: ignore[arg-type]
    # What was claimed last was published before all that waits.
    connection.execute(
        "INSERT INTO collect.lane_progress (lane, priority, queued_at) "
        "SELECT 'normal', n, now() - interval '61 minutes' FROM generate_series(4, 7) AS n"
    )
    connection.execute("ANALYZE")


def blocks_read(connection: Connection, name: str, values: Mapping[str, Any]) -> tuple[int, str]:
    """Blocks that a statement looks at, and its plan."""
    statement = f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {query(name)}"
    for _ in range(2):  # the first look clears away what tests have rolled back
        with connection.transaction(force_rollback=True):
            rows = connection.execute(statement, values).fetchall()  # type: ignore[arg-type]
    plan = "\n".join(str(next(iter(row.values()))) for row in rows)
    first = re.search(r"Buffers: shared((?: \w+=\d+)+)", plan)
    figures = dict(part.split("=") for part in first[1].split()) if first else {}
    return int(figures.get("hit", 0)) + int(figures.get("read", 0)), plan


LETTERS = 20_000
GROUPS = 5


def test_groups_of_dead_letters_are_told_of_without_reading_the_letters(filled: Connection) -> None:
    with filled.transaction(force_rollback=True):
        filled.execute(
            "INSERT INTO collect.dead_letter (message_key, error_message, retry_count, state, source, fingerprint, "
            "pattern, failed_at) SELECT decode(md5(n::text), 'hex'), 'error ' || n, 0, 'OPEN', 's' || n %% 10, "
            "'group-' || n %% %s, 'error N', now() - n * interval '1 second' FROM generate_series(1, %s) AS n",
            (GROUPS, LETTERS),
        )
        filled.execute("ANALYZE collect.dead_letter")
        filled.execute(query("delivery/sum_up_dead_groups"))
        rows = filled.execute(query("delivery/select_dead_groups"), {"limit": 50}).fetchall()
        blocks, plan = blocks_read(filled, "delivery/select_dead_groups", {"limit": 50})
    assert [row["letters"] for row in rows] == [LETTERS // GROUPS] * GROUPS
    assert {len(row["sources"]) for row in rows} == {2}
    assert blocks <= FEW_BLOCKS, plan


REPUBLISH = {
    "lane": "normal",
    "ttl_s": 7200,
    "grace_s": 60,
    "queue_empty": False,
    "strict": True,
    "actor": "test",
}


LOOK = {
    "lanes": ["normal"],
    "ttls_s": [7200.0],
    "strict": True,
    "grace_s": 60.0,
    "quiet_s": 30.0,
    "outbox_s": 5.0,
    "ageing_s": 86_400.0,
    "note_s": 5.0,
    "table_s": 8.0,
    "format": 2,
}
RELEASE = {"format": 2, "spared": None, "actor": "test", "patience_s": 21_600.0, "at_once": 100}
FIRST_HELD = {"sources": ["s1", "s2", "s9"], "connections": ["c", "c", "elsewhere"], "format": 2}
NAMED = {"task_ids": [ENDED + 10, ENDED + 20], "generations": [1, 1]}
CLAIM = {"run_ids": [None, None], "reserved": [1, 1], "nodes": ["", ""], "dag_id": "d", "actor": "test"}


@pytest.mark.parametrize(
    ("name", "values", "index"),
    [
        ("lanes/lock_named", NAMED, "task_pkey"),
        ("lanes/claim_tasks", {**NAMED, **CLAIM}, "task_pkey"),
        (
            "lanes/release_held",
            {**RELEASE, "source": "s1", "connection": "c"},
            "task_held",
        ),
        (
            "lanes/release_held",
            {**RELEASE, "source": None, "connection": None},
            "task_held",
        ),
        ("lanes/select_first_held", FIRST_HELD, "task_held"),
        ("delivery/select_unconfirmed", {"older_than_s": 5.0, "limit": 2000}, "task_outbox"),
        ("delivery/republish_overdue", REPUBLISH, "task_waiting"),
        ("delivery/select_due", LOOK, "task_waiting"),
    ],
)
def test_a_pass_with_nothing_to_do_reads_next_to_nothing(
    filled: Connection, name: str, values: Mapping[str, Any], index: str
) -> None:
    blocks, plan = blocks_read(filled, name, values)
    assert index in plan, plan
    # The look at what is due asks for every pass at once.
    assert blocks <= (2 if name == "delivery/select_due" else 1) * FEW_BLOCKS, plan


def test_a_young_system_with_a_backlog_of_one_priority_is_not_looked_through(template_database: str) -> None:
    """All that there is waits: a planner that reads everything for a part of it would do so for each priority."""
    with new_database("backlog", template_database) as (_, dsn), connect(dsn) as connection:
        connection.execute(
            "INSERT INTO collect.source_version (hash, source, definition) VALUES ('a', 's', '{}')",
        )
        connection.execute(
            "INSERT INTO collect.task (source, source_version, dedup_key, priority, lane, status, moved_by, "
            "submitted_by, submitted_via, max_retries, confirmed_generation, attempt, queued_at, due_at) "
            "SELECT 's', 'a', decode(md5(n::text), 'hex'), 5, 'normal', "
            "CASE WHEN n %% 3 = 0 THEN 'RETRYING' ELSE 'QUEUED' END, 'test', 'test', 'test', 3, 1, 1, now(), "
            "CASE WHEN n %% 3 = 0 THEN now() + interval '10 minutes' END FROM generate_series(1, %s) AS n",
            (3 * WAITING,),
        )
        connection.execute("VACUUM ANALYZE collect.task")
        blocks, plan = blocks_read(connection, "delivery/select_due", LOOK)
    assert blocks <= 2 * FEW_BLOCKS, plan


def test_the_outbox_reads_what_it_publishes_and_no_more(filled: Connection) -> None:
    with filled.transaction(force_rollback=True):
        filled.execute(
            "UPDATE collect.task SET confirmed_generation = 0 WHERE status = 'QUEUED' AND id % 10 = 0"
        )
        values = {"older_than_s": 5.0, "limit": 100}
        rows = filled.execute(query("delivery/select_unconfirmed"), values).fetchall()
        assert len(rows) == 100
        blocks, plan = blocks_read(filled, "delivery/select_unconfirmed", values)
    assert blocks <= 100 * 4 + FEW_BLOCKS, plan


def test_what_is_found_to_be_lost_is_all_that_is_read(filled: Connection) -> None:
    with filled.transaction(force_rollback=True):
        filled.execute(
            "INSERT INTO collect.lane_progress (lane, priority, queued_at) "
            "SELECT 'normal', 4, (SELECT queued_at FROM collect.task WHERE status = 'QUEUED' ORDER BY queued_at "
            "OFFSET 20 LIMIT 1) ON CONFLICT (lane, priority) DO UPDATE SET queued_at = excluded.queued_at"
        )
        rows = filled.execute(query("delivery/republish_overdue"), REPUBLISH).fetchall()
    assert len(rows) == 20
