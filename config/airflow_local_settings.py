"""What every Airflow process imports at start: preloading and the cluster policy.

Preloading is for the processes that fork: tasks, and the dag-processor's parsers. A task's own start falls from about
2.5 s to 0.07 s when its parent has already imported what DAGs and tasks need; claim to first shard group fell from
3.45 s to 1.07 s. A parser imports nothing anew for each look at each file, which at one every half minute took 8 % of
a core.
Nothing here may open a socket or start a thread: the parent forks.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from collect_ops.policies.task_instance import task_instance_mutation_hook

__all__ = ["task_instance_mutation_hook"]


def forks(arguments: Sequence[str], executor: str) -> bool:
    """Whether a command of Airflow's forks tasks or parsers, which import what our DAGs do.

    A Celery worker, the dag-processor, and the scheduler unless it leaves tasks to workers.
    """
    if "celery" in arguments or "dag-processor" in arguments:
        return True
    return "scheduler" in arguments and "CeleryExecutor" not in executor


PRELOAD = (
    "airflow.dag_processing.dagbag",
    "airflow.providers.postgres.hooks.postgres",
    "airflow.providers.redis.hooks.redis",
    "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.operators.python",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.triggers.base",
    "aiohttp",
    "collect_ops.policies.dag_bundle",
    "jmespath",
    "orjson",
    "pika",
    "psycopg",
    "psycopg_pool",
    "pydantic",
    "redis",
    "yaml",
)

if runs_ours := forks(sys.argv, os.environ.get("AIRFLOW__CORE__EXECUTOR", "")):
    for module in PRELOAD:
        importlib.import_module(module)
if runs_ours or "triggerer" in sys.argv:
    from collect_ops.policies.preloading import read_everything

    read_everything()
