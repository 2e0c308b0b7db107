"""What a worker on another machine needs: a file of addresses, passwords and settings."""

from __future__ import annotations

import importlib.metadata

from stack import environment, workers
from stack.faults import StackError
from stack.settings import HOST, Stack

HEADER = """\
# Made by `make join`: what a worker on another machine needs. It holds passwords: keep it as you would a private key.
# collect-ops worker --join THIS_FILE --node-id n2 --slots 4
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


def text(stack: Stack, address: str | None) -> str:
    """The file.

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
    variables = {
        key: value
        for key, value in workers.without_server_settings(environment.airflow(stack, host)).items()
        if not any(key.endswith(part) for part in OWN)
    }
    variables |= {
        # Reading its task logs from the web interface is allowed by a signature.
        "AIRFLOW__API__SECRET_KEY": stack.secrets["AIRFLOW_API_SECRET_KEY"],
        "COLLECT_JOIN_VERSION": importlib.metadata.version("collect-ops"),
        "COLLECT_JOIN_AIRFLOW_VERSION": importlib.metadata.version("apache-airflow-core"),
    }
    return HEADER + "".join(f"{key}={value}\n" for key, value in sorted(variables.items()))
