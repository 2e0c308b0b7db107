"""The composed statements, as PostgreSQL plans them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from collect_ops.landing import ensure_target
from collect_ops.landing.layout import layout_of
from collect_ops.landing.statements import Statements
from collect_ops.sources.model import Column, Disposition, Target
from collect_ops.storage import Connection, query

COLUMNS = ("id", "v", "_extra", "_task_id", "_shard", "_fetched_at", "_content_hash")


def composed(db: Connection, disposition: Disposition) -> Statements:
    columns = {"id": Column(type="integer"), "v": Column(type="text")}
    target = Target(table="things", columns=columns, key=("id",), disposition=disposition)
    ensure_target(db, target)
    statements = Statements.compose(layout_of(target), ("landing", "things"), COLUMNS, "FORMAT csv")
    db.execute(statements.prepare)
    db.execute(statements.prepare_cast)
    return statements


def plan(db: Connection, statement: bytes, parameters: dict[str, object] | None = None) -> str:
    with db.transaction(force_rollback=True):
        # Small tables are scanned whatever index they have; the question is whether the index can serve.
        db.execute("SET LOCAL enable_seqscan = off")
        rows: Sequence[dict[str, str]] = db.execute(b"EXPLAIN " + statement, parameters).fetchall()
    return "\n".join(row["QUERY PLAN"] for row in rows)


def test_a_shard_is_cleared_by_its_index(db: Connection) -> None:
    statements = composed(db, Disposition.APPEND)
    assert "things_task_shard" in plan(db, statements.clear, {"task_id": 1, "shard_no": 2})


def test_a_merge_finds_its_rows_by_the_primary_key_and_writes_in_its_order(db: Connection) -> None:
    found = plan(db, composed(db, Disposition.MERGE).land_staged, {"since": None})
    assert "Conflict Arbiter Indexes: things_pkey" in found
    assert "Sort Key: landing_" in found


def test_staged_rows_are_appended_as_they_came(db: Connection) -> None:
    assert "_ordinal" in plan(db, composed(db, Disposition.APPEND).land_staged)


def test_casting_an_empty_page_finds_no_faults(db: Connection) -> None:
    statements = composed(db, Disposition.APPEND)
    db.execute(statements.cast)
    assert db.execute(statements.faults).fetchall() == []


@pytest.mark.parametrize(
    ("name", "index", "parameters"),
    [
        ("clear_bad_rows", "bad_row_shard", {"task_id": 1, "shard_no": 1}),
        ("mark_swapped", "landing_target_pkey", {"task_id": 1, "table_name": "things"}),
        ("lock_target", "landing_target_pkey", {"table_name": "things"}),
        (
            "describe_relation",
            "pg_class_relname_nsp_index",
            {"schema_name": "landing", "table_name": "things"},
        ),
        ("describe_key", "pg_class_relname_nsp_index", {"schema_name": "landing", "table_name": "things"}),
    ],
)
def test_the_statement_files_use_the_index_they_name(
    db: Connection, name: str, index: str, parameters: dict[str, object]
) -> None:
    assert index in plan(db, query(f"landing/{name}").encode(), parameters)
