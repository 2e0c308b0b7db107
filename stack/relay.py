"""Relays: socat listens on a further address for servers that can bind one address only.

Those are Airflow's api-server (uvicorn) and RabbitMQ's management; PostgreSQL, Redis and AMQP listen on several.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping

from stack.faults import MissingProgram
from stack.settings import HOST, Stack

SERVICES: Mapping[str, Callable[[Stack], int]] = {
    "api": lambda stack: stack.ports.api_server,
    "management": lambda stack: stack.ports.rabbitmq_management,
}


def name_of(service: str, number: int) -> str:
    """A relay's name; `number` counts the further addresses."""
    return f"relay-{service}" if number == 0 else f"relay-{service}-{number + 1}"


def port(stack: Stack, service: str) -> int:
    """The port that it listens on and that it connects to."""
    return SERVICES[service](stack)


def command(stack: Stack, service: str, number: int) -> list[str]:
    """What to execute.

    Raises:
        MissingProgram: socat is not installed.
    """
    socat = shutil.which("socat", path="/usr/bin:/usr/local/bin:/bin")
    if socat is None:
        raise MissingProgram("socat", "socat")
    address, at = stack.nodes.addresses[number], port(stack, service)
    # -T: a connection on which nothing moves for an hour is given up; a peer that was cut off would leave it for ever.
    listen = f"TCP-LISTEN:{at},bind={address},reuseaddr,fork,backlog=128"
    return [socat, "-T", "3600", listen, f"TCP:{HOST}:{at},nodelay"]
