"""Taking messages in blocks, with manual acks.

A block is taken by a consumer with a prefetch of the block's size, so that it costs one round trip, not one a message
(measured: 633 `basic_get` + ack a second; DESIGN section 5), and the consumer is cancelled before the block is looked
at: nothing is prefetched beyond what was asked for.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from types import TracebackType
from typing import Any, Self

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker, ChannelWrongStateError

from collect_ops.broker.connection import failure_of
from collect_ops.broker.topology import close_connection, open_channel
from collect_ops.kernel.errors import CollectOpsError, Permanent, Transient

log = logging.getLogger(__name__)

#: Seconds between two answers to heartbeats (the broker gives up after two missed, 60 s each).
_HEARTBEAT_PAUSE_S = 5.0
_NOT_FOUND, _PRECONDITION_FAILED = 404, 406
# RabbitMQ has no code of its own for it; the sentence has been the same since 3.8.
_TIMED_OUT = re.compile(r"delivery acknowledgement .* timed out(?:.*?(?P<milliseconds>\d+) ms)?", re.DOTALL)


class QueueMissing(CollectOpsError, Permanent):
    """The queue is not declared."""

    def __init__(self, queue: str, reply: str) -> None:
        self.queue = queue
        super().__init__(
            f"queue {queue} is not there ({reply}); the topology is declared by `collect-ops topology`"
        )


class DeliveryTimedOut(CollectOpsError, Transient):
    """RabbitMQ took messages back that nobody had answered for in time, and closed the channel; it runs.

    Args:
        queue: Where messages were taken from last.
        reply: What RabbitMQ says.
    """

    def __init__(self, queue: str, reply: str) -> None:
        self.queue, self.reply = queue, reply
        found = _TIMED_OUT.search(reply)
        milliseconds = found["milliseconds"] if found else None
        #: The broker's limit, if it says which.
        self.timeout_s = None if milliseconds is None else int(milliseconds) / 1000
        limit = "" if self.timeout_s is None else f" of {self.timeout_s:g} s"
        super().__init__(
            f"messages of queue {queue} were held for longer than RabbitMQ's consumer_timeout{limit}, "
            f"so it has closed the channel and delivers them again: {reply}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message taken and not yet acked.

    `properties` are all of them, as they came. Those from `message_id` on are the publisher's word for them; text that
    is no UTF-8 shows as escapes.
    """

    tag: int
    body: bytes
    headers: dict[str, Any]
    priority: int
    redelivered: bool
    routing_key: str
    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    app_id: str | None = None
    user_id: str | None = None
    properties: pika.BasicProperties = field(default_factory=pika.BasicProperties, repr=False, compare=False)


class Consumer:
    """One channel on which blocks of messages are taken. Closing it gives back whatever was not acked.

    Args:
        amqp_url: Where RabbitMQ is.

    Raises:
        BrokerUnavailable: RabbitMQ did not accept the connection; or, from any method, closed it.
        BrokerRefused: From any method: RabbitMQ does not do it (rights, an exclusive queue).
        DeliveryTimedOut: From `take`, `ack`, `give_back` and `reject`: what was taken before was held for too long.
    """

    def __init__(self, amqp_url: str) -> None:
        self._connection, self._channel = open_channel(amqp_url)
        # A missing queue closes the channel that asked, and what was taken on it would be delivered again.
        self._questions: BlockingChannel | None = None
        self._unanswered: set[int] = set()
        self._queue = ""

    def __enter__(self) -> Self:
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
            if self._questions is None or not self._questions.is_open:
                self._questions = self._connection.channel()
            return int(self._questions.queue_declare(queue=queue, passive=True).method.message_count)
        except AMQPError as error:
            raise _failure(queue, self._questions, error) from error

    def take(self, queue: str, limit: int, *, wait_s: float = 1.0) -> list[Delivery]:
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
        self._queue = queue
        try:
            self._channel.basic_qos(prefetch_count=limit)
            for method, properties, body in self._channel.consume(queue, inactivity_timeout=wait_s):
                if method is None:
                    break
                taken.append(_delivery(method, properties, body))
                self._unanswered.add(taken[-1].tag)
                if len(taken) == limit:
                    break
            self._channel.cancel()
        except AMQPError as error:
            raise _failure(queue, self._channel, error) from error
        return taken

    def ack(self, tags: Iterable[int]) -> None:
        """Ack messages: their work is committed, or they are stale."""
        acked = set(tags)
        # One ack says it for all that were taken before and wait for an answer: a frame each is a system call each.
        first = list(takewhile(acked.__contains__, sorted(self._unanswered)))
        self._unanswered.difference_update(first)
        self._each(
            [*first[-1:], *sorted(acked.difference(first))],
            lambda tag: self._channel.basic_ack(tag, multiple=tag in first[-1:]),
        )

    def give_back(self, tags: Iterable[int]) -> None:
        """Return messages to their place in the queue."""
        self._each(tags, lambda tag: self._channel.basic_nack(tag, requeue=True))

    def reject(self, tags: Iterable[int]) -> None:
        """Refuse messages for good: the queue's dead-letter exchange gets them; without one they are gone."""
        self._each(tags, lambda tag: self._channel.basic_nack(tag, requeue=False))

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Answer heartbeats from a thread while the caller works on what it took.

        Without it the broker cuts off a caller that works for two minutes, and delivers its messages again.
        Within it, no other method of the consumer may be called. A loss in between shows at the next call.
        """
        done = threading.Event()
        thread = threading.Thread(target=self._answer_heartbeats, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def close(self) -> None:
        """Close the connection; one that is lost already is closed enough."""
        close_connection(self._connection)

    def _answer_heartbeats(self, done: threading.Event) -> None:
        while not done.wait(_HEARTBEAT_PAUSE_S):
            try:
                self._connection.process_data_events(0)
            except AMQPError as error:
                log.warning("connection lost while its messages were worked on: they come again: %r", error)
                return

    def _each(self, tags: Iterable[int], act: Callable[[int], None]) -> None:
        # Acks are not answered, so a loop of them is no round trip each. A question after them is: a channel's methods
        # are dealt with in order, so its answer says that the acks have arrived, and a dead connection shows.
        try:
            for tag in tags:
                act(tag)
                self._unanswered.discard(tag)
            self._channel.basic_qos(prefetch_count=1)
        except AMQPError as error:
            raise _failure(self._queue, self._channel, error) from error


def _failure(queue: str, channel: BlockingChannel | None, error: AMQPError) -> CollectOpsError:
    if isinstance(error, ChannelWrongStateError):
        # The channel was closed while heartbeats were answered, say; pika keeps the reason and does not tell it again.
        reason = getattr(channel, "_closing_reason", None)
        error = reason if isinstance(reason, ChannelClosedByBroker) else error
    if isinstance(error, ChannelClosedByBroker):
        if error.reply_code == _NOT_FOUND:
            return QueueMissing(queue, error.reply_text)
        if error.reply_code == _PRECONDITION_FAILED and _TIMED_OUT.search(error.reply_text):
            return DeliveryTimedOut(queue, error.reply_text)
    return failure_of(f"what was asked of queue {queue}", error)


def _delivery(method: Any, properties: pika.BasicProperties, body: bytes) -> Delivery:
    return Delivery(
        tag=method.delivery_tag,
        body=body,
        headers=dict(properties.headers or {}),
        priority=properties.priority or 0,
        redelivered=method.redelivered,
        routing_key=_text(method.routing_key) or "",
        message_id=_text(properties.message_id),
        correlation_id=_text(properties.correlation_id),
        reply_to=_text(properties.reply_to),
        app_id=_text(properties.app_id),
        user_id=_text(properties.user_id),
        properties=properties,
    )


def _text(value: str | bytes | None) -> str | None:
    """A short string, which pika leaves as bytes when it is no UTF-8."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
