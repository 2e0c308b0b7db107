"""Priority weight of a collect run's task instances, from the run's conf.

Airflow calls the hook several times a task instance, in the scheduler and the api-server, first without the run: it
reads nothing but the conf, does no I/O and gives the same answer each time (a Redis that does not answer would stall
the scheduler by seconds; measured).
"""

from __future__ import annotations

from typing import Any

#: Between two priorities: room for the order of groups within one.
WEIGHT_STEP = 1_000
SHARD_GROUP_TASK_ID = "collect"
#: Planning and settling go before every shard group, the more urgent task's first.
CONTROL_WEIGHT = 100_000
COLLECT_DAG_PREFIX = "collect_"


def task_instance_mutation_hook(task_instance: Any, dag_run: Any = None) -> None:
    """Give the task instances of a collect run the weight of their task's priority (0-10)."""
    if dag_run is None or not task_instance.dag_id.startswith(COLLECT_DAG_PREFIX):
        return
    conf = dag_run.conf if isinstance(dag_run.conf, dict) else {}
    priority = conf.get("priority")
    if "tasks" not in conf or type(priority) is not int:
        return
    own = max(0, min(10, priority))
    is_group = task_instance.task_id == SHARD_GROUP_TASK_ID
    task_instance.priority_weight = (own + 1) * WEIGHT_STEP if is_group else CONTROL_WEIGHT + own
