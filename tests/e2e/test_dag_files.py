"""What DAG files read is looked at as they are: a declared source, a faulty one, a DAG that was paused."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.running_stack import CHECKOUT, RunningStack, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

#: Seconds until a change shows. DAG files are parsed by themselves much less often (config/airflow.env).
SHOWN_WITHIN_S = 60
DECLARED = """
name: {name}
connection: example_api
request:
  path: /single
records: rows
paging:
  type: none
target:
  table: {name}
  disposition: {disposition}
"""


@pytest.fixture
def file() -> Iterator[Path]:
    """Where a source may be declared; gone after the test."""
    path = CHECKOUT / "include" / "sources" / f"declared_{uuid.uuid4().hex[:8]}.yaml"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def metadata() -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Airflow's metadata database."""
    url = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    with psycopg.connect(url.replace("+psycopg2", "").replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


def test_a_declared_source_has_its_dag_and_a_faulty_one_its_import_error(
    stack: RunningStack, file: Path
) -> None:
    dag = f"/dags/source_{file.stem}"
    assert stack.rest("GET", dag).status_code == HTTPStatus.NOT_FOUND
    declare(file, "append")
    wait_for("the source's DAG", lambda: stack.rest("GET", dag).status_code == HTTPStatus.OK, SHOWN_WITHIN_S)
    declare(file, "appended")
    wait_for("its fault", lambda: file.name in import_errors(stack), SHOWN_WITHIN_S)
    file.unlink()
    wait_for("the fault's end", lambda: file.name not in import_errors(stack), SHOWN_WITHIN_S)
    wait_for("the DAG's end", lambda: stack.rest("DELETE", dag).status_code == HTTPStatus.NO_CONTENT, 60)


def declare(file: Path, disposition: str) -> None:
    file.write_text(DECLARED.format(name=file.stem, disposition=disposition), encoding="utf-8")


def import_errors(stack: RunningStack) -> str:
    """What stands under Dag Import Errors."""
    answer = stack.rest("GET", "/importErrors?limit=100")
    assert answer.status_code == HTTPStatus.OK, answer.text
    return " ".join(str(error["stack_trace"]) for error in answer.json()["import_errors"])


def test_a_dag_that_airflow_takes_for_full_is_looked_at_again(
    stack: RunningStack, metadata: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """As a parse leaves it that has counted a run which ended meanwhile."""
    full = "SELECT FROM dag WHERE dag_id = 'collect_inbox' AND exceeds_max_non_backfill"
    metadata.execute("UPDATE dag SET exceeds_max_non_backfill = true WHERE dag_id = 'collect_inbox'")
    wait_for("another count", lambda: metadata.execute(full).rowcount == 0, SHOWN_WITHIN_S)


def test_a_lane_that_is_unpaused_is_watched_again(
    stack: RunningStack, metadata: psycopg.Connection[tuple[Any, ...]]
) -> None:
    def watched() -> bool:
        return metadata.execute("SELECT FROM asset_watcher WHERE name = 'queue_bulk'").rowcount == 1

    wait_for("the lane being watched", watched, SHOWN_WITHIN_S)
    with stack.paused("lane_bulk"):
        wait_for("the lane not being watched", lambda: not watched(), SHOWN_WITHIN_S)
    wait_for("the lane being watched again", watched, SHOWN_WITHIN_S)
