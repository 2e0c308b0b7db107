"""Publishing collect tasks to their lanes, and recording what the broker confirmed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collect_ops.broker.message import OutgoingMessage, TaskMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.broker.topology import RETRY_DELAY_HEADER
from collect_ops.lanes.rules import LaneRules
from collect_ops.storage import Connection, query


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A generation of a collect task, on its way to its lane.

    Args:
        delay_s: Seconds until it is due; above zero it takes the retry ladder.
        retry_count: Goes along as a header for people who look at queues.
    """

    task_id: int
    generation: int
    priority: int
    lane: str
    delay_s: float = 0.0
    retry_count: int = 0


def publication_of(row: Mapping[str, Any], *, delay_s: float | None = None) -> Publication:
    """The publication of a task's row.

    Args:
        row: With id, generation, priority, lane, retry_count, and `due_in_s` where the task may have to wait.
        delay_s: Seconds until it is due, instead of the row's.
    """
    due_in_s = row.get("due_in_s") if delay_s is None else delay_s
    return Publication(
        task_id=row["id"],
        generation=row["generation"],
        priority=row["priority"],
        lane=row["lane"],
        delay_s=max(0.0, due_in_s or 0.0),
        retry_count=row["retry_count"],
    )


def as_message(publication: Publication, rules: LaneRules) -> OutgoingMessage:
    """The message of a publication."""
    headers: dict[str, str | int | float] = {"retry-count": publication.retry_count}
    exchange = rules.broker.exchange
    if publication.delay_s > 0:
        exchange = rules.broker.retry_exchange
        headers[RETRY_DELAY_HEADER] = rules.rung(publication.delay_s)
    return OutgoingMessage(
        exchange=exchange,
        routing_key=rules.routing_key(publication.lane),
        body=TaskMessage(task_id=publication.task_id, generation=publication.generation).encode(),
        priority=publication.priority,
        headers=headers,
        message_id=f"{publication.task_id}.{publication.generation}",
    )


def publish(
    connection: Connection, publisher: Publisher, rules: LaneRules, publications: Sequence[Publication]
) -> list[Publication]:
    """Publish and record the confirms; returns what was confirmed. The rest is the outbox's to publish again."""
    done = publisher.publish([as_message(publication, rules) for publication in publications])
    confirmed = [publications[index] for index in sorted(done.confirmed)]
    if confirmed:
        connection.execute(
            query("lanes/confirm_publication"),
            {
                "task_ids": [publication.task_id for publication in confirmed],
                "generations": [publication.generation for publication in confirmed],
            },
        )
    return confirmed
