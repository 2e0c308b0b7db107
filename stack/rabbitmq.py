"""RabbitMQ and its epmd: a node of its own on loopback, with the management plugin and no guest user."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import asdict
from pathlib import Path

from stack import access, servers
from stack.access import BrokerUser, Rights
from stack.credentials import write_private
from stack.env_files import CONFIG
from stack.faults import CommandFailed, MissingProgram
from stack.settings import HOST, Stack

# Debian's /usr/sbin/rabbitmq-server changes to the rabbitmq user, who cannot enter the stack's folder.
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def configure(stack: Stack) -> None:
    """Write configuration, plugins, cookie and definitions, which are loaded at every start; repeatable."""
    home, etc = stack.layout.data / "rabbitmq", stack.layout.etc
    home.mkdir(mode=0o700, exist_ok=True)
    cookie = home / ".erlang.cookie"
    if not cookie.exists():
        write_private(cookie, stack.secrets["RABBITMQ_ERLANG_COOKIE"], mode=0o400)
    write_private(etc / "rabbitmq.conf", _conf(stack))
    write_private(etc / "rabbitmq-definitions.json", json.dumps(_definitions(stack), indent=2))
    write_private(etc / "rabbitmq-plugins", "[rabbitmq_management].\n")
    # Debian's /etc/rabbitmq/rabbitmq-env.conf is for the system's node: an empty file takes its place.
    write_private(etc / "rabbitmq-env.conf", "")


def _conf(stack: Stack) -> str:
    lines = [
        (CONFIG / "rabbitmq.conf").read_text(),
        *(
            f"listeners.tcp.{number} = {address}:{stack.ports.rabbitmq}"
            for number, address in enumerate(stack.addresses, start=1)
        ),
        f"management.tcp.ip = {HOST}",
        f"management.tcp.port = {stack.ports.rabbitmq_management}",
        # With definitions at hand the node makes no default user: there is no guest.
        f"load_definitions = {stack.layout.etc / 'rabbitmq-definitions.json'}",
    ]
    return "\n".join(lines) + "\n"


def users(stack: Stack) -> tuple[BrokerUser, ...]:
    """Whoever may log in beside the owner."""
    nodes = (
        access.node_broker_user(stack.secrets, node_id, stack.generation(node_id))
        for node_id in stack.granted_nodes
    )
    return (
        access.control_user(stack.secrets),
        access.person_user(stack.secrets),
        access.monitor_user(stack.secrets),
        *nodes,
    )


def _definitions(stack: Stack) -> dict[str, object]:
    places = stack.places
    owner, vhosts = places["RABBITMQ_USER"], (places["RABBITMQ_VHOST"], places["RABBITMQ_CELERY_VHOST"])
    everything = asdict(Rights(configure=".*", write=".*", read=".*"))
    return {
        "users": [
            # Makes virtual hosts, users and queues; no process that runs logs in as this user.
            {"name": owner, "tags": "administrator", **_hashed(places["RABBITMQ_PASSWORD"])},
            *({"name": user.name, "tags": user.tags, **_hashed(user.password)} for user in users(stack)),
        ],
        "vhosts": [{"name": vhost} for vhost in vhosts],
        "permissions": [
            *({"user": owner, "vhost": vhost, **everything} for vhost in vhosts),
            *(
                {"user": user.name, "vhost": vhost, **asdict(rights)}
                for user in users(stack)
                for vhost, rights in _rights(stack, user).items()
            ),
        ],
    }


def _rights(stack: Stack, user: BrokerUser) -> dict[str, Rights]:
    both = {"RABBITMQ_VHOST": user.collect, "RABBITMQ_CELERY_VHOST": user.celery}
    return {stack.places[name]: rights for name, rights in both.items() if rights is not None}


def _hashed(password: str) -> dict[str, str]:
    return {"password_hash": password_hash(password), "hashing_algorithm": "rabbit_password_hashing_sha256"}


def set_users(stack: Stack) -> None:
    """Tell a running node who may log in; repeatable. Its definitions say the same at its next start.

    Raises:
        CommandFailed: It refused.
    """
    write_private(stack.layout.etc / "rabbitmq-definitions.json", json.dumps(_definitions(stack), indent=2))
    for user in users(stack):
        _manage(stack, "PUT", f"users/{user.name}", {"tags": user.tags, **_hashed(user.password)})
        for vhost, rights in _rights(stack, user).items():
            _manage(stack, "PUT", f"permissions/{vhost}/{user.name}", asdict(rights))


def remove_user(stack: Stack, node_id: str) -> None:
    """Forget a node's user and end its connections.

    Raises:
        CommandFailed: RabbitMQ refused.
    """
    name = access.node_user(node_id)
    _manage(stack, "DELETE", f"users/{name}", known=(404,))
    # Deleting a user closes its connections; this says so again to those that were just being opened.
    _manage(stack, "DELETE", f"connections/username/{name}", known=(404, 405))


def _manage(
    stack: Stack, method: str, path: str, body: object = None, *, known: tuple[int, ...] = ()
) -> None:
    import httpx  # slow to import, and every program of a stack is started by this package

    address = f"http://{HOST}:{stack.ports.rabbitmq_management}/api/{path}"
    login = (stack.places["RABBITMQ_USER"], stack.places["RABBITMQ_PASSWORD"])
    answer = httpx.request(method, address, json=body, auth=login, timeout=15, trust_env=False)
    if answer.is_error and answer.status_code not in known:
        raise CommandFailed(f"RabbitMQ: {method} {path}", answer.status_code, answer.text)


def password_hash(password: str) -> str:
    """RabbitMQ's salted SHA-256 form: base64 of salt and hash of salt and password."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def node_name(stack: Stack) -> str:
    """The Erlang node's name."""
    return f"collect-{stack.layout.stack_id}@localhost"


def epmd_environment(stack: Stack) -> dict[str, str]:
    """Where this stack's own epmd listens; epmd itself and the node read it."""
    return {"ERL_EPMD_PORT": str(stack.ports.epmd), "ERL_EPMD_ADDRESS": HOST}


def environment(stack: Stack) -> dict[str, str]:
    """What the node gets, so that nothing of the system's node is read or written."""
    home, etc = stack.layout.data / "rabbitmq", stack.layout.etc
    return {
        **epmd_environment(stack),
        "HOME": str(home),
        "RABBITMQ_NODENAME": node_name(stack),
        "RABBITMQ_BASE": str(home),
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(stack.layout.logs),
        "RABBITMQ_PID_FILE": str(stack.layout.run / "rabbitmq.pid"),
        "RABBITMQ_CONF_ENV_FILE": str(etc / "rabbitmq-env.conf"),
        "RABBITMQ_CONFIG_FILE": str(etc / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(etc / "rabbitmq-advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(etc / "rabbitmq-plugins"),
        "RABBITMQ_FEATURE_FLAGS_FILE": str(home / "feature_flags"),
        "RABBITMQ_DIST_PORT": str(stack.ports.rabbitmq_distribution),
        # No busy waiting: on a few cores that others work on as well it takes their time for nothing.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
        "+sbwt none +sbwtdcpu none +sbwtdio none",
        "ERL_CRASH_DUMP_SECONDS": "0",
        # The start script then executes the Erlang machine in its own place: the supervised process is the
        # server, not a shell that dies alone and leaves the server behind.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def command(stack: Stack) -> list[str]:
    """What to execute.

    Raises:
        MissingProgram: RabbitMQ is not installed.
    """
    if not (servers.root(stack) / SERVER.relative_to("/")).exists():
        raise MissingProgram("rabbitmq-server", "rabbitmq-server")
    return servers.command(stack, [str(SERVER)])


def epmd_command(stack: Stack) -> list[str]:
    """What to execute for the port mapper.

    Raises:
        MissingProgram: Erlang is not installed.
    """
    epmd = servers.which(stack, "epmd")
    if epmd is None:
        raise MissingProgram("epmd", "rabbitmq-server")
    return servers.command(stack, [epmd])
