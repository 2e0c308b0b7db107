"""Runs DAGs by `dag.test()` and prints what came of them, a line of JSON: a process of its own, with its own metadata.

`python -m tests.dags.run_dag DAG_ID=CONF …` with CONF as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

DAGS = Path(__file__).resolve().parents[2] / "dags"


def run(dag: Any, conf: dict[str, Any]) -> dict[str, Any]:
    """One run: its state, and state and result of each task instance by task."""
    done = dag.test(run_conf=conf)
    tasks = {
        each.task_id: {"state": each.state, "result": each.xcom_pull(task_ids=each.task_id)}
        for each in done.get_task_instances()
    }
    return {"dag_id": dag.dag_id, "state": done.state, "tasks": tasks}


def main() -> None:
    """Run what the arguments name, one after the other."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]
    bag = DagBag(dag_folder=DAGS)
    sync_bag_to_db(bag, "dags-folder", None)
    for argument in sys.argv[1:]:
        dag_id, _, conf = argument.partition("=")
        print("RESULT " + json.dumps(run(bag.dags[dag_id], json.loads(conf)), default=str), flush=True)


if __name__ == "__main__":
    main()
