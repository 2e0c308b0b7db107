"""Taking messages on a real broker: nothing is lost that was not acked."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from collect_ops.broker import consumer as consumer_module
from collect_ops.broker.connection import BrokerRefused, BrokerUnavailable
from collect_ops.broker.consumer import Consumer, QueueMissing
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from tests.plugins.integration.broker.link import Link, wait_until


def fill(amqp_url: str, queue: str, priorities: list[int]) -> None:
    messages = [
        OutgoingMessage(exchange="", routing_key=queue, body=str(number).encode(), priority=priority)
        for number, priority in enumerate(priorities)
    ]
    with Publisher(amqp_url) as publisher:
        assert len(publisher.publish(messages).confirmed) == len(messages)


def test_the_highest_priority_comes_first_and_no_more_than_asked(amqp_url: str, queue: str) -> None:
    fill(amqp_url, queue, [0, 9, 5, 9, 1])
    with Consumer(amqp_url) as consumer:
        taken = consumer.take(queue, 3)
        assert [each.body for each in taken] == [b"1", b"3", b"2"]
        assert consumer.depth(queue) == 2
        consumer.ack(each.tag for each in taken)
    with Consumer(amqp_url) as consumer:
        assert [each.body for each in consumer.take(queue, 10)] == [b"4", b"0"]


def test_an_empty_queue_gives_nothing(amqp_url: str, queue: str) -> None:
    with Consumer(amqp_url) as consumer:
        assert consumer.take(queue, 10) == []
        assert consumer.take(queue, 0) == []


def test_a_block_is_taken_whole(amqp_url: str, queue: str) -> None:
    fill(amqp_url, queue, [1] * 3_000)
    with Consumer(amqp_url) as consumer:
        taken = consumer.take(queue, 2_500)
        assert len({each.tag for each in taken}) == 2_500
        consumer.ack(each.tag for each in taken)
    with Consumer(amqp_url) as consumer:
        assert consumer.depth(queue) == 500


def test_what_is_not_acked_comes_back(amqp_url: str, queue: str) -> None:
    fill(amqp_url, queue, [5, 5])
    with Consumer(amqp_url) as consumer:
        first, _second = consumer.take(queue, 2)
        consumer.ack([first.tag])
    with Consumer(amqp_url) as consumer:
        [back] = consumer.take(queue, 10)
    assert (back.body, back.redelivered) == (b"1", True)


def test_an_ack_of_many_leaves_out_what_it_does_not_name(amqp_url: str, queue: str) -> None:
    fill(amqp_url, queue, [0] * 9)
    with Consumer(amqp_url) as consumer:
        tags = [each.tag for each in consumer.take(queue, 9)]
        consumer.give_back(tags[1:2])
        consumer.ack([tags[8], tags[0], tags[2], tags[3], tags[6]])  # 4, 5 and 7 stay in hand
        consumer.ack(tags[5:6])
        assert consumer.depth(queue) == 1
    with Consumer(amqp_url) as consumer:
        assert sorted(each.body for each in consumer.take(queue, 9)) == [b"1", b"4", b"7"]


def test_what_is_given_back_is_ready_at_once(amqp_url: str, queue: str) -> None:
    fill(amqp_url, queue, [5, 5, 5])
    with Consumer(amqp_url) as consumer:
        consumer.give_back(each.tag for each in consumer.take(queue, 3))
        wait_until(lambda: consumer.depth(queue) == 3)
        assert [each.body for each in consumer.take(queue, 3)] == [b"0", b"1", b"2"]


def test_what_is_rejected_goes_to_the_dead_letter_exchange(amqp_url: str, queue: str) -> None:
    fill(amqp_url, queue, [5])
    with Consumer(amqp_url) as consumer:
        consumer.reject(each.tag for each in consumer.take(queue, 1))
        wait_until(lambda: consumer.depth("rejected") == 1)
        assert consumer.depth(queue) == 0


def test_a_missing_queue_does_not_let_go_of_what_was_taken(amqp_url: str, queue: str) -> None:
    fill(amqp_url, queue, [5])
    with Consumer(amqp_url) as consumer:
        [taken] = consumer.take(queue, 1)
        for ask in (lambda: consumer.depth("nowhere"), lambda: consumer.take("nowhere", 1)):
            with pytest.raises(QueueMissing, match="queue nowhere is not there"):
                ask()
        assert consumer.depth(queue) == 0
        consumer.ack([taken.tag])
    with Consumer(amqp_url) as consumer:
        assert consumer.depth(queue) == 0


@pytest.mark.parametrize("use", ["depth", "take", "ack", "give_back"])
def test_a_lost_connection_is_named_and_closing_is_quiet(
    make_link: Callable[..., Link], amqp_url: str, queue: str, use: str
) -> None:
    fill(amqp_url, queue, [5])
    link = make_link()
    with Consumer(link.url(amqp_url)) as consumer:
        [taken] = consumer.take(queue, 1)
        calls: dict[str, Callable[[], object]] = {
            "depth": lambda: consumer.depth(queue),
            "take": lambda: consumer.take(queue, 1),
            "ack": lambda: consumer.ack([taken.tag]),
            "give_back": lambda: consumer.give_back([taken.tag]),
        }
        link.cut()
        with pytest.raises(BrokerUnavailable):
            # A write into a cut connection may still succeed once: acks are not answered.
            wait_until(lambda: calls[use]() is Ellipsis, within_s=5)
    with Consumer(amqp_url) as consumer:
        wait_until(lambda: consumer.depth(queue) == 1)


def test_a_refusal_is_no_outage(
    amqp_url: str, vhost: str, broker_api: Callable[..., None], queue: str
) -> None:
    fill(amqp_url, queue, [5])
    broker_api("PUT", f"users/{vhost}", password="writer", tags="")
    try:
        broker_api("PUT", f"permissions/{vhost}/{vhost}", configure=".*", write=".*", read="^$")
        parts = urlsplit(amqp_url)
        writer = parts._replace(netloc=f"{vhost}:writer@{parts.hostname}:{parts.port}").geturl()
        with Consumer(writer) as consumer:
            with pytest.raises(BrokerRefused, match=queue) as caught:
                consumer.take(queue, 1)
            assert (caught.value.reply_code, caught.value.reply.split(" ")[0]) == (403, "ACCESS_REFUSED")
            with pytest.raises(BrokerRefused, match="ACCESS_REFUSED"):
                consumer.take(queue, 1)  # the closed channel keeps its reason
    finally:
        broker_api("DELETE", f"users/{vhost}")


def test_a_broker_that_is_away_is_named(make_link: Callable[..., Link], amqp_url: str) -> None:
    link = make_link()
    link.close()
    with pytest.raises(BrokerUnavailable, match="Connection refused"):
        Consumer(link.url(amqp_url))


def test_who_works_long_is_cut_off_without_keeping_alive(
    make_link: Callable[..., Link], amqp_url: str, queue: str
) -> None:
    fill(amqp_url, queue, [5])
    link = make_link()
    with Consumer(link.url(amqp_url) + "?heartbeat=1") as consumer:
        [taken] = consumer.take(queue, 1)
        assert link.broker_hung_up.wait(15)
        with pytest.raises(BrokerUnavailable):
            consumer.ack([taken.tag])


def test_who_works_long_keeps_its_messages_alive(
    make_link: Callable[..., Link], amqp_url: str, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "_HEARTBEAT_PAUSE_S", 0.2)
    fill(amqp_url, queue, [5])
    link = make_link()
    with Consumer(link.url(amqp_url) + "?heartbeat=1") as consumer:
        [taken] = consumer.take(queue, 1)
        with consumer.kept_alive():
            wait_until(lambda: link.heartbeats >= 8)
        assert not link.broker_hung_up.is_set()
        consumer.ack([taken.tag])
        assert consumer.depth(queue) == 0
    with Consumer(amqp_url) as consumer:
        assert consumer.depth(queue) == 0
