"""One stack with its paths, ports and secrets; what is decided at first start is remembered."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from collect_ops.sources.examples import EXAMPLES_VARIABLE, examples_are_on
from stack import access, servers
from stack import ports as port_choice
from stack.access import Grants
from stack.credentials import load_or_generate, write_private
from stack.faults import StackError
from stack.layout import Layout
from stack.node_settings import NodeSettings
from stack.ports import Ports

HOST = "127.0.0.1"
# The virtual host of CeleryExecutor's messages.
CELERY_VHOST = "celery"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What every part of the stack is told.

    Args:
        layout: Paths.
        ports: Ports, the same on 127.0.0.1 and on every other address that the services listen on.
        secrets: Passwords and keys by name.
        nodes: Worker hosts, and where the services listen beside 127.0.0.1.
        grants: Which nodes have credentials.
        examples: Whether the project's example sources are among the sources.
        server_tree: Folder with the Debian that PostgreSQL, Redis and RabbitMQ come from; None for this system's.
    """

    layout: Layout
    ports: Ports
    secrets: Mapping[str, str] = field(repr=False)
    nodes: NodeSettings = field(default_factory=NodeSettings)
    grants: Grants = field(default_factory=Grants)
    examples: bool = False
    server_tree: str | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address that the services listen on."""
        return (HOST, *self.nodes.addresses)

    @property
    def places(self) -> dict[str, str]:
        """Values for the `${NAME}`s of config/connections.env, here, as the owner."""
        return self.places_at(HOST)

    def control_places(self, host: str = HOST) -> dict[str, str]:
        """The same for processes that run: not as the owner."""
        return {**self.places_at(host), **access.control_places(self.secrets)}

    def person_places(self) -> dict[str, str]:
        """The same for people."""
        return {**self.places, **access.person_places(self.secrets)}

    def node_places(self, node_id: str, host: str) -> dict[str, str]:
        """The same for a node."""
        return {
            **self.places_at(host),
            **access.node_places(self.secrets, node_id, self.generation(node_id)),
        }

    def generation(self, node_id: str) -> int:
        """Of a node's credentials."""
        return self.grants.generations.get(node_id, 0)

    @property
    def granted_nodes(self) -> tuple[str, ...]:
        """Nodes that have credentials: this machine's own and those that joined."""
        known = dict.fromkeys((*self.nodes.ids, *self.grants.joined))
        return tuple(node_id for node_id in known if node_id not in self.grants.withdrawn)

    def places_at(self, host: str) -> dict[str, str]:
        """The same, for somebody who reaches the services at another address."""
        return {
            "POSTGRES_HOST": host,
            "POSTGRES_PORT": str(self.ports.postgres),
            "POSTGRES_AIRFLOW_DB": "airflow",
            "POSTGRES_AIRFLOW_USER": "airflow",
            "POSTGRES_COLLECT_DB": "collect_ops",
            "POSTGRES_COLLECT_USER": "collect_ops",
            "REDIS_USER": "default",
            "REDIS_HOST": host,
            "REDIS_PORT": str(self.ports.redis),
            "RABBITMQ_HOST": host,
            "RABBITMQ_PORT": str(self.ports.rabbitmq),
            "RABBITMQ_MANAGEMENT_PORT": str(self.ports.rabbitmq_management),
            "RABBITMQ_VHOST": "collect",
            "RABBITMQ_CELERY_VHOST": CELERY_VHOST,
            "RABBITMQ_USER": "collect_ops",
            "AIRFLOW_HOST": host,
            "AIRFLOW_PORT": str(self.ports.api_server),
            "AIRFLOW_SERVICE_USER": "collect_service",
            **self.secrets,
            "RABBITMQ_MONITOR_USER": "collect_ops",
            "RABBITMQ_MONITOR_PASSWORD": self.secrets["RABBITMQ_PASSWORD"],
        }


def exists(layout: Layout) -> bool:
    """Whether this stack was ever started."""
    return layout.settings_file.exists() and layout.secrets_file.exists()


def load(layout: Layout) -> Stack:
    """The stack as it was set up.

    Raises:
        StackError: it was never started.
    """
    if not exists(layout):
        raise StackError(f"there is no stack in {layout.home}; `make up` makes one")
    remembered = read_settings(layout)
    return Stack(
        layout=layout,
        ports=Ports(**remembered["ports"]),
        secrets=load_or_generate(layout.secrets_file),
        nodes=NodeSettings.remembered(remembered.get("nodes", {})),
        grants=Grants.remembered(remembered.get("grants", {})),
        examples=remembered.get("examples", False),
        server_tree=remembered.get("server_tree"),
    )


def load_or_create(layout: Layout, environment: Mapping[str, str] = os.environ) -> Stack:
    """The stack as it was set up, or a new one; variables in the environment win and are remembered.

    Raises:
        BadSetting: a variable cannot be used.
    """
    layout.create()
    remembered = read_settings(layout)
    tree = servers.chosen(remembered.get("server_tree"), environment, is_new="ports" not in remembered)
    if "ports" in remembered and "PORT_BASE" not in environment:
        ports = Ports(**remembered["ports"]).overridden(environment)
    else:
        ports = port_choice.choose(layout.stack_id, environment)
    known = remembered.get("nodes", {})
    nodes = NodeSettings.remembered(known)
    if "executor" not in known:
        nodes = replace(nodes, executor=NodeSettings().executor)
    nodes = nodes.overridden(environment)
    examples = bool(remembered.get("examples", False))
    if environment.get(EXAMPLES_VARIABLE):
        examples = examples_are_on(environment)
    remember(layout, ports=ports.as_dict(), nodes=nodes.as_dict(), examples=examples, server_tree=tree)
    return Stack(
        layout=layout,
        ports=ports,
        secrets=load_or_generate(layout.secrets_file),
        nodes=nodes,
        grants=Grants.remembered(remembered.get("grants", {})),
        examples=examples,
        server_tree=tree,
    )


def read_settings(layout: Layout) -> dict[str, Any]:
    """What is remembered; empty before the first start."""
    if not layout.settings_file.exists():
        return {}
    settings: dict[str, Any] = json.loads(layout.settings_file.read_text())
    return settings


def remember(layout: Layout, **changes: object) -> None:
    """Note settings for the next start."""
    before = read_settings(layout)
    after = {**before, **changes}
    if after != before:
        write_private(layout.settings_file, json.dumps(after, indent=2) + "\n")
