"""`collect-ops retention --airflow` on the running stack: rows that are old go, fresh ones and live triggers stay."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from collect_ops.maintenance.airflow_records import TABLES
from collect_ops.maintenance.retention_rules import retention_rules
from stack import postgres
from stack.layout import Layout
from stack.settings import load
from tests.e2e.running_stack import RunningStack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
DAG = "lane_bulk"
#: Of a run: where its rows are, and the times that they are judged by.
OF_RUN = {
    "dag_run": ("run_after", "start_date", "end_date"),
    "task_instance": ("start_date", "end_date"),
    "xcom": ("timestamp",),
}


@pytest.fixture
def metadata(stack: RunningStack) -> Iterator[psycopg.Connection]:
    """Airflow's own database."""
    known = load(Layout(home=stack.settings.home))
    with postgres.connect(known, known.places["POSTGRES_AIRFLOW_DB"]) as connection:
        yield connection


def clean(stack: RunningStack, *options: str) -> dict[str, Any]:
    done = stack.command("collect_ops.cli", "retention", "--airflow", "--json", *options, timeout_s=200)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def counted(lines: Sequence[str]) -> dict[str, int]:
    """Rows that are old enough, by table, as `airflow db clean` says it."""
    found = re.findall(r"^Checking table (\w+)\nFound (\d+) rows", "\n".join(lines), flags=re.MULTILINE)
    return {table: int(rows) for table, rows in found}


def ended_runs(stack: RunningStack, number: int) -> list[str]:
    run_ids = [f"retention.{uuid.uuid4().hex}" for _ in range(number)]
    for run_id in run_ids:
        assert stack.trigger(DAG, {}, run_id=run_id).status_code == 200
    for run_id in run_ids:
        assert stack.run_ended(DAG, run_id, 120)["state"] == "success"
    return run_ids


def rows_of(metadata: psycopg.Connection, run_id: str) -> set[str]:
    """The tables that have rows of a run."""
    return {
        table
        for table in OF_RUN
        if metadata.execute(f"SELECT FROM {table} WHERE dag_id = %s AND run_id = %s", [DAG, run_id]).rowcount  # type: ignore[arg-type]
    }


def ids_of(metadata: psycopg.Connection, statement: str, *values: object) -> list[int]:
    return [number for (number,) in metadata.execute(statement, values).fetchall()]  # type: ignore[arg-type]


def test_a_run_that_has_not_ended_stays(stack: RunningStack, metadata: psycopg.Connection) -> None:
    age = timedelta(days=retention_rules().airflow.metadata + 1)
    dag_id, run_id = "retention", f"retention.{uuid.uuid4().hex}"
    (ended,) = ended_runs(stack, 1)
    # Of a DAG that is paused nothing goes on: as one whose task has been held for a month.
    with stack.paused(dag_id):
        assert stack.trigger(dag_id, {}, run_id=run_id).status_code == 200
        older = (
            "UPDATE dag_run SET state = %s, run_after = now() - %s, start_date = now() - %s WHERE run_id = %s"
        )
        metadata.execute(older, ["running", age, age, run_id])
        metadata.execute(older, ["success", age / 2, age / 2, ended])
        done = clean(stack)
        assert any(run_id in line for line in done["metadata"])
        left = metadata.execute(
            "SELECT run_id FROM dag_run WHERE run_id = ANY(%s)", [[run_id, ended]]
        ).fetchall()
        assert {found for (found,) in left} == {run_id, ended}
        metadata.execute(older, ["success", age, age, run_id])
        assert stack.rest("DELETE", f"/dags/{dag_id}/dagRuns/{run_id}").status_code == 204


def test_old_rows_go_fresh_ones_and_live_triggers_stay(
    stack: RunningStack, metadata: psycopg.Connection
) -> None:
    age = timedelta(days=retention_rules().airflow.metadata + 1)
    old, fresh = ended_runs(stack, 2)
    assert rows_of(metadata, old) == rows_of(metadata, fresh) == set(OF_RUN)
    for table, columns in OF_RUN.items():
        moved = ", ".join(f"{column} = {column} - %(age)s" for column in columns)
        statement = f"UPDATE {table} SET {moved} WHERE dag_id = %(dag)s AND run_id = %(run)s"
        metadata.execute(statement, {"age": age, "dag": DAG, "run": old})  # type: ignore[arg-type]
    fresh_entry, old_entry = ids_of(metadata, "SELECT id FROM log ORDER BY id DESC LIMIT 2")
    metadata.execute("UPDATE log SET dttm = dttm - %s WHERE id = %s", [age, old_entry])
    # What watches queues has done so since the stack was made.
    watching = ids_of(
        metadata,
        "UPDATE trigger SET created_date = created_date - %s "
        "WHERE id IN (SELECT trigger_id FROM asset_watcher) RETURNING id",
        age,
    )
    assert watching
    entries, triggers = "SELECT id FROM log WHERE id = ANY(%s)", "SELECT id FROM trigger WHERE id = ANY(%s)"

    would = clean(stack, "--dry-run")
    found = counted(would["metadata"])
    assert would["dry_run"] is True
    assert found.keys() <= set(TABLES), "neither triggers nor DAGs"
    assert all(found[table] for table in ("dag_run", "task_instance", "xcom", "log"))
    assert rows_of(metadata, old) == set(OF_RUN), "a dry run deletes nothing"
    assert set(ids_of(metadata, entries, [old_entry, fresh_entry])) == {old_entry, fresh_entry}

    done = clean(stack)
    assert done["dry_run"] is False
    assert rows_of(metadata, old) == set()
    assert rows_of(metadata, fresh) == set(OF_RUN)
    assert ids_of(metadata, entries, [old_entry, fresh_entry]) == [fresh_entry]
    assert set(ids_of(metadata, triggers, watching)) == set(watching)
    archives = "SELECT FROM information_schema.tables WHERE table_name LIKE %s"
    assert metadata.execute(archives, [r"\_airflow\_deleted\_%"]).rowcount == 0
