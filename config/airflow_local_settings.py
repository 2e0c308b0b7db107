"""What every Airflow process imports at start: preloading and the cluster policy.

Preloading is for the processes that fork: tasks, and the dag-processor's parsers. A task's own start falls from about
2.5 s to 0.07 s when its parent has already imported what DAGs and tasks need; claim to first shard group fell from
3.45 s to 1.07 s. A parser imports nothing anew every half minute and file: 8 % of a core on an idle stack.
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
    "jmespath",
    "orjson",
    "pika",
    "psycopg",
    "psycopg_pool",
    "pydantic",
    "redis",
    "yaml",
    # What our own DAGs import at top level, and with it everything a shard group runs.
    "collect_ops.operators.backlog",
    "collect_ops.operators.catalog",
    "collect_ops.operators.dead_letters",
    "collect_ops.operators.forms",
    "collect_ops.operators.inbox",
    "collect_ops.operators.lane",
    "collect_ops.operators.links",
    "collect_ops.operators.nodes",
    "collect_ops.operators.priority",
    "collect_ops.operators.submit",
    "collect_ops.triggers.heartbeats",
    "collect_ops.triggers.inbox",
    "collect_ops.triggers.lane",
    "collect_ops.triggers.recovery",
    "collect_ops.delivery.sweep",
    "collect_ops.sources.load",
)

if forks(sys.argv, os.environ.get("AIRFLOW__CORE__EXECUTOR", "")):
    for module in PRELOAD:
        importlib.import_module(module)
