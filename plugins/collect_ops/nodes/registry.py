"""The registry: heartbeats are taken in, and the states of nodes worked out. Safe to run twice and at the same time.

Heartbeats are acked after the commit; only a node's newest counts, and one that comes again changes nothing. States
come from the liveness keys, never from how late heartbeats are taken in.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from collect_ops.broker.consumer import Consumer, Delivery
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.coordination.liveness import Liveness, LivenessUnknown
from collect_ops.coordination.wakeups import Wakeups
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import CollectOpsError, Fault, ValidationFailed
from collect_ops.nodes.heartbeat import Heartbeat, decode
from collect_ops.nodes.rules import PlacementRules
from collect_ops.nodes.status import Known, NodeStatus, status_of
from collect_ops.storage import Connection, Jsonb, connect, errors, query

log = logging.getLogger(__name__)

#: Heartbeats among the wake-up marks, beside the lanes.
WAKE_NAME = "heartbeats"
#: Heartbeats of one transaction.
BLOCK = 500
#: Seconds after which no further block is begun.
TIME_LIMIT_S = 5.0
#: A heartbeat lives no longer in its queue, whatever the clock of its node says.
MAX_AGE_S = 3600.0
MAX_ERROR_CHARS = 1000
#: Changes of state that a pass logs one by one; all of them stand in the database.
MOVES_TOLD = 20
_LIVING = frozenset({"ACTIVE", "SUSPECT", "DRAINING"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A node that has changed its state."""

    node_id: str
    from_status: str
    to_status: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Ingested:
    """What a pass did.

    Args:
        heartbeats: Taken in.
        nodes: Brought up to date by them.
        refused: Heartbeats that cannot be read, or claim another machine's node id: they are dead letters.
        moved: Nodes that have changed their state.
        states_known: Whether states were worked out; not so while Redis is away.
        more: The time was up before the queue was empty.
    """

    heartbeats: int = 0
    nodes: int = 0
    refused: int = 0
    moved: list[Moved] = field(default_factory=list)
    states_known: bool = False
    more: bool = False

    def as_counts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Of the broker.

    Args:
        queue: Where heartbeats wait.
        dead_exchange: Where those go that cannot be taken in.
    """

    queue: str
    dead_exchange: str


def run_once(
    backends: Backends, rules: PlacementRules, names: Names, *, time_limit_s: float = TIME_LIMIT_S
) -> Ingested:
    """Take in what heartbeats wait, then work out every node's state.

    Args:
        backends: Where the services are.
        rules: What a state is.
        names: Of the broker.
        time_limit_s: Seconds after which no further block is begun.

    Raises:
        QueueMissing: The topology is not declared.
        BrokerUnavailable: RabbitMQ went away; what was not acked comes again.
        DatabaseUnavailable: PostgreSQL did; likewise.
    """
    Wakeups(backends.redis_url).clear(WAKE_NAME)
    liveness = Liveness(backends.redis_url, rules.heartbeat.alive_s)
    done = Ingested()
    try:
        liveness.take_news()
    except LivenessUnknown as error:
        log.warning("what nodes have announced may be taken in twice: %s", error)
    with connect(backends.postgres_dsn, application_name="collect-ops heartbeats") as connection:
        _ingest(connection, backends, rules, names, done, until=time.monotonic() + time_limit_s)
        try:
            done.moved = watch(connection, liveness, rules)
            done.states_known = True
        except LivenessUnknown as error:
            log.warning("states of nodes stay as they are: %s", error)
        keep_s = rules.keep_samples_days * 86_400
        connection.execute(query("nodes/prune_samples"), {"keep_s": keep_s})
    log.info("heartbeats: %d of %d nodes, %d refused", done.heartbeats, done.nodes, done.refused)
    return done


def has_news(connection: Connection, liveness: Liveness, rules: PlacementRules) -> bool:
    """Whether a pass would find something new: a node whose state is another one now, or that has said so.

    What the watcher does every few seconds: one short statement, and some keys of Redis.

    Raises:
        LivenessUnknown: Redis is away; there is nothing that could be found.
    """
    if liveness.has_news():
        return True
    rows = connection.execute(query("nodes/look_nodes"), {"window_s": rules.flapping.window_s}).fetchall()
    return bool(rows) and bool(_changed(rows, liveness, rules))


def watch(connection: Connection, liveness: Liveness, rules: PlacementRules) -> list[Moved]:
    """Work out every node's state from its liveness key; returns those that have changed.

    Raises:
        LivenessUnknown: Redis is away; nothing is changed.
    """
    with connection.transaction():
        window = {"window_s": rules.flapping.window_s}
        rows = connection.execute(query("nodes/lock_nodes"), window).fetchall()
        if not rows:
            return []
        changed = _changed(rows, liveness, rules)
        if not changed:
            return []
        values = {
            "ids": list(changed),
            "statuses": [str(status) for status, _ in changed.values()],
            "reasons": [reason for _, reason in changed.values()],
        }
        moved = connection.execute(query("nodes/move_nodes"), values).fetchall()
    for row in moved[:MOVES_TOLD]:
        log.warning("node %s: %s -> %s: %s", row["id"], row["from_status"], row["to_status"], row["reason"])
    if len(moved) > MOVES_TOLD:
        log.warning("%d nodes more have changed their state: collect.node_log", len(moved) - MOVES_TOLD)
    return [
        Moved(
            node_id=row["id"],
            from_status=row["from_status"],
            to_status=row["to_status"],
            reason=row["reason"],
        )
        for row in moved
    ]


def _changed(
    rows: Sequence[Mapping[str, Any]], liveness: Liveness, rules: PlacementRules
) -> dict[str, tuple[NodeStatus, str]]:
    """The nodes whose state is another one now, with that state and why."""
    # Before the ages: a flush between the two then shows as keys that are there.
    keys_lost = liveness.keys_lost()
    ages = liveness.ages([row["id"] for row in rows])
    keys_lost |= liveness.keys_lost()
    many = _many_missing(rows, ages)
    found = {
        row["id"]: status_of(_known(row, ages, keys_lost=keys_lost, many_missing=many), rules) for row in rows
    }
    return {row["id"]: found[row["id"]] for row in rows if found[row["id"]][0] != row["status"]}


def _many_missing(rows: Sequence[Mapping[str, Any]], ages: Mapping[str, float]) -> bool:
    """Whether more than half of the nodes that lived have no key now: then it may be Redis that was not reachable."""
    lived = [row["id"] for row in rows if row["status"] in _LIVING]
    return 2 * sum(node_id not in ages for node_id in lived) > len(lived)


def _known(
    row: Mapping[str, Any], ages: Mapping[str, float], *, keys_lost: bool, many_missing: bool
) -> Known:
    return Known(
        status=NodeStatus(row["status"]),
        key_age_s=ages.get(row["id"]),
        keys_lost=keys_lost,
        many_missing=many_missing,
        status_for_s=row["status_for_s"],
        draining=row["draining"],
        left=row["leaving"],
        losses=row["losses"],
        back_for_s=row["back_for_s"],
    )


def _ingest(
    connection: Connection,
    backends: Backends,
    rules: PlacementRules,
    names: Names,
    done: Ingested,
    *,
    until: float,
) -> None:
    with Consumer(backends.amqp_url) as consumer, Publisher(backends.amqp_url) as publisher:
        while block := consumer.take(names.queue, BLOCK):
            read, refused = _read(block)
            refused += _take_in_safely(connection, rules, read, done)
            dead = publisher.publish([_dead(delivery, error, names) for delivery, error in refused])
            lost = {refused[i][0].tag for i in range(len(refused)) if i not in dead.confirmed}
            consumer.ack([delivery.tag for delivery in block if delivery.tag not in lost])
            done.refused += len(refused)
            if time.monotonic() > until:
                done.more = consumer.depth(names.queue) > 0
                return


Refused = tuple[Delivery, CollectOpsError]


def _read(block: Sequence[Delivery]) -> tuple[list[tuple[Delivery, Heartbeat]], list[Refused]]:
    read: list[tuple[Delivery, Heartbeat]] = []
    refused: list[Refused] = []
    for delivery in block:
        try:
            read.append((delivery, decode(delivery.body)))
        except ValidationFailed as error:
            refused.append((delivery, error))
    return read, refused


def _take_in_safely(
    connection: Connection,
    rules: PlacementRules,
    read: Sequence[tuple[Delivery, Heartbeat]],
    done: Ingested,
) -> list[Refused]:
    """A heartbeat that the database refuses, whatever it holds, must not keep out the others."""
    try:
        return _take_in(connection, rules, read, done)
    except (errors.OperationalError, errors.InterfaceError):
        raise
    except errors.DatabaseError as error:
        if len(read) == 1:
            fault = Fault(field="body", value=None, problem=f"cannot be stored: {error}")
            return [(read[0][0], ValidationFailed("heartbeat", [fault]))]
    middle = len(read) // 2
    return [
        *_take_in_safely(connection, rules, read[:middle], done),
        *_take_in_safely(connection, rules, read[middle:], done),
    ]


def _take_in(
    connection: Connection,
    rules: PlacementRules,
    read: Sequence[tuple[Delivery, Heartbeat]],
    done: Ingested,
) -> list[Refused]:
    """Bring nodes up to date and the machine log on; returns heartbeats that claim what is another machine's."""
    if not read:
        return []
    by_node: defaultdict[str, list[Heartbeat]] = defaultdict(list)
    for _, heartbeat in read:
        by_node[heartbeat.node_id].append(heartbeat)
    with connection.transaction():
        before = _machines(connection, by_node)
        # Two machines, or two starts, in one block: the older first, so that the newer one is what stays.
        for round_ in _rounds(by_node):
            values = {
                "heartbeats": Jsonb([each.model_dump(mode="json") for each in round_]),
                "alive_s": rules.heartbeat.alive_s,
            }
            done.nodes += len(connection.execute(query("nodes/upsert_nodes"), values).fetchall())
        owners = _machines(connection, by_node)
        foreign = [
            (delivery, _claimed(heartbeat, owners[heartbeat.node_id]))
            for delivery, heartbeat in read
            # The id may have changed hands within the block.
            if heartbeat.machine
            not in {
                found[heartbeat.node_id]["machine"]
                for found in (before, owners)
                if heartbeat.node_id in found
            }
        ]
        strangers = {delivery.tag for delivery, _ in foreign}
        ours = [heartbeat for delivery, heartbeat in read if delivery.tag not in strangers]
        connection.execute(query("nodes/insert_samples"), {"heartbeats": Jsonb(_samples(ours))})
    done.heartbeats += len(ours)
    return list(foreign)


def _machines(connection: Connection, node_ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Whose the ids are."""
    values = {"node_ids": list(node_ids)}
    rows = connection.execute(query("nodes/select_machines"), values).fetchall()
    return {row["id"]: row for row in rows}


def _rounds(by_node: Mapping[str, Sequence[Heartbeat]]) -> list[list[Heartbeat]]:
    """Of each node the newest of each start, oldest start first: one a node and round."""
    chosen: list[list[Heartbeat]] = []
    for heartbeats in by_node.values():
        newest: dict[tuple[str, str], Heartbeat] = {}
        for each in heartbeats:
            start = (each.machine, each.boot_id)
            if start not in newest or each.seq > newest[start].seq:
                newest[start] = each
        for place, each in enumerate(sorted(newest.values(), key=lambda found: found.started_at)):
            if place == len(chosen):
                chosen.append([])
            chosen[place].append(each)
    return chosen


def _samples(heartbeats: Sequence[Heartbeat]) -> list[dict[str, Any]]:
    newest: dict[str, Heartbeat] = {}
    for each in heartbeats:
        if each.node_id not in newest or each.sent_at > newest[each.node_id].sent_at:
            newest[each.node_id] = each
    ages_s = ((newest[each.node_id].sent_at - each.sent_at).total_seconds() for each in heartbeats)
    return [
        {**each.model_dump(mode="json"), "age_s": min(age_s, MAX_AGE_S)}
        for each, age_s in zip(heartbeats, ages_s, strict=True)
    ]


def _claimed(heartbeat: Heartbeat, owner: Mapping[str, Any]) -> ValidationFailed:
    problem = (
        f"belongs to {owner['name']} at {owner['address']}, which lives; {heartbeat.name} needs another one"
    )
    return ValidationFailed("heartbeat", [Fault(field="node_id", value=heartbeat.node_id, problem=problem)])


def _dead(delivery: Delivery, error: CollectOpsError, names: Names) -> OutgoingMessage:
    return OutgoingMessage(
        exchange=names.dead_exchange,
        routing_key=names.queue,
        body=delivery.body,
        content_type="application/octet-stream",
        headers={
            "error-message": ascii(str(error))[1:-1][:MAX_ERROR_CHARS],
            "failed-time": int(time.time()),
            "retry-count": 0,
            "producer": delivery.app_id or "unknown",
            "original-routing-key": ascii(delivery.routing_key)[1:-1],
        },
        # So that two equal ones count as two.
        message_id=f"heartbeat-{uuid.uuid4().hex}",
    )
