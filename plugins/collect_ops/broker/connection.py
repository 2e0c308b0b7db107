"""Connecting to RabbitMQ."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika
import pika.data
from pika.exceptions import AMQPConnectionError, AMQPError, ChannelClosedByBroker

from collect_ops.kernel.errors import CollectOpsError, OwnOutage, Permanent

# pika tells at INFO, in eight lines, of every connection it opens and closes: half of a short task's log.
logging.getLogger("pika").setLevel(logging.WARNING)


class _Quiet(logging.Filter):
    """Drops what pika's loggers say in a thread while it is told to, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.here = threading.local()

    def filter(self, _record: logging.LogRecord) -> bool:
        return not getattr(self.here, "quiet", False)


_quiet = _Quiet()
for _name in [name for name in logging.root.manager.loggerDict if name.startswith("pika.")]:
    logging.getLogger(_name).addFilter(_quiet)


@contextmanager
def pika_quiet() -> Iterator[None]:
    """Keep pika from logging in this thread: it tells of a refused connection in five to eight lines, at ERROR.

    Whoever uses it says in one line of its own, or raises, what has become of the connection.
    """
    before = getattr(_quiet.here, "quiet", False)
    _quiet.here.quiet = True
    try:
        yield
    finally:
        _quiet.here.quiet = before


OwnOutage.register(AMQPConnectionError)

_decode_value = pika.data.decode_value


def _decode_any_value(encoded: bytes, offset: int) -> tuple[Any, int]:
    """Header values as pika reads them, and timestamps beyond its range as numbers.

    pika 1.4 fails at a timestamp in milliseconds, a common mistake, as if the connection were lost; the message comes
    again, and nobody ever gets at those behind it.
    """
    try:
        return _decode_value(encoded, offset)  # type: ignore[no-any-return]
    except (OverflowError, ValueError, OSError):
        if encoded[offset : offset + 1] != b"T":
            raise
        # Signed, for moments before 1970, and so that it can be sent on as a number.
        return int.from_bytes(encoded[offset + 1 : offset + 9], "big", signed=True), offset + 9


pika.data.decode_value = _decode_any_value


class BrokerUnavailable(CollectOpsError, OwnOutage):
    """RabbitMQ did not accept a connection, or closed it."""

    def __init__(self, reason: object) -> None:
        super().__init__(f"RabbitMQ (connection collect_rabbitmq) is not available: {reason!r}")


class BrokerRefused(CollectOpsError, Permanent):
    """RabbitMQ answers, and does not do what it was asked for.

    Args:
        what: What it was asked for.
        error: Its answer.
    """

    def __init__(self, what: str, error: ChannelClosedByBroker) -> None:
        self.what, self.reply_code, self.reply = what, error.reply_code, error.reply_text
        super().__init__(f"RabbitMQ (connection collect_rabbitmq) refuses {what}: {error.reply_text}")


def failure_of(what: str, error: AMQPError) -> BrokerRefused | BrokerUnavailable:
    """What an error of the driver means: a channel that the broker closed is an answer, all else an outage."""
    return (
        BrokerRefused(what, error) if isinstance(error, ChannelClosedByBroker) else BrokerUnavailable(error)
    )


def parameters(amqp_url: str) -> pika.URLParameters:
    """Connection parameters with time-outs of seconds: a caller must never hang on a broker that is away."""
    found = pika.URLParameters(amqp_url)
    found.socket_timeout = 5
    found.stack_timeout = 10
    found.blocked_connection_timeout = 15
    found.connection_attempts = 1
    found.client_properties = {"connection_name": "collect-ops"}
    return found


def connect_blocking(amqp_url: str) -> pika.BlockingConnection:
    """Open a blocking connection.

    Raises:
        BrokerUnavailable: RabbitMQ did not accept it.
    """
    try:
        with pika_quiet():
            return pika.BlockingConnection(parameters(amqp_url))
    except (AMQPError, OSError) as error:
        raise BrokerUnavailable(error) from error
