"""A database as months of work leave it, written by SQL; and whatever of it must outlive retention."""

from __future__ import annotations

from collect_ops.storage import Connection

#: Ended 200 days ago unless a test says otherwise.
_TASKS = """
INSERT INTO collect.task (
    source, source_version, params, dedup_key, priority, lane, status, moved_by, submitted_by, submitted_via,
    generation, confirmed_generation, attempt, max_retries, run_id, shards_total, created_at, queued_at, claimed_at,
    started_at, progress_at, finished_at
)
SELECT
    %(source)s, %(version)s, jsonb_build_object('day', n), sha256(convert_to(%(source)s || n, 'UTF8')), 5, 'normal',
    %(status)s, 'test', 'test', 'test', 1, 1, 1, 3, %(source)s || '-' || n || '-attempt-1', %(shards)s,
    a.at, a.at, a.at, a.at, a.at, CASE WHEN %(ended)s THEN a.at + interval '5 minutes' END
FROM generate_series(1, %(count)s) AS n
CROSS JOIN LATERAL (SELECT now() - make_interval(secs => %(age_days)s * 86400.0 - n * 0.01) AS at) AS a
RETURNING id
"""
_NEIGHBOURS = (
    """INSERT INTO collect.submission (request_id, task_id, submitted_at)
    SELECT 'request:' || id, id, created_at FROM collect.task WHERE id = ANY(%(ids)s)""",
    """INSERT INTO collect.dedup (key, task_id, expires_at)
    SELECT dedup_key, id, created_at + interval '1 day' FROM collect.task WHERE id = ANY(%(ids)s)
    ON CONFLICT DO NOTHING""",
    """INSERT INTO collect.shard_group (run_id, group_no, lane, label, status, concurrency, opened_at, closed_at)
    SELECT
        run_id, 0, lane, run_id, CASE WHEN finished_at IS NULL THEN 'OPEN' ELSE 'CLOSED' END, 4, created_at, finished_at
    FROM collect.task WHERE id = ANY(%(ids)s)""",
    """INSERT INTO collect.shard (task_id, shard_no, status, run_id, group_no, rows_landed, finished_at)
    SELECT t.id, n, CASE WHEN t.finished_at IS NULL THEN 'PENDING' ELSE 'DONE' END, t.run_id, 0, 100, t.finished_at
    FROM collect.task AS t CROSS JOIN generate_series(0, coalesce(t.shards_total, 1) - 1) AS n
    WHERE t.id = ANY(%(ids)s)""",
    """INSERT INTO collect.trace (task_id, shard_no, attempt, stage, at, duration_s, rows, bytes, request)
    SELECT t.id, 0, 1, s, t.created_at, 0.1, 100, 10000, '{"url": "https://api.example.org/things?page=1"}'
    FROM collect.task AS t CROSS JOIN unnest(ARRAY['admit', 'publish', 'claim', 'plan', 'fetch', 'land', 'settle']) AS s
    WHERE t.id = ANY(%(ids)s)""",
    """INSERT INTO collect.task_log (task_id, at, from_status, to_status, attempt, generation, priority, actor)
    SELECT t.id, t.created_at, 'QUEUED', s, 1, 1, 5, 'test'
    FROM collect.task AS t CROSS JOIN unnest(ARRAY['CLAIMED', 'DISPATCHED', 'RUNNING', 'COMPLETED']) AS s
    WHERE t.id = ANY(%(ids)s)""",
    """INSERT INTO collect.bad_row (task_id, shard_no, page, ordinal, reason, row_text, at)
    SELECT id, 0, 1, 1, 'id: not a number', '{"id": "x"}', created_at FROM collect.task
    WHERE id = ANY(%(ids)s) AND id %% 10 = 0""",
    """INSERT INTO collect.run_note (task_id, attempt, dag_id, run_id, status, written_at, delivered_at)
    SELECT id, 1, 'collect_normal', run_id, status, finished_at, finished_at FROM collect.task
    WHERE id = ANY(%(ids)s) AND status IN ('DEAD', 'PARTIAL')""",
)
_LETTERS = """
INSERT INTO collect.dead_letter (
    task_id, generation, error_message, failed_at, retry_count, confirmed_at, state, state_at, source, fingerprint
)
SELECT id, 1, 'answered 503', finished_at, 3, finished_at, %(state)s, finished_at, source, '0123456789abcdef'
FROM collect.task WHERE id = ANY(%(ids)s)
"""
#: What may hold a row of a task, and by which column.
TABLES = {
    "task": "id", "submission": "task_id", "dedup": "task_id", "shard": "task_id", "trace": "task_id",
    "task_log": "task_id", "bad_row": "task_id", "dead_letter": "task_id", "run_note": "task_id",
}  # fmt: skip


def add_version(
    db: Connection, source: str = "things", *, age_days: float = 200, version: bytes = b"v1"
) -> bytes:
    """A stored declaration."""
    db.execute(
        "INSERT INTO collect.source_version (hash, source, definition, seen_at) "
        "VALUES (%s, %s, '{}', now() - make_interval(secs => %s * 86400.0)) ON CONFLICT DO NOTHING",
        (version, source, age_days),
    )
    return version


def add_tasks(
    db: Connection,
    count: int = 1,
    *,
    status: str = "COMPLETED",
    age_days: float = 200,
    source: str | None = None,
    shards: int = 1,
    letter: str | None = None,
) -> list[int]:
    """Tasks with everything that is about them; returns their ids."""
    source = source or f"{status.lower()}_{age_days:g}_{letter or ''}".replace(".", "_")
    version = add_version(db, source, version=source.encode())
    ended = status in ("COMPLETED", "PARTIAL", "CANCELLED", "DEAD")
    values = {
        "count": count, "status": status, "age_days": age_days, "source": source, "version": version, "shards": shards,
        "ended": ended,
    }  # fmt: skip
    with db.transaction():
        db.execute("ALTER TABLE collect.task DISABLE TRIGGER task_created")
        ids = [row["id"] for row in db.execute(_TASKS, values).fetchall()]
        db.execute("ALTER TABLE collect.task ENABLE TRIGGER task_created")
        for text in _NEIGHBOURS:
            db.execute(text.encode(), {"ids": ids})
        if letter is not None:
            db.execute(_LETTERS, {"ids": ids, "state": letter})
    return ids


def contents(db: Connection, ids: list[int]) -> dict[str, list[object]]:
    """All rows of some tasks, by table."""
    found: dict[str, list[object]] = {}
    for table, column in TABLES.items():
        text = (
            f"SELECT to_jsonb(t)::text AS row FROM collect.{table} AS t WHERE {column} = ANY(%s) ORDER BY 1"
        )
        found[table] = [row["row"] for row in db.execute(text.encode(), (ids,)).fetchall()]
    return found


def remaining(db: Connection, ids: list[int]) -> set[int]:
    """Which of some tasks are still there."""
    return {
        row["id"] for row in db.execute("SELECT id FROM collect.task WHERE id = ANY(%s)", (ids,)).fetchall()
    }
