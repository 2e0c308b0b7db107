"""A broker that refuses connections is told of in one line of ours; what others do with pika is theirs to hear."""

from __future__ import annotations

import logging

import pika
import pytest
from pika.exceptions import AMQPError

from collect_ops.broker.connection import BrokerUnavailable, connect_blocking
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher

AWAY = "amqp://guest:guest@127.0.0.1:1/none"


def loud(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.name for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_connection_that_is_refused_is_raised_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BrokerUnavailable):
        connect_blocking(AWAY)
    assert loud(caplog) == []


def test_a_batch_that_cannot_be_published_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with Publisher(AWAY) as publisher:
        done = publisher.publish([OutgoingMessage(exchange="", routing_key="x", body=b"{}")])
    assert done.failure is not None
    assert loud(caplog) == ["collect_ops.broker.publisher"]


def test_other_users_of_pika_are_told_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BrokerUnavailable):
        connect_blocking(AWAY)
    with pytest.raises(AMQPError):
        pika.BlockingConnection(pika.URLParameters(AWAY))
    assert any(name.startswith("pika.") for name in loud(caplog))
