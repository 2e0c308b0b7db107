"""Publishing on a real broker: what is called confirmed is in a queue, whatever happens on the way."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from collect_ops.broker.consumer import Consumer
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Published, Publisher
from tests.plugins.integration.broker.link import Link, wait_until


def to(queue: str, count: int = 1, *, priority: int = 0, size: int = 2) -> list[OutgoingMessage]:
    return [
        OutgoingMessage(exchange="", routing_key=queue, body=b"x" * size, priority=priority)
        for _ in range(count)
    ]


def depth(amqp_url: str, queue: str) -> int:
    with Consumer(amqp_url) as consumer:
        return consumer.depth(queue)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_every_confirmed_message_is_in_the_queue(amqp_url: str, queue: str) -> None:
    with Publisher(amqp_url) as publisher:
        published = publisher.publish(to(queue, 5_000))
        again = publisher.publish(to(queue, 3))
    assert published == Published(confirmed=frozenset(range(5_000)), unroutable=frozenset(), failure=None)
    assert again.confirmed == {0, 1, 2}
    assert depth(amqp_url, queue) == 5_003


def test_no_messages_need_no_broker() -> None:
    with Publisher("amqp://nobody:nothing@127.0.0.1:1/none") as publisher:
        assert publisher.publish([]) == Published(confirmed=frozenset(), unroutable=frozenset(), failure=None)


def test_what_no_queue_takes_is_named_by_index(amqp_url: str, queue: str) -> None:
    with Publisher(amqp_url) as publisher:
        published = publisher.publish([*to(queue), *to("nowhere"), *to(queue), *to("nowhere")])
    assert published == Published(confirmed=frozenset({0, 2}), unroutable=frozenset({1, 3}), failure=None)
    assert depth(amqp_url, queue) == 2


def test_a_missing_exchange_fails_the_batch_by_name_and_not_the_next(amqp_url: str, queue: str) -> None:
    with Publisher(amqp_url) as publisher:
        published = publisher.publish([OutgoingMessage(exchange="nowhere", routing_key="k", body=b"{}")])
        assert not published.confirmed
        assert "no exchange 'nowhere'" in (published.failure or "")
        assert publisher.publish(to(queue)).confirmed == {0}


def test_a_broker_that_is_away_is_a_failure_not_an_exception(
    make_link: Callable[..., Link], amqp_url: str
) -> None:
    link = make_link()
    link.close()
    with Publisher(link.url(amqp_url)) as publisher:
        published = publisher.publish(to("any", 3))
    assert not published.confirmed
    assert "did not accept the connection" in (published.failure or "")


def test_a_connection_lost_between_batches_costs_no_message(
    make_link: Callable[..., Link], amqp_url: str, queue: str
) -> None:
    link = make_link()
    with Publisher(link.url(amqp_url)) as publisher:
        assert publisher.publish(to(queue)).confirmed == {0}
        link.cut()
        assert publisher.publish(to(queue, 2)).confirmed == {0, 1}
    assert depth(amqp_url, queue) == 3


def test_a_connection_cut_in_mid_batch_confirms_only_what_arrived(
    make_link: Callable[..., Link], amqp_url: str, queue: str
) -> None:
    link = make_link()
    link.cut_after(5_000_000)
    with Publisher(link.url(amqp_url)) as publisher:
        batch = to(queue, 2_000, size=5_000)
        published = publisher.publish(batch)
        assert published.failure
        arrived = depth(amqp_url, queue)
        assert len(published.confirmed) <= arrived < 2_000
        rest = [message for index, message in enumerate(batch) if index not in published.confirmed]
        assert len(publisher.publish(rest).confirmed) == len(rest)
    assert depth(amqp_url, queue) >= 2_000


def test_a_broker_that_never_answers_ends_in_the_time_out(
    make_link: Callable[..., Link], amqp_url: str, queue: str
) -> None:
    link = make_link()
    with Publisher(link.url(amqp_url), timeout_s=1.0) as publisher:
        assert publisher.publish(to(queue)).confirmed == {0}
        link.holding.set()
        started = time.monotonic()
        published = publisher.publish(to(queue, 2))
        assert time.monotonic() - started < 5
    assert published.failure == "2 confirms missing after 1 s (blocked by an alarm?)"


def test_an_error_of_ours_does_not_confirm_the_next_batch(amqp_url: str, queue: str) -> None:
    wrong = OutgoingMessage(exchange="", routing_key=queue, body=b"x", message_id="long" * 100)
    with Publisher(amqp_url) as publisher:
        assert publisher.publish([*to(queue, 5), wrong]).failure is not None
        assert publisher.publish(to(queue, 2)).confirmed == {0, 1}


def test_a_priority_out_of_range_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="0 to 255"):
        OutgoingMessage(exchange="", routing_key="any", body=b"x", priority=256)


def test_failures_leave_no_open_files(make_link: Callable[..., Link], amqp_url: str, queue: str) -> None:
    link = make_link()
    away = make_link()
    away.close()
    threads = threading.active_count()

    def one_round() -> None:
        with Publisher(link.url(amqp_url)) as publisher:
            publisher.publish(to(queue))
            link.cut()
            publisher.publish(to(queue))
            publisher.publish([OutgoingMessage(exchange="nowhere", routing_key="k", body=b"{}")])
        with Publisher(away.url(amqp_url)) as publisher:
            publisher.publish(to(queue))
        with Publisher(link.url(amqp_url), timeout_s=0.2) as publisher:
            publisher.publish(to(queue))
            link.holding.set()
            assert publisher.publish(to(queue)).failure
        link.cut()
        link.holding.clear()

    one_round()
    gc.disable()  # what only the collector would close counts as left open
    try:
        # The link's own ends close from its threads: it counts once they are through.
        wait_until(lambda: threading.active_count() <= threads)
        before = open_files()
        for _ in range(3):
            one_round()
        wait_until(lambda: open_files() <= before, within_s=5)
    finally:
        gc.enable()


def test_messages_are_persistent_json_with_their_id(amqp_url: str, queue: str) -> None:
    message = OutgoingMessage(
        exchange="", routing_key=queue, body=b'{"a":1}', priority=7, headers={"by": "test"}, message_id="m-1"
    )
    with Publisher(amqp_url) as publisher:
        publisher.publish([message])
    with Consumer(amqp_url) as consumer:
        [taken] = consumer.take(queue, 1)
    assert (taken.body, taken.priority, taken.headers["by"]) == (b'{"a":1}', 7, "test")
