"""Giving a declared queue or exchange other arguments without losing a message.

RabbitMQ refuses to change what is declared (406, PRECONDITION_FAILED). So a queue's messages are moved aside, the
queue is made anew, and they are moved back:

1. declare `NAME.migrating` in the wanted form, bind it as the queue is bound, and unbind the queue: what is published
   from now on waits there;
2. move the queue's messages over, each acked after the broker has confirmed its copy; wait until consumers have
   answered for what they hold; delete the queue, which the broker does only if it is empty and unused;
3. declare the queue in the wanted form, bind it, unbind `NAME.migrating`, move the messages back, delete it.

Where a migration stands is read from the broker each time, never remembered: one that was killed is gone on with by
running it again. Delivery is at least once: a message that is published between a bind and the following unbind, or
whose copy is confirmed and its ack lost, is there twice. A lane message moves its task once (generation), an inbox
message with a request id is known, a dead message has its key; see docs/reliability.md.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker

from collect_ops.broker.connection import failure_of
from collect_ops.broker.consumer import Consumer, Delivery
from collect_ops.broker.management import ExchangeBinding, Management
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.broker.topology import (
    Binding,
    Exchange,
    Queue,
    Topology,
    TopologyMismatch,
    TopologyRefused,
    check_server,
    close_connection,
    declare,
    declare_exchange,
    declare_queue,
    open_channel,
)
from collect_ops.kernel.errors import CollectOpsError, Permanent, Transient

log = logging.getLogger(__name__)

#: What the queue or exchange that stands in is called, after the name of what it stands in for.
SUFFIX = ".migrating"
#: Held, as an exclusive queue, by the one migration that may run in a virtual host.
LOCK = "collect.topology.lock"
#: A fanout, bound to where messages are moved: they keep their routing keys, and a `CC` of theirs means nothing to it.
MOVER = "collect.topology.move"
#: Messages moved between two confirms.
BLOCK = 500
#: How often a queue is looked at anew when others redeclare it meanwhile.
MAX_ROUNDS = 5
#: The management API's figures are up to five seconds old (collect_statistics_interval); twice that and a bit more.
_FRESH_S = 11.0
#: A claim's consumer is there for some milliseconds.
_AGAIN_S = 0.05
_NOT_FOUND, _RESOURCE_LOCKED, _PRECONDITION_FAILED = 404, 405, 406


class State(StrEnum):
    """How something that is to be declared stands on the broker."""

    AS_WANTED = "as wanted"
    MISSING = "missing"
    DIFFERENT = "different"
    MIGRATING = "migrating"


class Step(StrEnum):
    """What a migration is about to do; each may be its last, and it is gone on with."""

    STAND_IN = "declare what stands in"
    DIVERT = "bind what stands in"
    CUT_OFF = "unbind the old form"
    MOVE_ASIDE = "move messages aside"
    WAIT = "wait for consumers"
    DELETE_OLD = "delete the old form"
    DECLARE = "declare the wanted form"
    BIND = "bind the wanted form"
    RELEASE = "unbind what stood in"
    MOVE_BACK = "move messages back"
    DELETE_STAND_IN = "delete what stood in"


class MigrationRunning(CollectOpsError, Transient):
    """Another migration runs in this virtual host."""

    def __init__(self, vhost: str) -> None:
        super().__init__(
            f"another migration of the topology runs in virtual host {vhost}: wait until it is over"
        )


class ManagementMissing(CollectOpsError, Permanent):
    """The management API is not there; only it tells what consumers hold, and how things are bound."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the migration needs RabbitMQ's management API (COLLECT_RABBITMQ_API_URL): {reason}; nothing was changed"
        )


class MigrationStuck(CollectOpsError, Transient):
    """A step did not come to its end; nothing is lost, and the migration goes on when it is run again."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}; nothing is lost, and running it again goes on from here")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one exchange or queue stands.

    Args:
        kind: `exchange` or `queue`.
        name: Its name.
        state: Compared with what is to be declared.
        detail: What the broker says of the difference, for people.
        messages: Ready in a queue and in what stands in for it.
    """

    kind: str
    name: str
    state: State
    detail: str = ""
    messages: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A step that begins, or goes on.

    Args:
        name: The queue or exchange.
        step: What is done.
        moved: Messages moved by this step so far.
        waiting: Messages that it still has to move.
    """

    name: str
    step: Step
    moved: int = 0
    waiting: int = 0


Tell = Callable[[Progress], None]


def check(amqp_url: str, topology: Topology) -> list[Standing]:
    """Compare the broker with what is to be declared. Changes nothing.

    Bindings are not compared: AMQP cannot ask for them, and declaring one that is there does no harm.

    Args:
        amqp_url: Where RabbitMQ is.
        topology: What is to be declared.

    Raises:
        QuorumUnsupported: The server cannot hold one of the queues.
        BrokerUnavailable: RabbitMQ did not accept the connection, or closed it.
        TopologyRefused: The broker does not take the wanted form, or the user may not ask.
    """
    connection, channel = open_channel(amqp_url)
    try:
        check_server(connection, topology)
        asking = _Asking(connection.channel, channel)
        return [
            *(asking.exchange(exchange) for exchange in topology.exchanges),
            *(asking.queue(queue) for queue in topology.queues),
        ]
    except AMQPError as error:
        raise failure_of("to tell what is declared", error) from error
    finally:
        close_connection(connection)


def migrate(
    amqp_url: str, api_url: str | None, topology: Topology, *, tell: Tell | None = None, wait_s: float = 120.0
) -> list[str]:
    """Declare everything, and make anew what exists in another form, with its messages and bindings.

    Consumers and publishers may go on meanwhile. A publisher of an exchange that is made anew is told that it is not
    there (404) for some milliseconds; queues have no such gap.

    Args:
        amqp_url: Where RabbitMQ is; the user needs configure, write and read rights.
        api_url: The management API, with credentials.
        topology: What is to be declared.
        tell: Called before each step and while messages are moved; what it raises ends the migration there.
        wait_s: How long consumers may take to answer for what they hold.

    Returns:
        The names of what was made anew, or gone on with.

    Raises:
        ManagementMissing: There is no management API, or it does not answer.
        MigrationRunning: Another one runs.
        MigrationStuck: Consumers hold messages or a queue for longer than `wait_s`, or others redeclare the old form.
        QuorumUnsupported: The server cannot hold one of the queues; nothing was changed.
        TopologyRefused: The broker does not take the wanted form, or the user may not declare it.
        BrokerUnavailable: RabbitMQ did not accept the connection, or closed it.
    """
    migration = _Migration(amqp_url, api_url, topology, tell or (lambda _: None), wait_s)
    try:
        return migration.run()
    except AMQPError as error:
        raise failure_of("a step of the migration", error) from error
    finally:
        migration.close()


class _Asking:
    """Questions that close their channel when the answer is no."""

    def __init__(self, open_another: Callable[[], BlockingChannel], channel: BlockingChannel) -> None:
        self._open, self._channel = open_another, channel

    def channel(self) -> BlockingChannel:
        if not self._channel.is_open:
            self._channel = self._open()
        return self._channel

    def messages(self, queue: str) -> int | None:
        """Ready messages; None when there is no such queue."""
        try:
            found = self.channel().queue_declare(queue=queue, passive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code == _NOT_FOUND:
                return None
            raise TopologyRefused("queue", queue, error.reply_text) from error
        return int(found.method.message_count)

    def has_exchange(self, name: str) -> bool:
        try:
            self.channel().exchange_declare(exchange=name, passive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code == _NOT_FOUND:
                return False
            raise TopologyRefused("exchange", name, error.reply_text) from error
        return True

    def queue(self, queue: Queue) -> Standing:
        stand_in, own = self.messages(queue.name + SUFFIX), self.messages(queue.name)
        standing = Standing(
            kind="queue", name=queue.name, state=State.AS_WANTED, messages=(own or 0) + (stand_in or 0)
        )
        if own is None:
            return replace(standing, state=State.MISSING if stand_in is None else State.MIGRATING)
        try:
            declare_queue(self.channel(), queue)
        except TopologyMismatch as error:
            return replace(standing, state=State.DIFFERENT, detail=error.reply)
        return standing if stand_in is None else replace(standing, state=State.MIGRATING)

    def exchange(self, exchange: Exchange) -> Standing:
        stand_in = self.has_exchange(exchange.name + SUFFIX)
        standing = Standing(kind="exchange", name=exchange.name, state=State.AS_WANTED)
        if not self.has_exchange(exchange.name):
            return replace(standing, state=State.MIGRATING if stand_in else State.MISSING)
        try:
            declare_exchange(self.channel(), exchange)
        except TopologyMismatch as error:
            return replace(standing, state=State.DIFFERENT, detail=error.reply)
        return replace(standing, state=State.MIGRATING) if stand_in else standing


class _Migration:
    def __init__(
        self, amqp_url: str, api_url: str | None, topology: Topology, tell: Tell, wait_s: float
    ) -> None:
        self._amqp_url, self._topology = amqp_url, topology
        self._tell, self._wait_s = tell, wait_s
        vhost = unquote(urlsplit(amqp_url).path.removeprefix("/")) or "/"
        if not api_url:
            raise ManagementMissing("it is not set")
        self._management = Management(api_url, vhost)
        self._user = unquote(urlsplit(amqp_url).username or "")
        self._vhost = vhost
        self._connection, first = open_channel(amqp_url)
        self._asking = _Asking(self._connection.channel, first)

    def run(self) -> list[str]:
        check_server(self._connection, self._topology)
        self._lock()
        if self._management.bindings() is None:
            raise ManagementMissing("it does not answer")
        anew = [exchange.name for exchange in self._topology.exchanges if self._exchange_anew(exchange)]
        anew += [queue.name for queue in self._topology.queues if self._queue_anew(queue)]
        declare(self._amqp_url, self._topology)
        return anew

    def close(self) -> None:
        close_connection(self._connection)

    def _lock(self) -> None:
        try:
            self._asking.channel().queue_declare(queue=LOCK, exclusive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code == _RESOURCE_LOCKED:
                raise MigrationRunning(self._vhost) from error
            raise TopologyRefused("queue", LOCK, error.reply_text) from error

    # Queues

    def _queue_anew(self, queue: Queue) -> bool:
        """Bring one queue to its wanted form; returns whether anything was to be done."""
        for round_ in range(MAX_ROUNDS):
            standing = self._asking.queue(queue)
            if standing.state is State.AS_WANTED:
                return round_ > 0
            if standing.state is State.MISSING:
                return round_ > 0  # declared with the rest
            if standing.state is State.DIFFERENT:
                self._aside(queue)
            self._back(queue)
        raise MigrationStuck(queue.name, "something declares it in its old form again and again")

    def _aside(self, queue: Queue) -> None:
        name, stand_in = queue.name, queue.name + SUFFIX
        bindings = self._bindings_of(name, stand_in)
        self._told(name, Step.STAND_IN)
        if self._asking.messages(stand_in) is None:
            try:
                declare_queue(self._asking.channel(), replace(queue, name=stand_in))
            except TopologyMismatch as error:
                raise TopologyRefused("queue", name, error.reply) from error
        self._told(name, Step.DIVERT)
        for binding in bindings:
            self._bind(replace(binding, queue=stand_in))
        self._told(name, Step.CUT_OFF)
        for binding in bindings:
            self._unbind(replace(binding, queue=name))
        self._move(name, stand_in, Step.MOVE_ASIDE)
        self._wait_for_consumers(name, stand_in)
        self._delete(name, Step.DELETE_OLD, partial(self._wait_for_consumers, name, stand_in))

    def _back(self, queue: Queue) -> None:
        name, stand_in = queue.name, queue.name + SUFFIX
        bindings = self._bindings_of(name, stand_in)
        self._told(name, Step.DECLARE)
        try:
            declare_queue(self._asking.channel(), queue)
        except TopologyMismatch as error:
            log.warning("%s was declared in its old form meanwhile: %s", name, error.reply)
            return
        self._told(name, Step.BIND)
        for binding in bindings:
            self._bind(replace(binding, queue=name))
        self._told(name, Step.RELEASE)
        for binding in bindings:
            self._unbind(replace(binding, queue=stand_in))
        move_back = partial(self._move, stand_in, name, Step.MOVE_BACK)
        move_back()
        self._delete(stand_in, Step.DELETE_STAND_IN, move_back)

    def _others(self, bindings: list[Binding] | None, name: str) -> list[Binding]:
        if bindings is None:
            raise MigrationStuck(name, "the management API does not answer any more")
        return [each for each in bindings if each.exchange != MOVER]

    def _bindings_of(self, *names: str) -> list[Binding]:
        """How the queue is bound: what is declared, and what others have bound to it."""
        wanted = [binding for binding in self._topology.bindings if binding.queue == names[0]]
        found = self._others(self._management.bindings(), names[0])
        others = [replace(each, queue=names[0]) for each in found if each.queue in names and each.exchange]
        return wanted + [each for each in others if each not in wanted]

    def _move(self, source: str, target: str, step: Step) -> None:
        """Move every message that is ready. The first is told of before, so that a caller can stop there."""
        name, moved = source.removesuffix(SUFFIX), 0
        channel = self._asking.channel()
        channel.exchange_delete(MOVER)  # one that a killed migration has left leads elsewhere
        channel.exchange_declare(MOVER, exchange_type="fanout", durable=True)
        channel.queue_bind(target, MOVER)
        with Consumer(self._amqp_url) as consumer, Publisher(self._amqp_url) as publisher:
            while True:
                self._connection.process_data_events(0)  # heartbeats of the connection that holds the lock
                waiting = consumer.depth(source)
                self._told(name, step, moved=moved, waiting=waiting)
                if waiting == 0:
                    break
                block = consumer.take(source, BLOCK)
                if not block:
                    continue  # a consumer was faster
                published = publisher.publish([self._copy(delivery) for delivery in block])
                # Without all confirms nothing is acked: all of the block come again.
                if len(published.confirmed) < len(block):
                    reason = published.failure or "the queue that its messages go to is gone"
                    raise MigrationStuck(name, f"{step}: {reason}")
                consumer.ack([delivery.tag for delivery in block])
                moved += len(block)
        self._asking.channel().exchange_delete(MOVER)

    def _copy(self, delivery: Delivery) -> OutgoingMessage:
        """The message as it came. Another user's id cannot be sent: the broker vouches for it."""
        properties = delivery.properties
        if properties.user_id not in (None, self._user):
            properties.app_id = properties.app_id or properties.user_id
            properties.user_id = None
        return OutgoingMessage(
            exchange=MOVER, routing_key=delivery.routing_key, body=delivery.body, moved=properties
        )

    def _wait_for_consumers(self, name: str, stand_in: str) -> None:
        """Until nobody holds a message of the old queue: deleting it would lose what is given back later."""
        self._told(name, Step.WAIT)
        until, quiet_since = time.monotonic() + self._wait_s, time.monotonic()
        while True:
            self._connection.process_data_events(0)
            if self._asking.messages(name):
                self._move(name, stand_in, Step.MOVE_ASIDE)
                quiet_since = time.monotonic()
            depths = self._management.depths()
            if depths is None or depths.get(name) != 0:
                quiet_since = time.monotonic()
                if quiet_since > until:
                    held = "nobody knows how many" if depths is None else depths.get(name, "unknown")
                    raise MigrationStuck(
                        name, f"consumers hold messages of it after {self._wait_s:g} s ({held})"
                    )
            if time.monotonic() - quiet_since > _FRESH_S:
                return
            time.sleep(0.25)

    def _delete(self, name: str, step: Step, move_again: Callable[[], None]) -> None:
        """Delete a queue that is empty. A claim may look into it at this very moment: it is tried again."""
        self._told(name.removesuffix(SUFFIX), step)
        until = time.monotonic() + self._wait_s
        while refused := self._refusal(name):
            if time.monotonic() > until:
                raise MigrationStuck(name, f"it cannot be deleted after {self._wait_s:g} s: {refused}")
            time.sleep(_AGAIN_S)
            self._connection.process_data_events(0)
            if self._asking.messages(name):
                move_again()

    def _refusal(self, name: str) -> str | None:
        """Why the queue could not be deleted; None once it is gone."""
        # Quorum queues know neither condition; there the wait for consumers has to do.
        careful = self._management.queue_type(name) in (None, "classic")
        if not careful and self._asking.messages(name):
            return "messages have come back to it"
        try:
            self._asking.channel().queue_delete(queue=name, if_unused=careful, if_empty=careful)
        except ChannelClosedByBroker as error:
            if error.reply_code == _PRECONDITION_FAILED:
                return str(error.reply_text)
            if error.reply_code != _NOT_FOUND:
                raise MigrationStuck(name, f"it cannot be deleted: {error.reply_text}") from error
        return None

    # Exchanges

    def _exchange_anew(self, exchange: Exchange) -> bool:
        """Bring one exchange to its wanted form. What stands in keeps the list of bindings, should this be killed."""
        name, stand_in = exchange.name, exchange.name + SUFFIX
        for round_ in range(MAX_ROUNDS):
            standing = self._asking.exchange(exchange)
            if standing.state is State.MISSING:
                declare_exchange(self._asking.channel(), exchange)
                return round_ > 0
            if standing.state is State.AS_WANTED:
                return round_ > 0
            bindings, joints = self._bindings_from(name, stand_in), self._joints(name, stand_in)
            if standing.state is State.DIFFERENT:
                self._told(name, Step.STAND_IN)
                self._asking.channel().exchange_declare(stand_in, exchange_type="fanout", durable=True)
                self._told(name, Step.DIVERT)
                for binding in bindings:
                    self._bind(replace(binding, exchange=stand_in))
                for joint in joints:
                    self._join(_renamed(joint, name, stand_in))
                self._told(name, Step.DELETE_OLD)
                self._asking.channel().exchange_delete(name)
            self._told(name, Step.DECLARE)
            try:
                declare_exchange(self._asking.channel(), exchange)
            except TopologyMismatch as error:
                log.warning("%s was declared in its old form meanwhile: %s", name, error.reply)
                continue
            self._told(name, Step.BIND)
            for binding in bindings:
                self._bind(replace(binding, exchange=name))
            for joint in joints:
                self._join(joint)
            self._told(name, Step.DELETE_STAND_IN)
            self._asking.channel().exchange_delete(stand_in)
        raise MigrationStuck(name, "something declares it in its old form again and again")

    def _bindings_from(self, *names: str) -> list[Binding]:
        found = self._others(self._management.bindings(), names[0])
        present = [each for each in found if each.exchange in names]
        wanted = [
            each
            for each in self._topology.bindings
            if each.exchange == names[0] and self._asking.messages(each.queue) is not None
        ]
        others = [replace(each, exchange=names[0]) for each in present]
        return wanted + [each for each in others if each not in wanted]

    def _joints(self, name: str, stand_in: str) -> list[ExchangeBinding]:
        """How other exchanges are bound to this one, and this one to others."""
        found = self._management.exchange_bindings()
        if found is None:
            raise MigrationStuck(name, "the management API does not answer any more")
        ours = [each for each in found if {each.source, each.destination} & {name, stand_in}]
        distinct: list[ExchangeBinding] = []
        for each in (_renamed(one, stand_in, name) for one in ours):
            if each not in distinct:
                distinct.append(each)
        return distinct

    # Both

    def _bind(self, binding: Binding) -> None:
        self._changed(
            binding.exchange,
            binding.queue,
            lambda channel: channel.queue_bind(
                binding.queue, binding.exchange, binding.routing_key, arguments=binding.arguments
            ),
        )

    def _unbind(self, binding: Binding) -> None:
        self._changed(
            binding.exchange,
            binding.queue,
            lambda channel: channel.queue_unbind(
                binding.queue, binding.exchange, binding.routing_key, arguments=binding.arguments
            ),
        )

    def _join(self, binding: ExchangeBinding) -> None:
        self._changed(
            binding.source,
            binding.destination,
            lambda channel: channel.exchange_bind(
                binding.destination, binding.source, binding.routing_key, arguments=binding.arguments
            ),
        )

    def _changed(self, source: str, destination: str, change: Callable[[BlockingChannel], object]) -> None:
        """A binding made or undone. One whose other end has gone meanwhile is nobody's loss."""
        try:
            change(self._asking.channel())
        except ChannelClosedByBroker as error:
            if error.reply_code != _NOT_FOUND:
                raise TopologyRefused("binding", f"{source} -> {destination}", error.reply_text) from error
            log.warning("binding %s -> %s left out: %s", source, destination, error.reply_text)

    def _told(self, name: str, step: Step, **figures: Any) -> None:
        log.info("%s: %s %s", name, step, figures or "")
        self._tell(Progress(name=name, step=step, **figures))


def _renamed(binding: ExchangeBinding, old: str, new: str) -> ExchangeBinding:
    """The binding of another exchange in this one's place."""
    return replace(
        binding,
        source=new if binding.source == old else binding.source,
        destination=new if binding.destination == old else binding.destination,
    )
