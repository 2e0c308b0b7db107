"""The node agent: says every half minute that its machine lives, and how it does.

The liveness key is what decides whether a node lives; the heartbeat, over RabbitMQ, is what is known of it. Either
may be away: the other goes on.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from pydantic import ValidationError

from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.coordination.liveness import Liveness, LivenessUnknown
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.kernel.faults import faults_from
from collect_ops.nodes.heartbeat import Heartbeat
from collect_ops.nodes.machine import Sampler, address_towards, machine_id
from collect_ops.nodes.rules import PlacementRules
from collect_ops.storage import DatabaseUnavailable, connect, errors, query
from collect_ops.storage.queries import read_queries

log = logging.getLogger(__name__)

#: Seconds between two looks at what placement should hear at once.
LOOK_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """What a node is, as its agent was told.

    Args:
        node_id: Its id.
        name: Host name.
        version: Of collect-ops, with the code that it runs.
        slots: Shard groups that it runs at once.
        labels: What placement can ask for.
        kinds: Kinds of sources that its workers can collect from.
        path: On the file system that its workers write to.
        machine: Tells machines apart.
    """

    node_id: str
    name: str
    version: str
    slots: int
    labels: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("http",)
    path: str = "/"
    machine: str = field(default_factory=machine_id)


class Agent:
    """Samples, renews the node's key, publishes.

    Args:
        node: What the node is.
        backends: Where the services are.
        rules: How often, and how long a key lives.
        exchange: Where heartbeats are published.
        every_s: Seconds between two heartbeats; None takes the rules'.

    Raises:
        ValidationFailed: What the node is does not fit a heartbeat, or it would send too few.
        OSError: Its path is not there.
    """

    def __init__(
        self,
        node: NodeIdentity,
        backends: Backends,
        rules: PlacementRules,
        *,
        exchange: str,
        every_s: float | None = None,
    ) -> None:
        self._node, self._backends, self._exchange = node, backends, exchange
        self.every_s = every_s or rules.heartbeat.every_s
        self._liveness = Liveness(backends.redis_url, rules.heartbeat.alive_s)
        self._sampler = Sampler(node.path)
        self._address = address_towards(backends.amqp_url)
        self._boot_id = uuid.uuid4().hex
        self._started_at = datetime.now(UTC)
        self._busy_from = rules.placeable.cpu_percent
        self._seq = 0
        self._groups = 0
        self._renewed = False
        self.draining = self._said_draining = False
        self._sample = self._sampler.sample()
        self._check(rules)

    def _check(self, rules: PlacementRules) -> None:
        """What the node was told it is must fit a heartbeat, before it says that it lives."""
        if self.every_s >= rules.heartbeat.suspect_s:
            problem = f"must be less than {rules.heartbeat.suspect_s:g} s, after which a node is SUSPECT"
            raise ValidationFailed("agent", [Fault(field="every_s", value=self.every_s, problem=problem)])
        try:
            self._heartbeat(None, seq=1, leaving=False)
        except ValidationError as error:
            raise ValidationFailed("agent", faults_from(error, Heartbeat)) from error

    def run(
        self, stopping: threading.Event, *, beat: Callable[[Heartbeat, bool], object] | None = None
    ) -> None:
        """Until stopped; then it says goodbye.

        Args:
            stopping: Set to end.
            beat: Called after each heartbeat with it and whether RabbitMQ has it.

        Raises:
            NodeIdTaken: A node on another machine has the id.
            AgentSuperseded: Another agent has been started for this node.
        """
        read_queries()
        with Publisher(self._backends.amqp_url, timeout_s=5.0) as publisher:
            due = time.monotonic()
            while not stopping.wait(max(0.0, min(LOOK_S, due - time.monotonic()))):
                early = time.monotonic() < due
                if early and not self._has_news():
                    continue
                heartbeat, published = self.beat(publisher, news=early or self._seq == 0)
                if beat is not None:
                    beat(heartbeat, published)
                # From one to the next, however long one took; those that were missed are not made up for.
                due = max((time.monotonic() if early else due) + self.every_s, time.monotonic())
            self.leave(publisher)

    def _has_news(self) -> bool:
        """Whether placement should hear at once what the last heartbeat did not say.

        That the node drains; or that its processors are busy no more: work may wait for them.
        """
        said = self._sample.cpu_percent
        return self._sampler.look() < self._busy_from <= said or self.draining != self._said_draining

    def beat(self, publisher: Publisher, *, news: bool = False) -> tuple[Heartbeat, bool]:
        """One heartbeat; returns it and whether RabbitMQ has it.

        Args:
            publisher: Where it is published.
            news: Whether it is to be taken in at once; the others wait until somebody needs them.

        Raises:
            NodeIdTaken, AgentSuperseded: See `run`.
        """
        skew_s = self._renew()
        heartbeat = self._next(skew_s, leaving=False)
        published = self._publish(publisher, heartbeat)
        if news:
            self._announce()
        return heartbeat, published

    def leave(self, publisher: Publisher) -> None:
        """Say goodbye: the node has LEFT, rather than being LOST a minute later."""
        self._publish(publisher, self._next(None, leaving=True))
        self._announce()
        try:
            self._liveness.leave(self._node.node_id, self._node.machine, self._boot_id)
        except LivenessUnknown as error:
            log.warning("the liveness key expires by itself: %s", error)

    def _announce(self) -> None:
        try:
            self._liveness.announce()
        except LivenessUnknown as error:
            log.warning("heartbeat of node %s is taken in with the next ones: %s", self._node.node_id, error)

    def _renew(self) -> float | None:
        """Renew the key; returns how far our clock is ahead of Redis', None when Redis is away."""
        began = time.time()
        try:
            renewed = self._liveness.renew(
                self._node.node_id, self._node.machine, self._boot_id, first=not self._renewed
            )
            self._renewed = True
        except LivenessUnknown as error:
            log.warning("node %s cannot say that it lives: %s", self._node.node_id, error)
            return None
        return (began + time.time()) / 2 - renewed.redis_time_s

    def _next(self, skew_s: float | None, *, leaving: bool) -> Heartbeat:
        self._seq += 1
        self._said_draining = self.draining
        self._groups = self._running_groups()
        try:
            self._sample = self._sampler.sample()
        except (
            OSError
        ) as error:  # the disk is gone: its last figures stay, and the node goes on saying that it lives
            log.warning("node %s cannot be sampled: %s", self._node.node_id, error)
        return self._heartbeat(skew_s, seq=self._seq, leaving=leaving)

    def _heartbeat(self, skew_s: float | None, *, seq: int, leaving: bool) -> Heartbeat:
        node = self._node
        return Heartbeat(
            schema=1,
            node_id=node.node_id,
            machine=node.machine,
            boot_id=self._boot_id,
            started_at=self._started_at,
            seq=seq,
            sent_at=datetime.now(UTC),
            clock_skew_s=skew_s,
            leaving=leaving,
            draining=self.draining,
            name=node.name,
            address=self._address,
            version=node.version,
            labels=dict(node.labels),
            kinds=node.kinds,
            slots=node.slots,
            groups=self._groups,
            **asdict(self._sample),
        )

    def _running_groups(self) -> int:
        """Shard groups that run here; while PostgreSQL is away, as many as before."""
        try:
            with connect(self._backends.postgres_dsn, application_name="collect-ops agent") as connection:
                # The next renewal does not wait for somebody's lock.
                connection.execute("SET statement_timeout = '3s'")
                row = connection.execute(
                    query("nodes/count_groups"), {"node_id": self._node.node_id}
                ).fetchone()
        except (DatabaseUnavailable, errors.Error) as error:
            log.warning("shard groups not counted: %s", error)
            return self._groups
        return int(row["groups"]) if row else 0

    def _publish(self, publisher: Publisher, heartbeat: Heartbeat) -> bool:
        message = OutgoingMessage(
            exchange=self._exchange,
            routing_key=heartbeat.node_id,
            body=heartbeat.encode(),
            app_id=f"collect-ops agent {heartbeat.node_id}",
        )
        return bool(publisher.publish([message]).confirmed)
