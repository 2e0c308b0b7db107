"""Draining the dead-letter queue into PostgreSQL, where people can read it. Safe to run twice and at the same time.

Messages are acked after they are committed; one that comes again stores nothing. None makes the drain fail.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from collect_ops.broker.consumer import Consumer, Delivery
from collect_ops.delivery.dead_message import DeadMessage, bare_message, dead_message
from collect_ops.delivery.fingerprint import fingerprint
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import LaneRules
from collect_ops.storage import Connection, Jsonb, connect, errors, query

log = logging.getLogger(__name__)

#: Messages taken in one go: few, since each may be as large as the broker lets it be.
BLOCK = 50
#: Dead letters whose fingerprints are worked out in one transaction.
READ_BLOCK = 1000
#: A drain ends after this, in seconds, and goes on with the next sweep.
TIME_LIMIT_S = 15.0


@dataclass(slots=True, kw_only=True)
class Drained:
    """What a drain did.

    Args:
        messages: Taken from the queue and acked.
        letters: Of them those that belong to a task's dead letter and were not known.
        others: Of them messages without a task that were not known.
        read: Fingerprints worked out.
        settled: Redriven letters whose task has ended again.
        more: The time was up before the queue was empty.
    """

    messages: int = 0
    letters: int = 0
    others: int = 0
    read: int = 0
    settled: int = 0
    more: bool = field(default=False)

    def as_counts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def run_once(backends: Backends, rules: LaneRules, *, time_limit_s: float = TIME_LIMIT_S) -> Drained:
    """Take what is in the dead-letter queue, and bring the letters' fingerprints and states up to date.

    Args:
        backends: Where the services are.
        rules: Lane rules.
        time_limit_s: Seconds after which no further block is taken.

    Raises:
        QueueMissing: The topology is not declared.
        BrokerUnavailable: RabbitMQ went away; what was not acked comes again.
        DatabaseUnavailable: PostgreSQL did; likewise.
    """
    until = time.monotonic() + time_limit_s
    done = Drained()
    with connect(backends.postgres_dsn, application_name="collect-ops dead letters") as connection:
        with Consumer(backends.amqp_url) as consumer:
            while block := consumer.take(rules.broker.dead_queue, BLOCK):
                letters, others = store(connection, [(each, dead_message(each, rules)) for each in block])
                consumer.ack([each.tag for each in block])
                done.messages += len(block)
                done.letters += letters
                done.others += others
                if time.monotonic() > until:
                    done.more = consumer.depth(rules.broker.dead_queue) > 0
                    break
        done.read = read_letters(connection)
        done.settled = settle_redriven(connection)
        sum_up_groups(connection)
    if done.messages or done.read or done.settled:
        log.info("dead letters: %s", done)
    return done


def store(connection: Connection, messages: Sequence[tuple[Delivery, DeadMessage]]) -> tuple[int, int]:
    """Keep messages, committed; returns how many of tasks' letters and how many others were new.

    A message that the database refuses is kept without its headers, so that it does not hold up the others.
    """
    try:
        return _store(connection, [message for _, message in messages])
    except (errors.OperationalError, errors.InterfaceError):
        raise
    except errors.DatabaseError as error:
        if len(messages) == 1:
            log.error("a dead message is kept without its headers: %s", error)
            return _store(connection, [bare_message(messages[0][0], str(error))])
        log.warning("a block of dead messages is refused, it is stored in halves: %s", error)
    middle = len(messages) // 2
    halves = [store(connection, messages[:middle]), store(connection, messages[middle:])]
    return sum(letters for letters, _ in halves), sum(others for _, others in halves)


def _store(connection: Connection, messages: Sequence[DeadMessage]) -> tuple[int, int]:
    with connection.transaction():
        named = [message.letter_id for message in messages if message.letter_id is not None]
        rows = (
            connection.execute(query("delivery/select_letter_ids"), {"ids": named}).fetchall()
            if named
            else []
        )
        known = {row["id"] for row in rows}
        # Two passes of the outbox may both have sent a letter: one of its messages is enough.
        letters = {message.letter_id: message for message in messages if message.letter_id in known}
        others = {message.key: message for message in messages if message.letter_id not in known}
        recorded = _record(connection, list(letters.values())) if letters else 0
        inserted = _insert(connection, list(others.values())) if others else 0
    return recorded, inserted


def _record(connection: Connection, messages: Sequence[DeadMessage]) -> int:
    values = {"letter_ids": [message.letter_id for message in messages], **_columns(messages)}
    return len(connection.execute(query("delivery/record_dead_messages"), values).fetchall())


def _insert(connection: Connection, messages: Sequence[DeadMessage]) -> int:
    values = {
        "message_keys": [message.key for message in messages],
        "error_messages": [message.error_message for message in messages],
        "failed_at": [
            time.time() if message.failed_at is None else message.failed_at for message in messages
        ],
        "retry_counts": [message.retry_count for message in messages],
        "send_exchanges": [message.exchange for message in messages],
        "send_routing_keys": [message.send_routing_key for message in messages],
        **_columns(messages),
    }
    return len(connection.execute(query("delivery/insert_dead_messages"), values).fetchall())


def _columns(messages: Sequence[DeadMessage]) -> dict[str, Any]:
    return {
        "message_ids": [message.message_id for message in messages],
        "routing_keys": [message.routing_key for message in messages],
        "headers": [Jsonb(message.headers) for message in messages],
        "properties": [Jsonb(message.properties) for message in messages],
        "x_deaths": [None if message.x_death is None else Jsonb(message.x_death) for message in messages],
        "bodies": [message.body for message in messages],
        "body_bytes": [message.body_bytes for message in messages],
    }


def read_letters(connection: Connection) -> int:
    """Work out the fingerprints of letters that have none; returns of how many."""
    count = 0
    while True:
        with connection.transaction():
            rows = connection.execute(query("delivery/lock_unread_letters"), {"limit": READ_BLOCK}).fetchall()
            if not rows:
                return count
            found = [fingerprint(row["error_class"], row["error_message"]) for row in rows]
            connection.execute(
                query("delivery/set_fingerprints"),
                {
                    "ids": [row["id"] for row in rows],
                    "fingerprints": [each.value for each in found],
                    "patterns": [each.pattern for each in found],
                    "error_classes": [row["error_class"] for row in rows],
                    "sources": [row["source"] for row in rows],
                },
            )
        count += len(rows)


def sum_up_groups(connection: Connection) -> None:
    """Sum up what has been counted of groups since the last time: telling of them reads it all."""
    connection.execute(query("delivery/sum_up_dead_groups"))


def settle_redriven(connection: Connection) -> int:
    """Note on redriven letters how their tasks have ended; returns on how many."""
    return len(connection.execute(query("delivery/settle_redriven")).fetchall())
