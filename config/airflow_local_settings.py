"""What every Airflow process imports at start: preloading and the cluster policy.

Preloading is for the processes that fork tasks. A task's own start falls from about 2.5 s to 0.07 s when its
parent has already imported what DAGs and tasks need; claim to first shard group fell from 3.45 s to 1.07 s.
Nothing here may open a socket or start a thread: the parent forks.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from collect_ops.policies.task_instance import task_instance_mutation_hook

__all__ = ["task_instance_mutation_hook"]


def forks_tasks(arguments: Sequence[str], executor: str) -> bool:
    """Whether a command of Airflow's forks tasks: a Celery worker, and the scheduler unless it leaves that to them."""
    return "celery" in arguments or ("scheduler" in arguments and "CeleryExecutor" not in executor)


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
    "jmespath",
    "orjson",
    "pika",
    "psycopg",
    "psycopg_pool",
    "pydantic",
    "redis",
    "yaml",
    # What our own DAGs import at top level, and with it everything a shard group runs.
    "collect_ops.operators.lane",
    "collect_ops.operators.submit",
    "collect_ops.delivery.sweep",
    "collect_ops.sources.load",
)

if forks_tasks(sys.argv, os.environ.get("AIRFLOW__CORE__EXECUTOR", "")):
    for module in PRELOAD:
        importlib.import_module(module)
