"""`retention`: what the form gives reaches the pass, and the report is its result."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

from collect_ops.operators.retention import RetentionOperator
from tests.dags.test_dead_letters_operator import connections
from tests.plugins.integration.conftest import (  # noqa: F401 - fixtures
    backends,
    clean_vhost,
    collect_amqp_url,
    databases,
    postgres_dsn,
    redis_url,
    rules,
    session_vhost,
    template_database,
    world,
)
from tests.plugins.integration.maintenance.filled import add_tasks, remaining
from tests.plugins.integration.world import World


def execute(dags: Mapping[str, DAG], **conf: Any) -> Any:
    """What a run with this conf does."""
    dag = dags["retention"]
    params = {**{name: dag.params[name] for name in dag.params}, **conf}
    task = dag.get_task("delete").prepare_for_execution()
    assert isinstance(task, RetentionOperator)
    task.render_template_fields({"params": params})  # type: ignore[typeddict-item]
    ti = SimpleNamespace(dag_id="retention", run_id="r1", task_id="delete", xcom_push=lambda *_: None)
    return task.execute({"ti": ti, "dag_run": SimpleNamespace(conf=conf)})  # type: ignore[typeddict-item]


def test_from_dry_run_to_deleting(
    world: World,  # noqa: F811
    dags: Mapping[str, DAG],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, connection in connections(world).items():
        monkeypatch.setenv(f"AIRFLOW_CONN_COLLECT_{name}", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path))
    old = tmp_path / "old.log"
    old.write_text("x")
    os.utime(old, (time.time() - 40 * 86_400,) * 2)
    from collect_ops.storage import connect

    with connect(world.backends.postgres_dsn) as db:
        ids = add_tasks(db, 3)
        dry = execute(dags, dry_run=True, time_limit_s=60)
        assert (dry["dry_run"], dry["deleted"]["tasks"], dry["logs"]["files"]) == (True, 3, 1)
        assert remaining(db, ids) == set(ids)
        assert old.exists()
        done = json.loads(json.dumps(execute(dags)))
        assert (done["dry_run"], done["complete"], done["deleted"]["tasks"]) == (False, True, 3)
        assert remaining(db, ids) == set()
        assert not old.exists()
    for wrong in ({"dryrun": True}, {"time_limit_s": 0}):
        with pytest.raises(AirflowFailException):
            execute(dags, **wrong)
