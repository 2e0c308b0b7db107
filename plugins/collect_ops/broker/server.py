"""Which server answers, and which queues it can hold: what differs between RabbitMQ's releases is asked here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pika

from collect_ops.kernel.errors import CollectOpsError, Permanent

RABBITMQ = "RabbitMQ"
#: From here on a quorum queue takes `x-max-priority`, and delivers in the order of 32 strict levels.
_QUORUM_PRIORITIES_SINCE = (4, 3)
_QUORUM_MAX_PRIORITY = 31
#: From here on a quorum queue drops a message that was given back 20 times, unless it is told not to.
_DELIVERY_LIMIT_SINCE = (4, 0)


class QuorumUnsupported(CollectOpsError, Permanent):
    """The server has no quorum queues of the kind that the lanes need.

    Args:
        queue: The queue that it cannot hold.
        server: What it is.
        reason: What it lacks.
    """

    def __init__(self, queue: str, server: Server, reason: str) -> None:
        self.queue, self.server, self.reason = queue, server, reason
        super().__init__(
            f"queue {queue} cannot be a quorum queue on {server}: {reason}. "
            f"Set broker.queue_type: classic in include/rules/lanes.yaml"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a server says of itself at each connection.

    Args:
        product: `RabbitMQ`, or another that speaks AMQP 0-9-1; empty when it does not say.
        version: As it was given.
    """

    product: str
    version: str

    def __str__(self) -> str:
        return f"{self.product or 'this server'} {self.version}".rstrip()

    def is_before(self, release: tuple[int, int]) -> bool:
        """Whether it is a RabbitMQ older than a release; of others nothing is known."""
        known = self._release()
        return known is not None and known < release

    def arguments(self, queue: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """What a queue is declared with here.

        Args:
            queue: Its name.
            arguments: What it shall have on every server.

        Raises:
            QuorumUnsupported: This server has no such queue.
        """
        if arguments.get("x-queue-type") != "quorum":
            return arguments
        priority = arguments.get("x-max-priority")
        if priority is not None and self.is_before(_QUORUM_PRIORITIES_SINCE):
            raise QuorumUnsupported(
                queue, self, "its quorum queues have no strict priorities, RabbitMQ 4.3 and later have"
            )
        if priority is not None and priority > _QUORUM_MAX_PRIORITY:
            raise QuorumUnsupported(
                queue,
                self,
                f"x-max-priority of a quorum queue is at most {_QUORUM_MAX_PRIORITY}, not {priority}",
            )
        release = self._release()
        if release is not None and release >= _DELIVERY_LIMIT_SINCE:
            # Giving a message back is no failure of it: `claim` does so with all that has no room yet. Earlier
            # releases know no limit, and refuse this value.
            return {"x-delivery-limit": -1, **arguments}
        return arguments

    def _release(self) -> tuple[int, int] | None:
        """Major and minor version of a RabbitMQ; None for others and what cannot be read."""
        numbers = re.match(r"(\d+)\.(\d+)", self.version)
        if self.product != RABBITMQ or numbers is None:
            return None
        return int(numbers[1]), int(numbers[2])


def server_of(connection: pika.BlockingConnection) -> Server:
    """What the server of an open connection is."""
    # pika gives a blocking connection no property for what its handshake has brought.
    properties = getattr(connection._impl, "server_properties", None) or {}  # noqa: SLF001
    return Server(product=_text(properties.get("product")), version=_text(properties.get("version")))


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
