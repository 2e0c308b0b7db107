"""The topology on a real broker: idempotent, honest about mismatches, and a ladder that leads back to the lane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from collect_ops.broker.connection import BrokerUnavailable
from collect_ops.broker.consumer import Consumer, Delivery
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.broker.topology import (
    RETRY_DELAY_HEADER,
    Binding,
    DeclarationNotPermitted,
    Queue,
    Topology,
    TopologyIncomplete,
    TopologyMismatch,
    TopologyRefused,
    declare,
    ensure,
)
from collect_ops.lanes.rules import lane_rules
from tests.plugins.integration.broker.link import wait_until

TOPOLOGY = lane_rules().topology()


def test_declaring_twice_changes_nothing(amqp_url: str) -> None:
    declare(amqp_url, TOPOLOGY)
    declare(amqp_url, TOPOLOGY)
    with Consumer(amqp_url) as consumer:
        assert [consumer.depth(queue.name) for queue in TOPOLOGY.queues] == [0] * len(TOPOLOGY.queues)


def test_a_queue_in_another_form_is_named_with_what_to_do(amqp_url: str) -> None:
    lane = lane_rules().queue("urgent")
    declare(amqp_url, Topology(exchanges=(), queues=(Queue(name=lane),), bindings=()))
    with pytest.raises(TopologyMismatch, match=rf"queue {lane} exists with other arguments: .*x-") as caught:
        declare(amqp_url, TOPOLOGY)
    assert caught.value.name == lane
    assert "collect-ops topology --migrate" in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [{"x-queue-type": "no-such"}, {"x-message-ttl": -1}, {"x-queue-type": "quorum", "x-queue-mode": "lazy"}],
)
def test_what_the_broker_never_takes_is_not_said_to_exist_in_another_form(
    amqp_url: str, arguments: dict[str, object]
) -> None:
    wanted = Topology(exchanges=(), queues=(Queue(name="q", arguments=arguments),), bindings=())
    with pytest.raises(TopologyRefused) as caught:
        declare(amqp_url, wanted)
    assert caught.value.name == "q"
    assert next(reversed(arguments)) in caught.value.reply


@pytest.fixture
def person_url(amqp_url: str, vhost: str, broker_api: Callable[..., None]) -> Iterator[str]:
    """The broker's address as a user that may publish and consume, and declare nothing."""
    broker_api("PUT", f"users/{vhost}", password="person", tags="")
    broker_api("PUT", f"permissions/{vhost}/{vhost}", configure="^$", write=".*", read=".*")
    parts = urlsplit(amqp_url)
    yield parts._replace(netloc=f"{vhost}:person@{parts.hostname}:{parts.port}").geturl()
    broker_api("DELETE", f"users/{vhost}")


def test_a_user_without_rights_is_told_so(person_url: str) -> None:
    with pytest.raises(
        DeclarationNotPermitted, match=r"exchange collect\.tasks cannot be declared: ACCESS_REFUSED"
    ):
        declare(person_url, TOPOLOGY)


def test_who_may_not_declare_finds_what_is_there_and_binds_it(amqp_url: str, person_url: str) -> None:
    declare(amqp_url, replace(TOPOLOGY, bindings=()))
    ensure(person_url, TOPOLOGY)
    rules = lane_rules()
    message = OutgoingMessage(
        exchange=rules.broker.exchange, routing_key=rules.routing_key("urgent"), body=b"{}", priority=1
    )
    with Publisher(person_url) as publisher:
        assert publisher.publish([message]).confirmed == {0}
    with Consumer(person_url) as consumer:
        assert consumer.depth(rules.queue("urgent")) == 1


@pytest.mark.parametrize("kind", ["exchange", "queue"])
def test_who_may_not_declare_is_told_what_is_missing(amqp_url: str, person_url: str, kind: str) -> None:
    wanted = TOPOLOGY.exchanges if kind == "exchange" else TOPOLOGY.queues
    *others, missing = wanted
    declare(amqp_url, replace(TOPOLOGY, bindings=(), **{f"{kind}s": tuple(others)}))
    with pytest.raises(TopologyIncomplete) as caught:
        ensure(person_url, TOPOLOGY)
    assert caught.value.name == missing.name


def test_who_may_declare_does(amqp_url: str) -> None:
    ensure(amqp_url, TOPOLOGY)
    with Consumer(amqp_url) as consumer:
        assert [consumer.depth(queue.name) for queue in TOPOLOGY.queues] == [0] * len(TOPOLOGY.queues)


def test_a_binding_to_a_missing_exchange_is_named(amqp_url: str) -> None:
    wrong = Topology(
        exchanges=(), queues=(Queue(name="q"),), bindings=(Binding(exchange="nowhere", queue="q"),)
    )
    with pytest.raises(TopologyRefused, match="binding nowhere -> q cannot be declared: NOT_FOUND"):
        declare(amqp_url, wrong)


def test_wrong_password_says_so(amqp_url: str) -> None:
    parts = urlsplit(amqp_url)
    wrong = parts._replace(netloc=f"{parts.username}:wrong@{parts.hostname}:{parts.port}").geturl()
    with pytest.raises(BrokerUnavailable, match="ACCESS_REFUSED"):
        declare(wrong, TOPOLOGY)


@pytest.mark.parametrize("lane", list(lane_rules().lanes))
def test_the_retry_ladder_leads_back_to_the_lane(amqp_url: str, lane: str) -> None:
    rules = lane_rules()
    declare(amqp_url, TOPOLOGY)
    message = OutgoingMessage(
        exchange=rules.broker.retry_exchange,
        routing_key=rules.routing_key(lane),
        body=b'{"task":1}',
        priority=6,
        headers={RETRY_DELAY_HEADER: 1, "kept": "yes"},
    )
    with Publisher(amqp_url) as publisher:
        assert publisher.publish([message]).confirmed == {0}
    with Consumer(amqp_url) as consumer:
        assert consumer.depth(rules.queue(lane)) == 0
        taken: list[Delivery] = []

        def arrived() -> bool:
            taken.extend(consumer.take(rules.queue(lane), 1))
            return bool(taken)

        wait_until(arrived)
        others = [name for name in rules.lanes if name != lane]
        assert [consumer.depth(rules.queue(name)) for name in others] == [0] * len(others)
    [back] = taken
    assert (back.body, back.priority, back.headers["kept"]) == (b'{"task":1}', 6, "yes")
    assert back.routing_key == rules.routing_key(lane)


def test_a_delay_that_is_no_rung_is_unroutable_rather_than_lost(amqp_url: str) -> None:
    rules = lane_rules()
    declare(amqp_url, TOPOLOGY)
    message = OutgoingMessage(
        exchange=rules.broker.retry_exchange,
        routing_key=rules.routing_key("bulk"),
        body=b"{}",
        headers={RETRY_DELAY_HEADER: 3},
    )
    with Publisher(amqp_url) as publisher:
        assert publisher.publish([message]).unroutable == {0}
