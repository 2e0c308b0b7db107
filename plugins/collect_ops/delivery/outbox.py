"""The outbox: what is committed and not confirmed by the broker is published (again) until it is."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import orjson

from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.lanes.publication import publication_of, publish
from collect_ops.lanes.rules import LaneRules
from collect_ops.storage import Connection, query

log = logging.getLogger(__name__)

BATCH = 2000
#: Seconds from which a publication counts as overdue: its publisher has given up, or has died.
OVERDUE_S = 5.0
#: Characters of an error in a message's header, which must fit into a frame (128 KB); the letter's row holds all of it.
MAX_ERROR_CHARS = 16_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRun:
    """What a pass did: generations and dead letters found and confirmed, and the lanes that got work."""

    found: int
    confirmed: int
    dead_letters: int
    lanes: frozenset[str]


def run_once(
    connection: Connection, publisher: Publisher, rules: LaneRules, *, older_than_s: float = OVERDUE_S
) -> OutboxRun:
    """Publish what the broker has not confirmed, in batches, until nothing is left or the broker refuses.

    Args:
        connection: Autocommit connection.
        publisher: Where to publish.
        rules: Lane rules.
        older_than_s: Age in seconds from which a publication counts as overdue.
    """
    found = confirmed = 0
    lanes: set[str] = set()
    seen: set[tuple[int, int]] = set()
    while rows := connection.execute(
        query("delivery/select_unconfirmed"), {"older_than_s": older_than_s, "limit": BATCH}
    ).fetchall():
        named = {(row["id"], row["generation"]) for row in rows}
        if named <= seen:
            break  # sent, but in somebody's hands (a claim's), so not recorded: not to be sent for ever
        seen |= named
        done = publish(connection, publisher, rules, [publication_of(row) for row in rows])
        found += len(rows)
        confirmed += len(done)
        lanes |= {publication.lane for publication in done if publication.delay_s <= 0}
        if len(done) < len(rows):
            break
    dead = publish_dead_letters(connection, publisher, rules)
    if found or dead:
        log.info("outbox: %d of %d generations confirmed, %d dead letters", confirmed, found, dead)
    return OutboxRun(found=found, confirmed=confirmed, dead_letters=dead, lanes=frozenset(lanes))


def publish_dead_letters(connection: Connection, publisher: Publisher, rules: LaneRules) -> int:
    """Bring dead letters to `collect.dead`; returns how many were confirmed."""
    confirmed = 0
    while rows := connection.execute(query("delivery/select_dead_letters"), {"limit": BATCH}).fetchall():
        done = publisher.publish([_dead_message(row, rules) for row in rows])
        ids = [rows[index]["id"] for index in sorted(done.confirmed)]
        if ids:
            connection.execute(query("delivery/confirm_dead_letters"), {"ids": ids})
        confirmed += len(ids)
        if len(ids) < len(rows):
            break
    return confirmed


def _dead_message(row: dict[str, Any], rules: LaneRules) -> OutgoingMessage:
    body = {
        "schema": 1,
        "dead_letter_id": row["id"],
        "task_id": row["task_id"],
        "generation": row["generation"],
        "attempt": row["attempt"],
        "source": row["source"],
        "path": row["path"],
        "params": row["params"],
    }
    return OutgoingMessage(
        exchange=rules.broker.dead_queue,
        routing_key=row["source"],
        body=orjson.dumps(body),
        priority=row["priority"],
        headers={
            "error-message": row["error_message"][:MAX_ERROR_CHARS],
            "failed-time": row["failed_time"],
            "retry-count": row["retry_count"],
        },
        message_id=f"dead-{row['id']}",
    )
