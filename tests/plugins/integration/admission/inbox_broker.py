"""What a producer sees of the inbox: it publishes, and reads its replies; and what lies in the dead-letter queue."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import pika

from collect_ops.broker.consumer import Consumer, Delivery

INBOX = "collect.inbox"
DEAD = "collect.dead"


class Producer:
    """A connection that publishes to the inbox.

    Args:
        amqp_url: Where RabbitMQ is.
    """

    def __init__(self, amqp_url: str) -> None:
        self.amqp_url = amqp_url
        self._connection = pika.BlockingConnection(pika.URLParameters(amqp_url))
        self.channel = self._connection.channel()
        self.channel.confirm_delivery()
        self.replies = self.channel.queue_declare("", exclusive=True).method.queue

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def publish(
        self, body: object, *, exchange: str = INBOX, key: str = "any.key", **properties: Any
    ) -> None:
        """Publish one message; what is no bytes is written as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.channel.basic_publish(exchange, key, raw, pika.BasicProperties(**properties), mandatory=True)

    def ask(self, body: object, correlation_id: str, **properties: Any) -> None:
        """Publish one message that wants a reply."""
        self.publish(body, correlation_id=correlation_id, **{"reply_to": self.replies, **properties})

    def answers(self) -> dict[str | None, dict[str, Any]]:
        """Replies that have arrived, by correlation id."""
        found = {}
        while True:
            method, properties, body = self.channel.basic_get(self.replies, auto_ack=True)
            if method is None:
                return found
            assert properties.correlation_id not in found, "answered twice"
            found[properties.correlation_id] = json.loads(body)


def depth(amqp_url: str, queue: str) -> int:
    """Messages in a queue."""
    with Consumer(amqp_url) as consumer:
        return consumer.depth(queue)


def drain(amqp_url: str, queue: str) -> list[Delivery]:
    """Take everything out of a queue."""
    found: list[Delivery] = []
    with Consumer(amqp_url) as consumer:
        while taken := consumer.take(queue, 500):
            consumer.ack(each.tag for each in taken)
            found += taken
    return found


def reasons(letters: Iterable[Delivery]) -> list[str]:
    """What dead letters say."""
    return [str(letter.headers["error-message"]) for letter in letters]
