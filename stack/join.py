"""What a worker on another machine needs: a file of addresses, passwords and settings."""

from __future__ import annotations

import importlib.metadata

from stack import environment, workers
from stack.faults import StackError
from stack.settings import HOST, Stack

HEADER = """\
# Made by `make join N={node}`: what node {node} on another machine needs. It holds passwords: keep it as you would a
# private key. `make withdraw N={node}` makes them worthless.
# collect-ops worker --join THIS_FILE --slots 4
"""
# Folders of this machine.
OWN = (
    "AIRFLOW_HOME",
    "FOLDER",
    "PASSWORDS_FILE",
    "LOG_DIRECTORY",
    "PYTHONPATH",
    "AIRFLOW__API__HOST",
    "AIRFLOW__API__PORT",
)


def check(stack: Stack, address: str | None) -> str:
    """Where another machine would reach this stack.

    Args:
        stack: The stack, with worker hosts.
        address: This machine's, as the other one sees it; what LISTEN said when not given.

    Raises:
        StackError: The stack has no Celery workers, or nobody else can reach it.
    """
    host = address or stack.nodes.listen or stack.nodes.bridge
    if not stack.nodes.count:
        raise StackError("this stack has no Celery workers that another machine could join: NODES=1 make up")
    if host is None or host == HOST:
        raise StackError("the services listen on 127.0.0.1 only: LISTEN=<an address of this machine> make up")
    return host


def text(stack: Stack, node_id: str, address: str | None) -> str:
    """The file of a node.

    Args:
        stack: The stack, with worker hosts.
        node_id: Whose credentials it holds.
        address: See `check`.

    Raises:
        StackError: The stack cannot be joined.
    """
    host = check(stack, address)
    variables = {
        key: value
        for key, value in workers.without_server_settings(
            environment.airflow(stack, host, stack.node_places(node_id, host))
        ).items()
        if not any(key.endswith(part) for part in OWN)
    }
    variables |= {
        "COLLECT_NODE_ID": node_id,
        # Reading its task logs from the web interface is allowed by a signature.
        "AIRFLOW__API__SECRET_KEY": stack.secrets["AIRFLOW_API_SECRET_KEY"],
        "COLLECT_JOIN_VERSION": importlib.metadata.version("collect-ops"),
        "COLLECT_JOIN_AIRFLOW_VERSION": importlib.metadata.version("apache-airflow-core"),
    }
    lines = "".join(f"{key}={value}\n" for key, value in sorted(variables.items()))
    return HEADER.format(node=node_id) + lines
