"""The trigger that checks moves and logs them: exact for thousands at once, and no slower for each of them."""

from __future__ import annotations

import pytest

from collect_ops.storage import Connection, errors

MANY = 3000
STORE_SQL = """
    WITH version AS (
        INSERT INTO collect.source_version (hash, source, definition) VALUES ('\\x01', 'things', '{}') RETURNING hash
    )
    INSERT INTO collect.task (source, source_version, dedup_key, priority, lane, status, moved_by, submitted_by,
                              submitted_via, max_retries)
    SELECT 'things', hash, '\\x01', 5, 'normal', 'QUEUED', 'test', 'test', 'test', 0
    FROM version, generate_series(1, %s)
"""
LOGGED_SQL = """
    SELECT from_status, to_status, generation, count(*) AS n FROM collect.task_log
    WHERE from_status IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


@pytest.fixture
def tasks(db: Connection) -> Connection:
    db.execute(STORE_SQL, (MANY,))
    return db


def test_thousands_of_moves_are_logged_each_and_what_moves_nothing_is_not(tasks: Connection) -> None:
    # One first: a session keeps the plan of its first call.
    tasks.execute("UPDATE collect.task SET status = 'CLAIMED' WHERE id = (SELECT min(id) FROM collect.task)")
    tasks.execute("UPDATE collect.task SET confirmed_generation = 1")
    tasks.execute("UPDATE collect.task SET generation = 2 WHERE status = 'QUEUED'")
    rows = tasks.execute(LOGGED_SQL).fetchall()
    assert [tuple(row.values()) for row in rows] == [
        ("QUEUED", "CLAIMED", 1, 1),
        ("QUEUED", "QUEUED", 2, MANY - 1),
    ]


def test_one_illegal_move_among_thousands_undoes_all(tasks: Connection) -> None:
    tasks.execute(
        "UPDATE collect.task SET status = 'CANCELLED' WHERE id = (SELECT max(id) FROM collect.task)"
    )
    with pytest.raises(errors.CheckViolation, match="CANCELLED -> CLAIMED is not a legal move"):
        tasks.execute("UPDATE collect.task SET status = 'CLAIMED'")
    (row,) = tasks.execute("SELECT count(*) AS n FROM collect.task WHERE status = 'CLAIMED'").fetchall()
    assert row["n"] == 0


def test_its_join_is_never_row_against_row(db: Connection) -> None:
    (row,) = db.execute("SELECT proconfig FROM pg_proc WHERE proname = 'log_moves'").fetchall()
    assert "enable_nestloop=off" in row["proconfig"]
