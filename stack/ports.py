"""The ports of a stack: a block derived from its folder, so that two checkouts seldom meet."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from stack.faults import BadSetting, StackError

# Below 32768, where Linux begins to hand out ports to outgoing connections.
LOWEST, HIGHEST, BLOCK = 20_000, 32_000, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """One port a listening service, all on 127.0.0.1; some on further addresses as well."""

    postgres: int
    redis: int
    rabbitmq: int
    rabbitmq_management: int
    rabbitmq_distribution: int
    epmd: int
    api_server: int

    @classmethod
    def from_base(cls, base: int) -> Ports:
        """Consecutive ports from `base` on."""
        return cls(**{field.name: base + offset for offset, field in enumerate(fields(cls))})

    def overridden(self, environment: Mapping[str, str]) -> Ports:
        """These ports, with what POSTGRES_PORT, REDIS_PORT, … say instead.

        Raises:
            BadSetting: a variable is not a port number.
        """
        named = {
            field.name: port_number(variable, environment[variable])
            for field in fields(self)
            if (variable := variable_of(field.name)) in environment
        }
        return replace(self, **named)

    def as_dict(self) -> dict[str, int]:
        """Name to port, in order."""
        return asdict(self)


def variable_of(name: str) -> str:
    """The environment variable that sets a port (`postgres` → `POSTGRES_PORT`)."""
    return f"{name.upper()}_PORT"


def port_number(variable: str, value: str) -> int:
    """The port that an environment variable names.

    Raises:
        BadSetting: it is not a number from 1024 to 65535.
    """
    if not value.isdecimal() or not 1024 <= int(value) <= 65_535:
        raise BadSetting(variable, value, "a port number from 1024 to 65535")
    return int(value)


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Whether nobody listens on this port of an address or of all addresses."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def choose(stack_id: str, environment: Mapping[str, str] = os.environ) -> Ports:
    """Ports for a new stack: PORT_BASE when set, else the first free block from a start derived from its id.

    Raises:
        BadSetting: PORT_BASE or a port variable is not a port.
        StackError: no block is free.
    """
    if "PORT_BASE" in environment:
        return Ports.from_base(port_number("PORT_BASE", environment["PORT_BASE"])).overridden(environment)
    blocks = (HIGHEST - LOWEST) // BLOCK
    start = int(stack_id, 16) % blocks
    for step in range(blocks):
        ports = Ports.from_base(LOWEST + (start + step) % blocks * BLOCK)
        if all(is_free(port) for port in ports.as_dict().values()):
            return ports.overridden(environment)
    raise StackError(f"no {BLOCK} free ports in a row from {LOWEST} to {HIGHEST}; set PORT_BASE")
