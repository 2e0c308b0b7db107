"""`include/rules/lanes.yaml`, validated when loaded."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from collect_ops.broker.topology import RETRY_DELAY_HEADER, Binding, Exchange, Queue, Topology
from collect_ops.kernel.rules_file import Rules, load_rules, shipped

#: Heartbeats older than this tell nothing any more.
HEARTBEAT_TTL_S = 600
#: A number of slots, groups, requests: what pools (32 bits) and counters bear many times over.
Positive = Annotated[int, Field(ge=1, le=10_000)]
#: RabbitMQ takes times to live in milliseconds, in 32 bits.
QueueSeconds = Annotated[int, Field(ge=1, le=4_294_967)]
#: A time that is waited, by PostgreSQL's clock: a millisecond to 30 days.
Seconds = Annotated[float, Field(ge=0.001, le=2_592_000)]
#: The name of a pool, an exchange or a queue; AMQP's names have 255 bytes, and ours add to them.
ResourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,200}$")]
#: A lane's name is part of those, and of its DAGs' ids.
LaneName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]


class LaneRule(Rules):
    """One lane: the priorities it takes (inclusive), its pool's slots, and how wide one task may spread."""

    priorities: tuple[Annotated[int, Field(ge=0, le=10)], Annotated[int, Field(ge=0, le=10)]]
    slots: Positive
    groups_per_task: Positive
    message_ttl_s: QueueSeconds


class ControlRule(Rules):
    """The pool of claiming, planning, settling and sweeping.

    Attributes:
        pool: Airflow's pool.
        slots: Of it.
        plans: Plans of one lane at once: each may wait half a minute for a slow source, and no claim shall wait for it.
    """

    pool: ResourceName
    slots: Positive
    plans: Positive = 2


class BrokerRule(Rules):
    """Names and arguments of the broker topology."""

    exchange: ResourceName
    retry_exchange: ResourceName
    dead_queue: ResourceName
    inbox: ResourceName
    heartbeats: ResourceName = "collect.heartbeats"
    queue_type: Literal["classic", "quorum"]
    max_priority: Annotated[int, Field(ge=1, le=255)]
    retry_ladder_s: Annotated[tuple[QueueSeconds, ...], Field(min_length=1, max_length=100)]


class RetryRule(Rules):
    """Delay before retry n: `base_s * 2^(n-1)`, plus a share drawn from [0, jitter], capped."""

    base_s: Seconds
    jitter: Annotated[float, Field(ge=0, le=1)]
    max_delay_s: Seconds


class HostRule(Rules):
    """Circuit breakers of a host and of its endpoints: when tasks are held, for how long, and how it is tried again.

    An endpoint is what one source asks of a connection. Its circuit opens when `failures` of its requests in a row got
    no answer, or when of at least `min_requests` in the last `window_s` seconds a share of `error_rate` failed. The
    host's opens by the same numbers for connections that could not be made, and when three endpoints or more, two
    thirds of those asked, fail without an answer. A circuit stays open for `hold_s * factor^n` the (n+1)th time in a
    row. Once an endpoint has failed for `patience_s`, the task that tries it in vain ends. A host that asks for
    patience gets it for `max_pause_s` at most, then it is asked again.
    """

    failures: Positive = 5
    window_s: Seconds = 60.0
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    error_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    hold_s: Seconds = 30.0
    factor: Annotated[float, Field(ge=1, le=100)] = 2.0
    max_hold_s: Seconds = 3600.0
    max_pause_s: Seconds = 86_400.0
    probes: Positive = 1
    probe_s: Seconds = 60.0
    patience_s: Seconds = 21_600.0


class LaneRules(Rules):
    """All lanes, the control pool, the broker, hosts and the retries."""

    lanes: Annotated[dict[LaneName, LaneRule], Field(max_length=11)]
    control: ControlRule
    broker: BrokerRule
    retry: RetryRule
    host: HostRule = HostRule()

    @model_validator(mode="after")
    def _every_priority_has_one_lane(self) -> Self:
        for priority in range(11):
            takers = [name for name, lane in self.lanes.items() if _takes(lane, priority)]
            if len(takers) != 1:
                raise ValueError(f"priority {priority} must be in exactly one lane, is in {takers or 'none'}")
        if list(self.broker.retry_ladder_s) != sorted(set(self.broker.retry_ladder_s)):
            raise ValueError("broker.retry_ladder_s must rise")
        return self

    def lane_of(self, priority: int) -> str:
        """The lane that takes a priority (0-10)."""
        return next(name for name, lane in self.lanes.items() if _takes(lane, priority))

    def pool(self, lane: str) -> str:
        """The Airflow pool of a lane."""
        return f"collect_{lane}"

    def queue(self, lane: str) -> str:
        """The RabbitMQ queue of a lane."""
        return f"collect.lane.{lane}"

    def routing_key(self, lane: str) -> str:
        """The routing key of a lane on the task and retry exchanges."""
        return f"lane.{lane}"

    @property
    def strict_priorities(self) -> bool:
        """Whether a message that is still there although others passed it is lost: classic queues are strict.

        Quorum queues are from RabbitMQ 4.3 on, the first that holds lanes in them; nothing is concluded from that yet.
        """
        return self.broker.queue_type == "classic"

    def rung(self, delay_s: float) -> int:
        """The largest rung of the retry ladder that is not above a delay; the smallest for shorter delays."""
        fitting = [rung for rung in self.broker.retry_ladder_s if rung <= delay_s]
        return fitting[-1] if fitting else self.broker.retry_ladder_s[0]

    def topology(self) -> Topology:
        """What to declare on the broker."""
        broker = self.broker
        queue_type = {"x-queue-type": broker.queue_type}
        lanes = [
            Queue(
                name=self.queue(name),
                arguments={
                    **queue_type,
                    "x-max-priority": broker.max_priority,
                    "x-message-ttl": lane.message_ttl_s * 1000,
                },
            )
            for name, lane in self.lanes.items()
        ]
        rungs = [
            Queue(
                name=f"{broker.retry_exchange}.{delay_s}s",
                arguments={
                    **queue_type,
                    "x-message-ttl": delay_s * 1000,
                    "x-dead-letter-exchange": broker.exchange,
                },
            )
            for delay_s in broker.retry_ladder_s
        ]
        dead = Queue(name=broker.dead_queue, arguments=queue_type)
        inbox = Queue(name=broker.inbox, arguments=queue_type)
        heartbeats = Queue(
            name=broker.heartbeats, arguments={**queue_type, "x-message-ttl": HEARTBEAT_TTL_S * 1000}
        )
        return Topology(
            exchanges=(
                Exchange(name=broker.exchange, type="direct"),
                Exchange(name=broker.retry_exchange, type="headers"),
                Exchange(name=broker.dead_queue, type="fanout"),
                Exchange(name=broker.inbox, type="fanout"),
                Exchange(name=broker.heartbeats, type="fanout"),
            ),
            queues=(*lanes, *rungs, dead, inbox, heartbeats),
            bindings=(
                *(
                    Binding(
                        exchange=broker.exchange, queue=self.queue(name), routing_key=self.routing_key(name)
                    )
                    for name in self.lanes
                ),
                *(
                    Binding(
                        exchange=broker.retry_exchange,
                        queue=f"{broker.retry_exchange}.{delay_s}s",
                        arguments={"x-match": "all", RETRY_DELAY_HEADER: delay_s},
                    )
                    for delay_s in broker.retry_ladder_s
                ),
                Binding(exchange=broker.dead_queue, queue=broker.dead_queue),
                Binding(exchange=broker.inbox, queue=broker.inbox),
                Binding(exchange=broker.heartbeats, queue=broker.heartbeats),
            ),
        )


def _takes(lane: LaneRule, priority: int) -> bool:
    return lane.priorities[0] <= priority <= lane.priorities[1]


@cache
def lane_rules() -> LaneRules:
    """The rules of this installation: `include/rules/lanes.yaml`."""
    return load_rules(shipped("lanes"), LaneRules)
