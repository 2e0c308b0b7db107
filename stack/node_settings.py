"""How many worker hosts there are, what they are like, and where the services listen for them."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import psutil

from stack.faults import BadSetting

MOST_NODES, MOST_SLOTS = 32, 200
NODE_ID = re.compile(r"node-([1-9][0-9]*)")
LABEL = re.compile(r"[A-Za-z0-9_.-]+=[^,;\s]+")
CELERY, LOCAL = "CeleryExecutor", "LocalExecutor"
EXECUTORS = (CELERY, LOCAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What `make up NODES=…` was told, remembered from then on.

    Args:
        count: Worker hosts; without any, one worker beside the scheduler runs everything.
        slots: Shard groups that a node runs at once; None takes as many as the lanes have.
        labels: Labels by node id.
        network: Whether nodes get network namespaces, where the machine allows it.
        subnet: Theirs, a /24; None when they have none and share this machine's network.
        listen: A further address of this machine, on which the services listen for other machines.
        executor: What runs tasks while there are no worker hosts: Airflow's CeleryExecutor with a worker beside the
            scheduler, or LocalExecutor, under the scheduler, which needs less memory.
    """

    count: int = 0
    slots: int | None = None
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    network: bool = True
    subnet: str | None = None
    listen: str | None = None
    executor: str = CELERY

    @classmethod
    def remembered(cls, settings: Mapping[str, Any]) -> NodeSettings:
        """From what `as_dict` gave. A stack that remembers no executor was started before there was a choice."""
        if settings and "executor" not in settings:
            settings = {**settings, "executor": CELERY if settings.get("count") else LOCAL}
        return cls(**settings)

    def as_dict(self) -> dict[str, Any]:
        """In the form of JSON."""
        return asdict(self)

    def overridden(self, environment: Mapping[str, str]) -> NodeSettings:
        """These settings, with what NODES, WORKER_SLOTS, NODE_LABELS, NODE_NETWORK, LISTEN and EXECUTOR say instead.

        An empty NODE_LABELS or LISTEN takes it away; an empty one of the others changes nothing.

        Raises:
            BadSetting: One of them cannot be used.
        """
        changes: dict[str, Any] = {}
        if environment.get("NODES"):
            changes["count"] = _number("NODES", environment["NODES"], 0, MOST_NODES)
        if environment.get("WORKER_SLOTS"):
            changes["slots"] = _number("WORKER_SLOTS", environment["WORKER_SLOTS"], 1, MOST_SLOTS)
        if "NODE_LABELS" in environment:
            changes["labels"] = labels_of(environment["NODE_LABELS"])
        if environment.get("NODE_NETWORK"):
            changes["network"] = bool(_number("NODE_NETWORK", environment["NODE_NETWORK"], 0, 1))
        if "LISTEN" in environment:
            changes["listen"] = check_listen(environment["LISTEN"]) if environment["LISTEN"] else None
        if environment.get("EXECUTOR"):
            changes["executor"] = _executor(environment["EXECUTOR"], changes.get("count", self.count))
        return replace(self, **changes)

    @property
    def celery(self) -> bool:
        """Whether Celery workers run the tasks; worker hosts are such."""
        return bool(self.count) or self.executor == CELERY

    @property
    def ids(self) -> tuple[str, ...]:
        """`node-1` … `node-N`."""
        return tuple(f"node-{number}" for number in range(1, self.count + 1))

    @property
    def bridge(self) -> str | None:
        """This machine's address on the nodes' bridge; None without one."""
        return None if self.subnet is None or not self.count else str(_in(self.subnet, 1))

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the services listen beside 127.0.0.1."""
        return tuple(address for address in (self.bridge, self.listen) if address is not None)

    def address(self, node_id: str) -> str | None:
        """A node's own address; None when it shares this machine's network."""
        return None if self.subnet is None else str(_in(self.subnet, 10 + number_of(node_id)))


def number_of(node_id: str) -> int:
    """The number of `node-N`.

    Raises:
        BadSetting: It is no id of a native node.
    """
    match = NODE_ID.fullmatch(node_id)
    if match is None:
        raise BadSetting("node", node_id, "node-1, node-2, …")
    return int(match[1])


def labels_of(text: str) -> dict[str, dict[str, str]]:
    """Labels by node id, from `node-1:region=eu,disk=ssd;node-2:region=us`.

    Raises:
        BadSetting: The text has another form.
    """
    labels: dict[str, dict[str, str]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        node_id, _, pairs = part.partition(":")
        number_of(node_id)
        for pair in pairs.split(","):
            if not LABEL.fullmatch(pair):
                raise BadSetting("NODE_LABELS", text, "node-1:region=eu,disk=ssd;node-2:region=us")
            name, _, value = pair.partition("=")
            labels.setdefault(node_id, {})[name] = value
    return labels


def _executor(value: str, count: int) -> str:
    if value not in EXECUTORS:
        raise BadSetting("EXECUTOR", value, " or ".join(EXECUTORS))
    if value == LOCAL and count:
        raise BadSetting("EXECUTOR", value, f"{CELERY} with worker hosts; NODES=0 has none")
    return value


def _number(field_name: str, value: str, least: int, most: int) -> int:
    if not value.isdecimal() or not least <= int(value) <= most:
        raise BadSetting(field_name, value, f"a number from {least} to {most}")
    return int(value)


def check_listen(value: str) -> str:
    """An address that a service can listen on for other machines.

    Raises:
        BadSetting: It is not one of this machine's, beside 127.0.0.1.
    """
    own = {
        each.address
        for addresses in psutil.net_if_addrs().values()
        for each in addresses
        if each.family is socket.AF_INET and not ipaddress.IPv4Address(each.address).is_loopback
    }
    if value not in own:
        raise BadSetting(
            "LISTEN", value, f"one of this machine's addresses: {', '.join(sorted(own)) or 'it has none'}"
        )
    return value


def _in(subnet: str, number: int) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Network(subnet)[number]
