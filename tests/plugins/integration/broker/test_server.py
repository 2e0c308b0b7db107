"""The server that runs: what it says of itself, and quorum queues on it."""

from __future__ import annotations

import pytest

from collect_ops.broker.consumer import Consumer, Delivery
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.migration import State, check, migrate
from collect_ops.broker.publisher import Publisher
from collect_ops.broker.server import RABBITMQ, QuorumUnsupported, Server, server_of
from collect_ops.broker.topology import Queue, Topology, declare, open_channel
from collect_ops.lanes.rules import LaneRules, lane_rules
from tests.plugins.integration.broker.link import wait_until

QUORUM = {"x-queue-type": "quorum"}
#: More than the 20 after which RabbitMQ 4 drops a quorum queue's message, if it is left to it.
GIVE_BACKS = 25


@pytest.fixture
def server(amqp_url: str) -> Server:
    connection, _ = open_channel(amqp_url)
    try:
        return server_of(connection)
    finally:
        connection.close()


@pytest.fixture
def quorum_rules() -> LaneRules:
    rules = lane_rules()
    return rules.model_copy(update={"broker": rules.broker.model_copy(update={"queue_type": "quorum"})})


def test_it_says_what_it_is(server: Server) -> None:
    assert server.product == RABBITMQ
    major, minor = (int(part) for part in server.version.split(".")[:2])
    assert (major, minor) >= (3, 10)
    assert not server.is_before((major, minor))
    assert server.is_before((major, minor + 1))
    assert server.is_before((major + 1, 0))


def test_quorum_lanes_are_declared_where_they_can_be_and_else_refused_with_the_reason(
    amqp_url: str, server: Server, quorum_rules: LaneRules
) -> None:
    wanted = quorum_rules.topology()
    if not server.is_before((4, 3)):
        declare(amqp_url, wanted)
        assert {each.state for each in check(amqp_url, wanted)} == {State.AS_WANTED}
        return
    for refused in (
        declare,
        check,
        lambda url, topology: migrate(url, "http://nobody@127.0.0.1:9", topology),
    ):
        with pytest.raises(QuorumUnsupported) as caught:
            refused(amqp_url, wanted)
        assert caught.value.queue in {quorum_rules.queue(lane) for lane in quorum_rules.lanes}
        assert caught.value.server == server
        assert server.version in str(caught.value)
    assert {each.state for each in check(amqp_url, lane_rules().topology())} == {State.MISSING}


def take_one(consumer: Consumer, queue: str) -> Delivery:
    """A quorum queue counts and delivers with a delay."""
    taken: list[Delivery] = []

    def arrived() -> bool:
        taken.extend(consumer.take(queue, 1))
        return bool(taken)

    wait_until(arrived)
    return taken[0]


def test_a_message_is_given_back_any_number_of_times(amqp_url: str) -> None:
    topology = Topology(exchanges=(), queues=(Queue(name="q", arguments=QUORUM),), bindings=())
    declare(amqp_url, topology)
    declare(amqp_url, topology)  # with the same arguments
    with Publisher(amqp_url) as publisher:
        assert publisher.publish([OutgoingMessage(exchange="", routing_key="q", body=b"kept")]).confirmed == {
            0
        }
    for _ in range(GIVE_BACKS):
        with Consumer(amqp_url) as consumer:
            consumer.give_back([take_one(consumer, "q").tag])
    with Consumer(amqp_url) as consumer:
        assert take_one(consumer, "q").body == b"kept"
