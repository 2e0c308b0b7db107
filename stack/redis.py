"""Redis: leases, dedup and wake-ups. Losing all of it costs time, never a task or a row."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from stack import access, agent, servers
from stack.access import RedisUser
from stack.credentials import write_private
from stack.env_files import CONFIG
from stack.faults import MissingProgram
from stack.settings import HOST, Stack

if TYPE_CHECKING:
    import redis


def configure(stack: Stack) -> None:
    """Write the configuration; it holds the password, so only its owner can read it."""
    data = stack.layout.data / "redis"
    data.mkdir(mode=0o700, exist_ok=True)
    lines = [
        f'include "{CONFIG / "redis.conf"}"',
        f"bind {' '.join(stack.addresses)}",
        f"port {stack.ports.redis}",
        f'requirepass "{stack.secrets["REDIS_PASSWORD"]}"',
        *(f"user {user.name} {' '.join(rules_of(user))}" for user in users(stack)),
        f'dir "{data}"',
        "daemonize no",
        'logfile ""',
    ]
    write_private(stack.layout.etc / "redis.conf", "\n".join(lines) + "\n")


def users(stack: Stack) -> tuple[RedisUser, ...]:
    """Whoever may log in beside the default user, which is the stack's own."""
    nodes = (
        access.node_redis_user(stack.secrets, node_id, stack.generation(node_id))
        for node_id in stack.granted_nodes
    )
    return (*access.redis_users(stack.secrets), *nodes)


def rules_of(user: RedisUser) -> list[str]:
    """What ACL SETUSER is told: this password and these rules, and nothing from before."""
    return ["reset", "on", f"#{hashlib.sha256(user.password.encode()).hexdigest()}", *user.rules]


def set_users(stack: Stack) -> None:
    """Tell a running server who may log in; repeatable. Its configuration says the same at its next start."""
    with _connect(stack) as link:
        for user in users(stack):
            link.execute_command("ACL", "SETUSER", user.name, *rules_of(user))


def remove_user(stack: Stack, node_id: str) -> None:
    """End a node's sessions, forget its user, and its sign of life."""
    with _connect(stack) as link:
        link.execute_command("ACL", "DELUSER", access.node_user(node_id))
        link.delete(agent.liveness_key(node_id))


def version(stack: Stack) -> str:
    """Of the running server."""
    with _connect(stack) as link:
        return str(link.info("server")["redis_version"])


def _connect(stack: Stack) -> redis.Redis:
    import redis  # it brings all of OpenTelemetry, and every program of a stack is started by this package

    return redis.Redis(
        host=HOST, port=stack.ports.redis, password=stack.secrets["REDIS_PASSWORD"], socket_timeout=5
    )


def command(stack: Stack) -> list[str]:
    """What to execute.

    Raises:
        MissingProgram: Redis is not installed.
    """
    server = servers.which(stack, "redis-server")
    if server is None:
        raise MissingProgram("redis-server", "redis-server")
    return servers.command(stack, [server, str(stack.layout.etc / "redis.conf")])
