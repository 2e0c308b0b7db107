"""A virtual host of a test worker's own, whose queues are emptied for each test."""

from __future__ import annotations

from typing import Protocol, cast
from urllib.parse import unquote, urlsplit

import amqp

from collect_ops.broker.topology import Topology, declare


class _Channel(Protocol):
    """What is used of py-amqp, which has no types."""

    def queue_declare(
        self, queue: str, *, durable: bool, auto_delete: bool, arguments: object, nowait: bool
    ) -> object: ...

    def queue_purge(self, queue: str, *, nowait: bool) -> object: ...

    def basic_qos(self, prefetch_size: int, prefetch_count: int, a_global: bool) -> object: ...


class CleanVhost:
    """Declares a topology, and empties its queues over a connection that is kept.

    An answer for each of forty queues costs six times what the emptying does, so nothing is answered but the last
    request; py-amqp can do that, pika's blocking channel cannot.

    Args:
        url: The virtual host.
        topology: What stands in it.
    """

    def __init__(self, url: str, topology: Topology) -> None:
        self.url = url
        self._topology = topology
        self._connection: amqp.Connection | None = None
        self._channel: _Channel | None = None

    def empty(self) -> None:
        """Leave the whole topology there, in the form that it should have, without messages."""
        if self._channel is not None:
            try:
                self._purge(self._channel)
            except (amqp.AMQPError, OSError):
                self.close()  # a queue is gone or has another form, or the broker was started anew
            else:
                return
        declare(self.url, self._topology)
        self._channel = self._open()
        self._purge(self._channel)

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.collect()
            self._connection = self._channel = None

    def _open(self) -> _Channel:
        parts = urlsplit(self.url)
        self._connection = amqp.Connection(
            f"{parts.hostname}:{parts.port or 5672}",
            userid=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            virtual_host=unquote(parts.path[1:]),
            heartbeat=0,
        )
        self._connection.connect()
        return cast("_Channel", self._connection.channel())

    def _purge(self, channel: _Channel) -> None:
        for queue in self._topology.queues:
            # Purging is refused when there is no such queue; declaring, when it has another form.
            channel.queue_purge(queue.name, nowait=True)
            channel.queue_declare(
                queue.name, durable=True, auto_delete=False, arguments=queue.arguments, nowait=True
            )
        channel.basic_qos(0, 1, a_global=False)  # answered when all that came before it is done
