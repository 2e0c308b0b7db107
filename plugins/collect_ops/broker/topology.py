"""Exchanges, queues and bindings: declared idempotently, the same on RabbitMQ 3.10 and 4.x.

Lane queues carry no dead-letter exchange: an expired lane message is a lost wake-up (the repair pass publishes its
task again), and what cannot be parsed is published raw to `collect.dead` with its reason before it is acked.
The retry ladder is one queue a delay, since a message's own TTL expires only at its queue's head; a headers exchange
picks the rung, so that the routing key (the lane) survives the way back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker

from collect_ops.broker.connection import BrokerUnavailable, connect_blocking, failure_of
from collect_ops.broker.server import server_of
from collect_ops.kernel.errors import CollectOpsError, Permanent

log = logging.getLogger(__name__)

RETRY_DELAY_HEADER = "retry-delay-s"
_ACCESS_REFUSED = 403
_PRECONDITION_FAILED = 406
# RabbitMQ has one code for what exists in another form and for what it never takes; its text tells them apart.
_EXISTS_OTHERWISE = "inequivalent arg"


class TopologyMismatch(CollectOpsError, Permanent):
    """A queue or exchange exists with other arguments than ours."""

    def __init__(self, kind: str, name: str, wanted: dict[str, Any], reply: str) -> None:
        self.name, self.reply = name, reply
        super().__init__(
            f"{kind} {name} exists with other arguments: {reply}. Wanted {wanted}. RabbitMQ cannot change a declared "
            f"{kind}: `collect-ops topology --check` shows what differs, `collect-ops topology --migrate` makes it "
            f"anew and keeps its messages"
        )


class TopologyRefused(CollectOpsError, Permanent):
    """The broker does not let us declare something, though it does not exist in another form."""

    def __init__(self, kind: str, name: str, reply: str) -> None:
        self.name, self.reply = name, reply
        advice = "; the user needs configure rights on it" if "ACCESS_REFUSED" in reply else ""
        super().__init__(f"{kind} {name} cannot be declared: {reply}{advice}")


class DeclarationNotPermitted(TopologyRefused):
    """The user lacks the right to declare something."""


class TopologyIncomplete(CollectOpsError, Permanent):
    """Something is missing that the user may not declare."""

    def __init__(self, kind: str, name: str, reply: str) -> None:
        self.name, self.reply = name, reply
        super().__init__(
            f"{kind} {name} is missing, and this user has no right to declare it: {reply}. The DAG collect_sweep "
            f'declares it, and so does `collect-ops topology` after `eval "$(make -s env ALL=1)"`'
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An exchange to declare, durable."""

    name: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue to declare, durable. What else its type needs on the server that answers is added there."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A binding of a queue to an exchange."""

    exchange: str
    queue: str
    routing_key: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Everything to declare."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]


def open_channel(amqp_url: str) -> tuple[pika.BlockingConnection, BlockingChannel]:
    """A connection and its channel, for one short piece of work; the caller closes the connection.

    Raises:
        BrokerUnavailable: RabbitMQ did not accept the connection.
    """
    connection = connect_blocking(amqp_url)
    try:
        return connection, connection.channel()
    except AMQPError as error:
        close_connection(connection)
        raise BrokerUnavailable(error) from error


def declare(amqp_url: str, topology: Topology) -> None:
    """Declare everything; what is already there in the same form stays as it is.

    Raises:
        QuorumUnsupported: The server has no such quorum queue; nothing was declared.
        TopologyMismatch: Something exists in another form.
        TopologyRefused: The broker does not take it, or the user may not declare it.
        BrokerUnavailable: RabbitMQ did not accept the connection, or closed it.
    """
    with _channel(amqp_url, "to declare the topology") as channel:
        check_server(channel.connection, topology)
        for exchange in topology.exchanges:
            declare_exchange(channel, exchange)
        for queue in topology.queues:
            declare_queue(channel, queue)
        for binding in topology.bindings:
            _bind(channel, binding)


@contextmanager
def _channel(amqp_url: str, action: str) -> Iterator[BlockingChannel]:
    """A channel for the length of the block; what RabbitMQ refuses or breaks off in it is said with the action."""
    connection, channel = open_channel(amqp_url)
    try:
        yield channel
    except AMQPError as error:
        raise failure_of(action, error) from error
    finally:
        close_connection(connection)


def ensure(amqp_url: str, topology: Topology) -> None:
    """Declare everything or, as a user who may not, see that all of it is there, and bind it.

    In which form something exists that the user may not declare is not seen: a passive declaration compares nothing.

    Raises:
        TopologyIncomplete: Something is missing that the user may not declare.
        QuorumUnsupported: The server has no such quorum queue; nothing was declared.
        TopologyMismatch: Something exists in another form.
        TopologyRefused: The broker does not take it.
        BrokerUnavailable: RabbitMQ did not accept the connection, or closed it.
    """
    try:
        declare(amqp_url, topology)
    except DeclarationNotPermitted as error:
        log.info("%s; looking for it instead", error)
        _find(amqp_url, topology)


def _find(amqp_url: str, topology: Topology) -> None:
    with _channel(amqp_url, "to look for the topology") as channel:
        for exchange in topology.exchanges:
            try:
                channel.exchange_declare(exchange=exchange.name, passive=True)
            except ChannelClosedByBroker as error:
                raise TopologyIncomplete("exchange", exchange.name, error.reply_text) from error
        for queue in topology.queues:
            try:
                channel.queue_declare(queue=queue.name, passive=True)
            except ChannelClosedByBroker as error:
                raise TopologyIncomplete("queue", queue.name, error.reply_text) from error
        for binding in topology.bindings:
            _bind(channel, binding)


def check_server(connection: pika.BlockingConnection, topology: Topology) -> None:
    """See that the server can hold every queue, before any of it is declared.

    Raises:
        QuorumUnsupported: It cannot.
    """
    server = server_of(connection)
    for queue in topology.queues:
        server.arguments(queue.name, queue.arguments)


def close_connection(connection: pika.BlockingConnection) -> None:
    """Close a connection; one that is lost already is closed enough."""
    try:
        if connection.is_open:
            connection.close()
    except AMQPError as error:
        log.info("RabbitMQ connection was lost before it was closed: %r", error)


def declare_exchange(channel: BlockingChannel, exchange: Exchange) -> None:
    """Declare one exchange.

    Raises:
        TopologyMismatch: It exists in another form; the channel is closed.
        TopologyRefused: The user may not declare it; likewise.
    """
    try:
        channel.exchange_declare(exchange=exchange.name, exchange_type=exchange.type, durable=True)
    except ChannelClosedByBroker as error:
        raise _refusal("exchange", exchange.name, {"type": exchange.type}, error) from error


def declare_queue(channel: BlockingChannel, queue: Queue) -> None:
    """Declare one queue.

    Raises:
        QuorumUnsupported: The server has no such quorum queue.
        TopologyMismatch: It exists in another form; the channel is closed.
        TopologyRefused: The broker takes no such form, or the user may not declare it; likewise.
    """
    arguments = server_of(channel.connection).arguments(queue.name, queue.arguments)
    try:
        channel.queue_declare(queue=queue.name, durable=True, arguments=arguments)
    except ChannelClosedByBroker as error:
        raise _refusal("queue", queue.name, arguments, error) from error


def _bind(channel: BlockingChannel, binding: Binding) -> None:
    try:
        channel.queue_bind(
            queue=binding.queue,
            exchange=binding.exchange,
            routing_key=binding.routing_key,
            arguments=binding.arguments,
        )
    except ChannelClosedByBroker as error:
        raise _refused("binding", f"{binding.exchange} -> {binding.queue}", error) from error


def _refusal(kind: str, name: str, wanted: dict[str, Any], error: ChannelClosedByBroker) -> CollectOpsError:
    if error.reply_code == _PRECONDITION_FAILED and _EXISTS_OTHERWISE in error.reply_text:
        return TopologyMismatch(kind, name, wanted, error.reply_text)
    return _refused(kind, name, error)


def _refused(kind: str, name: str, error: ChannelClosedByBroker) -> TopologyRefused:
    refusal = DeclarationNotPermitted if error.reply_code == _ACCESS_REFUSED else TopologyRefused
    return refusal(kind, name, error.reply_text)
