"""The state machine that PostgreSQL enforces is the one in code, and its log tells the whole story."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collect_ops.storage import Connection, errors
from collect_ops.tasks.lifecycle import MOVES, TaskStatus
from tests.examples import examples

NEW = (
    "INSERT INTO collect.task (source, source_version, dedup_key, priority, lane, status, moved_by, submitted_by, "
    "submitted_via, max_retries) "
    "VALUES ('any', '\\x00', '\\x00', 5, 'normal', %s, 'test', 'test', 'test', 3) RETURNING id"
)


@pytest.fixture
def new_task(db: Connection) -> Connection:
    db.execute(
        "INSERT INTO collect.source_version (hash, source, definition) VALUES ('\\x00', 'any', '{}') "
        "ON CONFLICT DO NOTHING"
    )
    return db


def test_the_table_in_code_is_the_one_in_the_database(db: Connection) -> None:
    rows = db.execute("SELECT from_status, to_status FROM collect.legal_move").fetchall()
    in_database = {(row["from_status"], row["to_status"]) for row in rows}
    assert in_database == {(str(a), str(b)) for a, targets in MOVES.items() for b in targets}


@settings(
    max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(walk=st.lists(st.sampled_from(list(TaskStatus)), min_size=1, max_size=15))
def test_only_legal_moves_happen_and_each_is_logged(new_task: Connection, walk: list[TaskStatus]) -> None:
    db, current = new_task, TaskStatus.CREATED
    task_id = db.execute(NEW, (current,)).fetchone()["id"]  # type: ignore[index]
    story = [(None, str(current))]
    for wanted in walk:
        legal = wanted in MOVES[current] or wanted is current
        try:
            db.execute("UPDATE collect.task SET status = %s WHERE id = %s", (wanted, task_id))
        except errors.CheckViolation as refused:
            assert not legal, (current, wanted)
            assert "not a legal move" in str(refused)
        else:
            assert legal, (current, wanted)
            if wanted is not current:
                story.append((str(current), str(wanted)))
            current = wanted
    rows = db.execute(
        "SELECT from_status, to_status FROM collect.task_log WHERE task_id = %s ORDER BY id", (task_id,)
    ).fetchall()
    assert [(row["from_status"], row["to_status"]) for row in rows] == story


def test_a_move_of_many_is_logged_for_each(new_task: Connection) -> None:
    for _ in range(50):
        new_task.execute(NEW, ("QUEUED",))
    new_task.execute("UPDATE collect.task SET status = 'CLAIMED', attempt = attempt + 1")
    rows = new_task.execute(
        "SELECT count(*) AS n FROM collect.task_log WHERE to_status = 'CLAIMED'"
    ).fetchall()
    assert rows[0]["n"] == 50
