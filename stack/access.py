"""Who may do what on PostgreSQL, RabbitMQ and Redis: one identity for each kind of process, with what it needs.

* the owner (`collect_ops`): makes the schema, the virtual hosts and everybody else; only `python -m stack` is it;
* control: Airflow's servers, the triggerer and the worker of control tasks;
* a node: its worker and its agent, and nobody else; it can be withdrawn alone;
* a person: whoever evaluates `make env`;
* monitor: questions to RabbitMQ's management API.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from collect_ops.lanes.rules import lane_rules

CONTROL, PERSON, MONITOR = "collect_control", "collect_person", "collect_monitor"
#: As whom `collect-ops` works for a person at PostgreSQL; psql is `PERSON` there.
CLI = "collect_cli"
NOTHING, EVERYTHING = "^$", ".*"
_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What a user of RabbitMQ may do in a virtual host: regular expressions of names.

    Declaring and deleting are one right (`configure`).
    """

    configure: str = NOTHING
    write: str = NOTHING
    read: str = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUser:
    """A user of RabbitMQ.

    Args:
        name: As it logs in.
        password: Its password.
        tags: What the management API allows it; nothing when empty.
        collect: Its rights in collect-ops' virtual host; None: it may not enter.
        celery: Its rights in CeleryExecutor's.
    """

    name: str
    password: str = field(repr=False)
    tags: str = ""
    collect: Rights | None = None
    celery: Rights | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUser:
    """A user of Redis.

    Args:
        name: As it logs in.
        password: Its password.
        rules: What it may do, in the words of ACL SETUSER.
    """

    name: str
    password: str = field(repr=False)
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """Which nodes beside this machine's own have credentials, and which have lost theirs.

    Args:
        joined: Nodes that a join file was made for.
        withdrawn: Nodes whose credentials are withdrawn.
        generations: How often a node was given new ones; none: never.
    """

    joined: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    generations: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def remembered(cls, settings: Mapping[str, Any]) -> Grants:
        """From what `as_dict` gave."""
        return cls(
            joined=tuple(settings.get("joined", ())),
            withdrawn=tuple(settings.get("withdrawn", ())),
            generations=dict(settings.get("generations", {})),
        )

    def as_dict(self) -> dict[str, Any]:
        """In the form of JSON."""
        return asdict(self)

    def join(self, node_id: str) -> Grants:
        """With credentials for a node; new ones when its last were withdrawn."""
        return replace(
            self,
            joined=tuple(sorted({*self.joined, node_id})),
            withdrawn=tuple(name for name in self.withdrawn if name != node_id),
        )

    def withdraw(self, node_id: str) -> Grants:
        """Without credentials for a node; those it had will never be valid again."""
        return replace(
            self,
            joined=tuple(name for name in self.joined if name != node_id),
            withdrawn=tuple(sorted({*self.withdrawn, node_id})),
            generations={**self.generations, node_id: self.generations.get(node_id, 0) + 1},
        )


def node_user(node_id: str) -> str:
    """A node's name at PostgreSQL, RabbitMQ and Redis."""
    name = f"node.{node_id}"
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(node_id.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - len(digest) - 1]}.{digest}"


def node_password(secrets: Mapping[str, str], node_id: str, generation: int) -> str:
    """A node's password: made of the stack's key, so that nothing else has to be kept."""
    said = f"{node_id}/{generation}".encode()
    digest = hmac.digest(secrets["NODES_KEY"].encode(), said, "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def control_places(secrets: Mapping[str, str]) -> dict[str, str]:
    """Values for `config/connections.env` of control processes; the rest is the stack's."""
    return {
        "POSTGRES_COLLECT_USER": CONTROL,
        "POSTGRES_COLLECT_PASSWORD": secrets["POSTGRES_CONTROL_PASSWORD"],
        "REDIS_USER": CONTROL,
        "REDIS_PASSWORD": secrets["REDIS_CONTROL_PASSWORD"],
        "RABBITMQ_USER": CONTROL,
        "RABBITMQ_PASSWORD": secrets["RABBITMQ_CONTROL_PASSWORD"],
        **_monitor(secrets),
    }


def person_places(secrets: Mapping[str, str]) -> dict[str, str]:
    """The same for people: `collect-ops` works as control does, but deletes no task, log or queue and declares none."""
    return {
        **control_places(secrets),
        "POSTGRES_COLLECT_USER": CLI,
        "POSTGRES_COLLECT_PASSWORD": secrets["POSTGRES_CLI_PASSWORD"],
        "REDIS_USER": PERSON,
        "REDIS_PASSWORD": secrets["REDIS_PERSON_PASSWORD"],
        "RABBITMQ_USER": PERSON,
        "RABBITMQ_PASSWORD": secrets["RABBITMQ_PERSON_PASSWORD"],
    }


def node_places(secrets: Mapping[str, str], node_id: str, generation: int) -> dict[str, str]:
    """The same for a node. Its role at PostgreSQL reaches nothing in Airflow's database but Celery's results."""
    name, password = node_user(node_id), node_password(secrets, node_id, generation)
    servers = ("POSTGRES_COLLECT", "POSTGRES_AIRFLOW", "REDIS", "RABBITMQ", "RABBITMQ_MONITOR")
    return {
        **{f"{server}_USER": name for server in servers},
        **{f"{server}_PASSWORD": password for server in servers},
        # No account of the REST API: what asks it are control tasks, and tasks report with tokens of their own.
        "AIRFLOW_SERVICE_USER": "",
        "AIRFLOW_SERVICE_PASSWORD": "",
    }


def _monitor(secrets: Mapping[str, str]) -> dict[str, str]:
    return {
        "RABBITMQ_MONITOR_USER": MONITOR,
        "RABBITMQ_MONITOR_PASSWORD": secrets["RABBITMQ_MONITOR_PASSWORD"],
    }


# RabbitMQ


def _declared() -> str:
    """Names of the exchanges and queues that collect-ops needs, as a regular expression without anchors."""
    topology = lane_rules().topology()
    names = {exchange.name for exchange in topology.exchanges} | {queue.name for queue in topology.queues}
    return "|".join(re.escape(name) for name in sorted(names))


def _others() -> str:
    """What else is in the virtual host: queues and exchanges of your own."""
    return rf"(?!(?:{_declared()})(?:\.migrating)?$|amq\.).*"


def _published_to() -> str:
    """Exchanges that a node publishes to: admission and heartbeats, and the default one for replies."""
    exchanges = (re.escape(exchange.name) for exchange in lane_rules().topology().exchanges)
    return "|".join((*exchanges, r"amq\.default"))


def control_user(secrets: Mapping[str, str]) -> BrokerUser:
    """Publishes, consumes, and declares what collect-ops needs; nothing else."""
    return BrokerUser(
        name=CONTROL,
        password=secrets["RABBITMQ_CONTROL_PASSWORD"],
        # The sweep declares what was lost.
        collect=Rights(configure=f"^({_declared()})$", write=EVERYTHING, read=EVERYTHING),
        # CeleryExecutor declares the queues of nodes with its first message to them.
        celery=Rights(configure=EVERYTHING, write=EVERYTHING, read=EVERYTHING),
    )


def person_user(secrets: Mapping[str, str]) -> BrokerUser:
    """Publishes and consumes."""
    return BrokerUser(
        name=PERSON,
        password=secrets["RABBITMQ_PERSON_PASSWORD"],
        collect=Rights(write=EVERYTHING, read=EVERYTHING),
    )


def monitor_user(secrets: Mapping[str, str]) -> BrokerUser:
    """Asks the management API, and may touch nothing."""
    return BrokerUser(
        name=MONITOR,
        password=secrets["RABBITMQ_MONITOR_PASSWORD"],
        tags="monitoring",
        collect=Rights(),
        celery=Rights(),
    )


def node_broker_user(secrets: Mapping[str, str], node_id: str, generation: int) -> BrokerUser:
    """A node's user."""
    return replace(
        node_broker_rights(re.escape(node_id)),
        name=node_user(node_id),
        password=node_password(secrets, node_id, generation),
    )


def node_broker_rights(node_id: str) -> BrokerUser:
    """Publishes tasks and heartbeats, reads no queue of collect-ops, and serves its own queues of Celery's.

    Args:
        node_id: The node's id, as a regular expression.
    """
    # A worker's broadcast queue is `NAME@HOST.celery.pidbox`, NAME its id or (in containers) `celery`; it asks once who
    # else has its name, and gets replies.
    pidbox = rf"({node_id}|celery)@[^/]+\.celery\.pidbox|[0-9a-f-]{{36}}\.reply\.celery\.pidbox"
    exchanges = r"celery\.pidbox|reply\.celery\.pidbox|celeryev"
    queues = rf"default|node\.{node_id}|{pidbox}|celeryev\.[0-9a-f-]{{36}}"
    names = rf"^({queues}|{exchanges}|collect\.nodes)$"
    return BrokerUser(
        name="",
        password="",
        collect=Rights(write=f"^({_published_to()}|{_others()})$", read=f"^{_others()}$"),
        celery=Rights(configure=names, write=rf"^({queues}|{exchanges})$", read=names),
    )


# Redis

#: Neither FLUSHALL, CONFIG, KEYS nor what manages users; keys of collect-ops only.
_COMMANDS = ("resetchannels", "+@all", "-@admin", "-@dangerous")
_NODE_KEYS = ("lease", "limit", "dedup", "wake", "wakes", "priority")


def redis_users(secrets: Mapping[str, str]) -> tuple[RedisUser, ...]:
    """Control and people. The default user stays the stack's own."""
    rules = ("~collect:*", *_COMMANDS, "+info")
    return (
        RedisUser(name=CONTROL, password=secrets["REDIS_CONTROL_PASSWORD"], rules=rules),
        RedisUser(name=PERSON, password=secrets["REDIS_PERSON_PASSWORD"], rules=rules),
    )


def node_redis_user(secrets: Mapping[str, str], node_id: str, generation: int) -> RedisUser:
    """What its shard groups and admissions use, and of the nodes' keys its own."""
    keys = (f"~collect:{kind}:*" for kind in _NODE_KEYS)
    return RedisUser(
        name=node_user(node_id),
        password=node_password(secrets, node_id, generation),
        rules=(*keys, f"~collect:node:{node_id}", *_COMMANDS),
    )
