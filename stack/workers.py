"""The worker beside the scheduler; worker hosts: the Celery worker and agent of each, and the worker of control tasks.

Control tasks (claiming, planning, settling, sweeping) have a worker and a queue of their own, beside the
scheduler: a worker host that is cut off or stopped must hold none of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from collect_ops.lanes.rules import lane_rules
from collect_ops.nodes.forked_pools import Pool
from collect_ops.nodes.queues import node_queue
from stack import airflow, environment, network
from stack.settings import HOST, Stack

CONTROL_QUEUE = "control"
#: Beside a node's shard groups: tasks of source DAGs and of your own, which go to the queue `default`.
OTHER_TASKS = 2
#: Processes for control tasks beside those that plans may fill. The pool may hand out more tasks, which then wait for
#: some tenths of a second.
FREE_CONTROL_TASKS = 2
#: What only servers need: whoever has a worker's environment shall not have these secrets as well.
FOR_SERVERS = (
    "AIRFLOW__API__HOST",
    "AIRFLOW__API__PORT",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
)
WORKER_FLAGS = ("--skip-serve-logs", "--without-mingle", "--without-gossip")


def lane_slots() -> int:
    """Shard groups that the lanes' pools let run at once."""
    return sum(lane.slots for lane in lane_rules().lanes.values())


def control_tasks() -> int:
    """Control tasks that run at once: all plans that may, and claims, settling and sweeping beside them."""
    rules = lane_rules()
    return len(rules.lanes) * rules.control.plans + FREE_CONTROL_TASKS


def slots(stack: Stack) -> int:
    """Shard groups that a node runs at once."""
    return stack.nodes.slots or lane_slots()


def host_of(stack: Stack) -> str:
    """Where a node reaches the services."""
    return stack.nodes.bridge or HOST


def local_pools() -> tuple[Pool, Pool]:
    """The pools of the worker beside the scheduler: control tasks, and everything else."""
    return (
        Pool(name="control", queues=CONTROL_QUEUE, concurrency=control_tasks()),
        Pool(name="groups", queues="default", concurrency=lane_slots() + OTHER_TASKS),
    )


def local_command(_: Stack) -> list[str]:
    """The worker beside the scheduler, which runs all tasks while there are no worker hosts."""
    return [
        sys.executable,
        "-m",
        "collect_ops.policies.worker_pools",
        "celery",
        *(str(pool) for pool in local_pools()),
    ]


def local_environment(stack: Stack) -> dict[str, str]:
    """What the worker beside the scheduler gets."""
    return {**without_server_settings(environment.airflow(stack)), **WORKER_SETTINGS}


def worker_environment(stack: Stack, node_id: str) -> dict[str, str]:
    """What a node's worker and agent get: other addresses, and folders of the node's own."""
    folder, host = stack.layout.nodes / node_id, host_of(stack)
    return {
        **without_server_settings(environment.airflow(stack, host, stack.node_places(node_id, host))),
        **WORKER_SETTINGS,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "COLLECT_NODE_ID": node_id,
        "COLLECT_NODE_PATH": str(folder / "tmp"),
    }


#: A folder of DAGs has no stale versions to clear away: no process for that.
WORKER_SETTINGS = {"AIRFLOW__DAG_PROCESSOR__STALE_BUNDLE_CLEANUP_INTERVAL": "0"}


def without_server_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """What a worker gets of them: it signs nothing, and gets connections decrypted from the api-server."""
    return {key: value for key, value in variables.items() if key not in FOR_SERVERS}


def make_folders(stack: Stack, node_id: str) -> None:
    """The folders that `worker_environment` names; harmless when they are there."""
    for name in ("airflow", "home", "tmp"):
        (stack.layout.nodes / node_id / name).mkdir(mode=0o700, parents=True, exist_ok=True)


def worker_command(stack: Stack, node_id: str) -> list[str]:
    """A node's Celery worker."""
    command = celery(
        queues=f"default,{node_queue(node_id)}",
        name=node_id,
        concurrency=slots(stack) + OTHER_TASKS,
        pid_file=str(stack.layout.nodes / node_id / "worker.pid"),
    )
    return network.inside(stack.layout, stack.nodes, node_id, command)


def agent_command(stack: Stack, node_id: str) -> list[str]:
    """A node's agent."""
    labels = [f"--label={name}={value}" for name, value in stack.nodes.labels.get(node_id, {}).items()]
    command = [sys.executable, "-m", "collect_ops.cli", "agent", "--slots", str(slots(stack)), *labels]
    return network.inside(stack.layout, stack.nodes, node_id, command)


def control_environment(stack: Stack) -> dict[str, str]:
    """What the worker of control tasks gets."""
    return {**environment.airflow(stack), **WORKER_SETTINGS}


def control_command(stack: Stack) -> list[str]:
    """The worker of control tasks."""
    return celery(
        queues=CONTROL_QUEUE,
        name=CONTROL_QUEUE,
        concurrency=control_tasks(),
        pid_file=str(stack.layout.run / "worker-control.pid"),
    )


def celery(*, queues: str, name: str, concurrency: int, pid_file: str) -> list[str]:
    """The command line of a Celery worker.

    Args:
        queues: Comma-separated.
        name: Before the host's name in the worker's.
        concurrency: Tasks at once.
        pid_file: Written by Celery; one that a killed worker left is overwritten, since its process is gone.
    """
    options = ("-q", queues, "-H", f"{name}@%h", "-c", str(concurrency), "--pid", pid_file)
    return [str(airflow.executable()), "celery", "worker", *options, *WORKER_FLAGS]
