"""Publishing with streamed publisher confirms.

All messages of a batch go out at once; the confirms come back while they do. Awaiting each confirm costs a round
trip a message (measured: 274 a second against 7,950; DESIGN section 5). `mandatory`: a message that no queue takes
comes back and counts as not confirmed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from types import TracebackType
from typing import Self

import pika
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.frame import Method

from collect_ops.broker.connection import BrokerUnavailable, parameters, pika_quiet
from collect_ops.broker.message import OutgoingMessage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What became of a batch, by index into it.

    Args:
        confirmed: The broker has it, in a queue.
        unroutable: No queue took it: the topology is not declared, or the exchange or key is wrong.
        failure: Why the rest is unknown (connection lost, time-out), None when every message has its answer.
    """

    confirmed: frozenset[int]
    unroutable: frozenset[int]
    failure: str | None


@dataclass(slots=True)
class _Batch:
    messages: Sequence[OutgoingMessage]
    waiting: dict[int, int] = field(default_factory=dict)  # delivery tag -> index
    confirmed: set[int] = field(default_factory=set)
    unroutable: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    failure: str | None = None
    lost: bool = False  # the connection ended, as opposed to a time-out or a refusal

    @property
    def unanswered(self) -> bool:
        return not (self.confirmed or self.unroutable or self.refused)


class Publisher:
    """Publishes batches over one connection, which is opened at the first batch and kept until closed.

    Not for use from several threads at once.

    Args:
        amqp_url: Where RabbitMQ is.
        timeout_s: How long a batch may wait for its confirms before the rest counts as unknown.
    """

    def __init__(self, amqp_url: str, *, timeout_s: float = 20.0) -> None:
        self._parameters = parameters(amqp_url)
        self._timeout_s = timeout_s
        self._connection: pika.SelectConnection | None = None
        self._channel: Channel | None = None
        self._next_tag = 1
        self._batch = _Batch(())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def publish(self, messages: Sequence[OutgoingMessage]) -> Published:
        """Publish a batch and wait for its confirms.

        Never raises for a broker that is away: what is not confirmed is for the outbox to publish again.
        """
        if not messages:
            return Published(confirmed=frozenset(), unroutable=frozenset(), failure=None)
        kept = self._connection is not None
        batch = self._attempt(messages)
        if kept and batch.lost and batch.unanswered:
            # Between batches nobody answers heartbeats, so a kept connection may be dead without our knowing.
            log.info("kept connection was lost (%s): publishing over a new one", batch.failure)
            batch = self._attempt(messages)
        if batch.failure:
            log.warning("published %d of %d messages: %s", len(batch.confirmed), len(messages), batch.failure)
        if batch.unroutable:
            log.error(
                "no queue took %d of %d messages: is the topology declared?",
                len(batch.unroutable),
                len(messages),
            )
        return Published(
            confirmed=frozenset(batch.confirmed),
            unroutable=frozenset(batch.unroutable),
            failure=batch.failure,
        )

    def close(self) -> None:
        """Close the connection, if there is one; waits up to two seconds for the broker's answer."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is None:
            return
        loop = connection.ioloop
        # A lost connection's socket is closed by callbacks that have not run yet.
        patience_s = 0.1
        try:
            if not connection.is_closed:
                connection.add_on_close_callback(lambda *_: loop.stop())
                if not connection.is_closing:
                    connection.close()
                patience_s = 2.0
        except AMQPError as error:
            log.warning("RabbitMQ connection not closed cleanly: %r", error)
        try:
            loop.call_later(patience_s, loop.stop)
            loop.start()
            if not connection.is_closed:
                # Nobody answered. Pika offers no other way to close the socket, and would leave that to the garbage
                # collector.
                connection._adapter_disconnect_stream()  # noqa: SLF001
                loop.call_later(0.1, loop.stop)
                loop.start()
        except (AMQPError, OSError) as error:
            log.warning("RabbitMQ connection not closed cleanly: %r", error)
        finally:
            loop.close()

    # The loop runs only while a batch waits. A connection that died in between is noticed with the next batch.

    def _attempt(self, messages: Sequence[OutgoingMessage]) -> _Batch:
        self._batch = batch = _Batch(messages)
        finished = False
        try:
            with pika_quiet():  # what fails is in `failure`
                self._run(batch)
            finished = batch.failure is None
        except (AMQPError, OSError, BrokerUnavailable) as error:
            batch.failure, batch.lost = repr(error), True
        finally:
            # Also after an error of ours (a body that is no bytes): confirms under way must not reach the next.
            if not finished:
                self.close()
        return batch

    def _run(self, batch: _Batch) -> None:
        if self._connection is None or not self._connection.is_open or self._channel is None:
            self.close()
            self._connection = pika.SelectConnection(
                self._parameters,
                on_open_callback=self._on_connection_open,
                on_open_error_callback=self._on_open_error,
                on_close_callback=self._on_connection_closed,
            )
        else:
            self._connection.ioloop.add_callback_threadsafe(self._send)
        loop = self._connection.ioloop
        timer = loop.call_later(self._timeout_s, self._on_timeout)
        loop.start()
        if batch.failure is None:
            loop.remove_timeout(timer)

    def _stop(self, failure: str | None = None) -> None:
        if failure is not None:
            self._batch.failure = failure
        if self._connection is not None:
            self._connection.ioloop.stop()

    def _on_connection_open(self, connection: pika.SelectConnection) -> None:
        connection.channel(on_open_callback=self._on_channel_open)

    def _on_open_error(self, _connection: pika.SelectConnection, error: BaseException) -> None:
        self._stop(f"RabbitMQ did not accept the connection: {error!r}")

    def _on_connection_closed(self, connection: pika.SelectConnection, reason: BaseException) -> None:
        if connection is not self._connection:  # we close it
            return
        self._channel, self._batch.lost = None, True
        self._stop(f"connection closed: {reason!r}")

    def _on_channel_open(self, channel: Channel) -> None:
        self._channel, self._next_tag = channel, 1
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _frame: self._send())

    def _on_channel_closed(self, channel: Channel, reason: BaseException) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        self._stop(f"channel closed: {reason!r}")

    def _on_timeout(self) -> None:
        self._stop(
            f"{len(self._batch.waiting)} confirms missing after {self._timeout_s:g} s (blocked by an alarm?)"
        )

    def _send(self) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            self._stop("channel is closed")
            return
        batch = self._batch
        for index, message in enumerate(batch.messages):
            batch.waiting[self._next_tag] = index
            self._next_tag += 1
            properties = message.moved or pika.BasicProperties(
                content_type=message.content_type,
                delivery_mode=pika.DeliveryMode.Persistent.value,
                priority=message.priority,
                headers={**(message.headers or {}), _INDEX_HEADER: index},
                message_id=message.message_id,
                correlation_id=message.correlation_id,
                reply_to=message.reply_to,
                app_id=message.app_id,
            )
            channel.basic_publish(
                message.exchange, message.routing_key, message.body, properties, mandatory=message.mandatory
            )

    def _on_return(
        self, _channel: Channel, _method: object, properties: pika.BasicProperties, _body: bytes
    ) -> None:
        # The broker returns an unroutable message before it confirms it.
        messages = self._batch.messages
        if (
            messages[0].moved is not None
        ):  # its headers are not ours: whoever moves messages needs them all confirmed
            self._batch.unroutable.update(range(len(messages)))
        else:
            self._batch.unroutable.add(int((properties.headers or {})[_INDEX_HEADER]))

    def _on_confirm(self, frame: Method) -> None:
        batch, tag = self._batch, frame.method.delivery_tag
        refused = isinstance(frame.method, pika.spec.Basic.Nack)
        # Tags rise in the order they were sent in, which is the dict's.
        tags = list(takewhile(lambda known: known <= tag, batch.waiting)) if frame.method.multiple else [tag]
        for known in tags:
            index = batch.waiting.pop(known, None)
            if index is None:
                continue
            if refused:
                batch.refused.add(index)
            elif index not in batch.unroutable:
                batch.confirmed.add(index)
        if not batch.waiting:
            self._stop(f"the broker refused {len(batch.refused)} messages" if batch.refused else None)


#: Where a returned message finds its place in the batch again.
_INDEX_HEADER = "collect-batch-index"
