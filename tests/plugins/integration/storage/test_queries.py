"""Every statement plans against the schema; the hot ones through their index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from collect_ops.storage import Connection, connect, sql
from collect_ops.storage.queries import queries_dir
from tests.plugins.integration.databases import new_database

FILES = sorted(path for path in queries_dir().rglob("*.sql") if "-- Template:" not in path.read_text())
#: Statements that run for every message, page or minute, and the indexes of which one must carry them.
HOT = {
    "lanes/lock_named": ("task_pkey", "task_open", "task_waiting"),
    "lanes/select_others": ("task_pkey",),
    "lanes/claim_tasks": ("task_pkey", "task_open", "task_waiting"),
    "lanes/select_room": ("shard_group_open",),
    "lanes/select_hosts": ("host_pkey",),
    "lanes/select_first_held": ("task_held",),
    "lanes/has_held": ("task_held",),
    "lanes/release_held": ("task_held",),
    "lanes/lock_quota": ("host_quota_pkey",),
    "execution/fence_shard": ("shard_pkey",),
    "execution/take_shard": ("shard_pkey",),
    "execution/advance_shard": ("shard_pkey",),
    "execution/select_group_shards": ("shard_by_group",),
    "execution/steal_shards": ("shard_by_group",),
    "execution/select_owned": ("shard_by_group",),
    "execution/select_owner": ("shard_pkey",),
    "execution/select_pace": ("source_pace_pkey",),
    "execution/record_pace": ("shard_pkey",),
    "landing/select_epoch": ("landing_target_pkey",),
    "landing/recall_page": ("page_validator_pkey",),
    "landing/vouch_page": ("page_validator_pkey",),
    "landing/forget_page": ("page_validator_pkey",),
    "landing/prune_validators": ("page_validator_seen",),
    "delivery/select_unconfirmed": ("task_outbox",),
    "delivery/select_stalled": ("task_open",),
    "delivery/republish_overdue": ("task_waiting",),
    "execution/lock_running": ("task_pkey",),
    "admission/select_answers": ("submission_pkey",),
    "admission/select_holders": ("dedup_pkey",),
    "maintenance/lock_old_tasks": ("task_finished",),
    "maintenance/select_old_tasks": ("task_finished",),
    "maintenance/judge_tasks": ("task_pkey",),
    "maintenance/lock_keys": ("dedup_task",),
    "maintenance/delete_tasks": ("task_pkey",),
    "maintenance/delete_traces": ("trace_task",),
    "maintenance/delete_bad_rows": ("bad_row_shard",),
    "maintenance/delete_groups": ("shard_group_closed",),
    "maintenance/delete_events": ("event_pkey",),
    "maintenance/delete_node_log": ("node_log_pkey",),
    "maintenance/delete_backlog_actions": ("backlog_action_pkey",),
    "maintenance/delete_redrives": ("redrive_pkey",),
    "maintenance/delete_message_letters": ("dead_letter_once", "dead_letter_failed"),
}


@pytest.fixture(scope="module")
def planner(template_database: str) -> Iterator[Connection]:
    """A database that is only asked for plans."""
    with new_database("plans", template_database) as (_, dsn), connect(dsn) as connection:
        yield connection


def name_of(path: Path) -> str:
    return path.relative_to(queries_dir()).with_suffix("").as_posix()


def plan_of(db: Connection, path: Path) -> str:
    """The plan with every parameter NULL: parameters become those of a prepared statement, so that types are found."""
    text = path.read_text()
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
    for number, name in enumerate(names, 1):
        text = text.replace(f"%({name})s", f"${number}")
    text = text.replace("%%", "%")
    with db.transaction():
        db.execute("SET LOCAL enable_seqscan = off")
        db.execute("SET LOCAL enable_hashjoin = off")
        db.execute("SET LOCAL enable_mergejoin = off")
        db.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        db.execute(sql.SQL("PREPARE looked_at AS {}").format(sql.SQL(text)))  # type: ignore[arg-type]
        nulls = f"({', '.join(['NULL'] * len(names))})" if names else ""
        rows = db.execute(f"EXPLAIN EXECUTE looked_at{nulls}").fetchall()
        db.execute("DEALLOCATE looked_at")
    return "\n".join(str(next(iter(row.values()))) for row in rows)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_statement_plans_and_has_a_header(planner: Connection, path: Path) -> None:
    assert path.read_text().startswith("-- ")
    plan = plan_of(planner, path)
    assert plan
    indexes = HOT.get(name_of(path))
    if indexes is not None:
        assert any(index in plan for index in indexes), plan
        assert "Seq Scan" not in plan, plan


def test_the_hot_statements_exist() -> None:
    assert set(HOT) <= {name_of(path) for path in FILES}
