"""What PostgreSQL's catalogue says of the tables that every task writes: no index for nobody, and an early vacuum."""

from __future__ import annotations

from collect_ops.storage import Connection

#: A task writes rows into each of them, most of which are written again or deleted.
HOT = (
    "task",
    "submission",
    "dedup",
    "shard",
    "shard_group",
    "task_log",
    "trace",
    "bad_row",
    "page_fingerprint",
    "dead_letter",
    "run_note",
)
INDEXES = """
SELECT indexname AS name, regexp_replace(indexdef, '^.* USING ', '') AS columns
FROM pg_indexes WHERE schemaname = 'collect' AND tablename = 'trace'
"""
KEYS = (
    "SELECT conname FROM pg_constraint WHERE conrelid = 'collect.trace'::regclass AND contype IN ('p', 'u')"
)
AUTOVACUUM = """
SELECT c.relname AS name, o.option_name AS option, o.option_value::float8 AS value
FROM pg_class AS c
CROSS JOIN pg_options_to_table(c.reloptions) AS o
WHERE c.relnamespace = 'collect'::regnamespace AND c.relkind = 'r' AND o.option_name LIKE 'autovacuum%'
"""


def assert_no_index_that_nobody_reads(db: Connection) -> None:
    """A trace is read by its task; its number alone has no index, neither as a key nor as a constraint."""
    assert {row["name"]: row["columns"] for row in db.execute(INDEXES).fetchall()} == {
        "trace_task": "btree (task_id, id)"
    }
    assert db.execute(KEYS).fetchall() == []


def assert_early_vacuum(db: Connection) -> None:
    """At one dead row in a hundred, analysed at two changed ones."""
    found: dict[str, dict[str, float]] = {}
    for row in db.execute(AUTOVACUUM).fetchall():
        found.setdefault(row["name"], {})[row["option"]] = row["value"]
    wanted = {"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_analyze_scale_factor": 0.02}
    assert found == dict.fromkeys(HOT, wanted)


def test_a_trace_has_the_one_index_that_it_is_read_by(db: Connection) -> None:
    assert_no_index_that_nobody_reads(db)


def test_hot_tables_are_vacuumed_at_one_dead_row_in_a_hundred(db: Connection) -> None:
    assert_early_vacuum(db)
