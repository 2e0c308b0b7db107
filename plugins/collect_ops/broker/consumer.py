"""Taking messages in blocks, with manual acks.

A block is taken by a consumer with a prefetch of the block's size, so that it costs one round trip, not one a message
(measured: 633 `basic_get` + ack a second; DESIGN section 5), and the consumer is cancelled before the block is looked
at: nothing is prefetched beyond what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from collect_ops.broker.connection import BrokerUnavailable
from collect_ops.broker.topology import open_channel
from collect_ops.kernel.errors import CollectOpsError, Permanent


class QueueMissing(CollectOpsError, Permanent):
    """The queue is not declared."""

    def __init__(self, queue: str, reply: str) -> None:
        self.queue = queue
        super().__init__(f"queue {queue} is not there ({reply}); the topology is declared by `collect-ops topology`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message taken and not yet acked."""

    tag: int
    body: bytes
    headers: dict[str, Any]
    priority: int
    redelivered: bool
    routing_key: str


class Consumer:
    """One channel on which blocks of messages are taken. Closing it gives back whatever was not acked.

    Args:
        amqp_url: Where RabbitMQ is.

    Raises:
        BrokerUnavailable: RabbitMQ did not accept the connection; or, from any method, closed it.
    """

    def __init__(self, amqp_url: str) -> None:
        self._connection, self._channel = open_channel(amqp_url)

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def depth(self, queue: str) -> int:
        """Messages that are ready in a queue.

        Raises:
            QueueMissing: There is no such queue.
        """
        try:
            return int(self._channel.queue_declare(queue=queue, passive=True).method.message_count)
        except ChannelClosedByBroker as error:
            raise QueueMissing(queue, error.reply_text) from error
        except AMQPError as error:
            raise BrokerUnavailable(error) from error

    def take(self, queue: str, limit: int, *, wait_s: float = 0.2) -> list[Delivery]:
        """Take up to `limit` messages, highest priority first.

        Args:
            queue: Queue name.
            limit: How many at most.
            wait_s: How long to wait for a message that the queue has named but not yet delivered.

        Raises:
            QueueMissing: There is no such queue.
        """
        limit = min(limit, self.depth(queue))
        if limit <= 0:
            return []
        taken: list[Delivery] = []
        try:
            self._channel.basic_qos(prefetch_count=limit)
            for method, properties, body in self._channel.consume(queue, inactivity_timeout=wait_s):
                if method is None:
                    break
                taken.append(_delivery(method, properties, body))
                if len(taken) == limit:
                    break
            self._channel.cancel()
        except AMQPError as error:
            raise BrokerUnavailable(error) from error
        return taken

    def ack(self, tags: Iterable[int]) -> None:
        """Ack messages: their work is committed, or they are stale."""
        self._each(tags, lambda tag: self._channel.basic_ack(tag))

    def give_back(self, tags: Iterable[int]) -> None:
        """Return messages to their place in the queue."""
        self._each(tags, lambda tag: self._channel.basic_nack(tag, requeue=True))

    def close(self) -> None:
        """Close the connection."""
        if self._connection.is_open:
            self._connection.close()

    def _each(self, tags: Iterable[int], act: Any) -> None:
        # Acks are not answered: a loop of them is one write, not a round trip each.
        try:
            for tag in tags:
                act(tag)
            self._connection.process_data_events(0)
        except AMQPError as error:
            raise BrokerUnavailable(error) from error


def _delivery(method: Any, properties: pika.BasicProperties, body: bytes) -> Delivery:
    return Delivery(
        tag=method.delivery_tag,
        body=body,
        headers=dict(properties.headers or {}),
        priority=properties.priority or 0,
        redelivered=method.redelivered,
        routing_key=method.routing_key,
    )
