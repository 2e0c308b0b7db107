"""Redis: leases, dedup and wake-ups. Losing all of it costs time, never a task or a row."""

from __future__ import annotations

import shutil

from stack.credentials import write_private
from stack.env_files import CONFIG
from stack.faults import MissingProgram
from stack.settings import Stack


def configure(stack: Stack) -> None:
    """Write the configuration; it holds the password, so only its owner can read it."""
    data = stack.layout.data / "redis"
    data.mkdir(mode=0o700, exist_ok=True)
    lines = [
        f'include "{CONFIG / "redis.conf"}"',
        f"bind {' '.join(stack.addresses)}",
        f"port {stack.ports.redis}",
        f'requirepass "{stack.secrets["REDIS_PASSWORD"]}"',
        f'dir "{data}"',
        "daemonize no",
        'logfile ""',
    ]
    write_private(stack.layout.etc / "redis.conf", "\n".join(lines) + "\n")


def command(stack: Stack) -> list[str]:
    """What to execute.

    Raises:
        MissingProgram: Redis is not installed.
    """
    server = shutil.which("redis-server")
    if server is None:
        raise MissingProgram("redis-server", "redis-server")
    return [server, str(stack.layout.etc / "redis.conf")]
