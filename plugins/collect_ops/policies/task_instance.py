"""Priority weight and Celery queue of a collect run's task instances, from the run's conf.

Airflow calls the hook several times a task instance, in the scheduler and the api-server, first without the run: it
reads nothing but the conf, does no I/O and gives the same answer each time (a Redis that does not answer would stall
the scheduler by seconds; measured).
"""

from __future__ import annotations

import os
from typing import Any

from collect_ops.nodes.queues import is_node_id, node_queue

#: Between two priorities: room for the order of groups within one.
WEIGHT_STEP = 1_000
SHARD_GROUP_TASK_ID = "collect"
#: Planning and settling go before every shard group, the more urgent task's first.
CONTROL_WEIGHT = 100_000
COLLECT_DAG_PREFIX = "collect_"
#: `include/rules/lanes.yaml` names it; a policy reads no files.
CONTROL_POOL = "collect_control"
#: The queue of a worker that no worker host's failure touches, where there is one; read when Airflow starts.
CONTROL_QUEUE = os.environ.get("COLLECT_CONTROL_QUEUE") or None


def task_instance_mutation_hook(task_instance: Any, dag_run: Any = None) -> None:
    """Give the task instances of a collect run the weight of their task's priority (0-10), and groups their node."""
    if CONTROL_QUEUE is not None and task_instance.pool == CONTROL_POOL:
        task_instance.queue = CONTROL_QUEUE
    conf = getattr(dag_run, "conf", None)
    # A DAG of somebody else's may be called collect_taxes, and have a conf with tasks: a claim's conf names its lane.
    if not isinstance(conf, dict) or "tasks" not in conf:
        return
    if task_instance.dag_id != f"{COLLECT_DAG_PREFIX}{conf.get('lane')}":
        return
    is_group = task_instance.task_id == SHARD_GROUP_TASK_ID
    if is_group:
        _place(task_instance, conf.get("nodes"))
    priority = conf.get("priority")
    if type(priority) is not int:
        return
    own = max(0, min(10, priority))
    task_instance.priority_weight = (own + 1) * WEIGHT_STEP if is_group else CONTROL_WEIGHT + own


def _place(task_instance: Any, nodes: object) -> None:
    """Send a shard group to the queue of a node: the map index says which of the run's, modulo their number."""
    if isinstance(nodes, list) and nodes and all(is_node_id(node_id) for node_id in nodes):
        task_instance.queue = node_queue(nodes[max(0, task_instance.map_index) % len(nodes)])
