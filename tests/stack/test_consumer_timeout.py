"""A broker that is not patient: what is held for too long is an error of its own, not an outage."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator

import pytest

from collect_ops.broker.consumer import Consumer, Delivery, DeliveryTimedOut
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.broker.topology import Queue, Topology, declare
from collect_ops.kernel.errors import OwnOutage
from stack.layout import CHECKOUT, Layout
from tests.plugins.integration.broker.link import wait_until

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("native-stack")]
# RabbitMQ looks at a channel's age once a minute, and is patient for half an hour.
IMPATIENT = "[{rabbit, [{consumer_timeout, 1000}, {channel_tick_interval, 1000}]}].\n"


@pytest.fixture(scope="module")
def amqp_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of this test's own."""
    layout = Layout(home=tmp_path_factory.mktemp("impatient") / "stack")
    layout.create()
    (layout.etc / "rabbitmq-advanced.config").write_text(IMPATIENT)
    variables = {key: value for key, value in os.environ.items() if not key.endswith("_PORT")}

    def run_stack(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "stack", *arguments],
            cwd=CHECKOUT, env={**variables, "STACK_HOME": str(layout.home)},
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    try:
        run_stack("up", "--only", "rabbitmq")
        exported = [
            line.removeprefix("export ").partition("=") for line in run_stack("env", "--all").splitlines()
        ]
        yield next(value.strip("'") for name, _, value in exported if name == "COLLECT_AMQP_URL")
    finally:
        run_stack("clean", "--yes")


@pytest.fixture
def queue(amqp_url: str) -> str:
    """A queue with one message."""
    name = f"q-{uuid.uuid4().hex[:8]}"
    declare(amqp_url, Topology(exchanges=(), queues=(Queue(name=name),), bindings=()))
    publish_one(amqp_url, name)
    return name


def publish_one(amqp_url: str, queue: str) -> None:
    with Publisher(amqp_url) as publisher:
        message = OutgoingMessage(exchange="", routing_key=queue, body=b"slow")
        assert publisher.publish([message]).confirmed == {0}


@pytest.mark.parametrize("use", ["ack", "give_back", "reject", "take"])
@pytest.mark.parametrize("kept_alive", [False, True])
def test_what_is_held_for_too_long_comes_again_and_says_why(
    amqp_url: str, queue: str, use: str, kept_alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["collect_ops.broker.consumer"], "_HEARTBEAT_PAUSE_S", 0.1)
    with Consumer(amqp_url) as consumer, Consumer(amqp_url) as other:
        [taken] = consumer.take(queue, 1)
        if kept_alive:
            # Answering heartbeats reads what the broker says, and pika then tells it nobody.
            with consumer.kept_alive():
                other.give_back([take_again(other, queue).tag])
        else:
            wait_until_told(consumer)
        if use == "take":
            publish_one(amqp_url, queue)
        uses: dict[str, Callable[[], object]] = {
            "ack": lambda: consumer.ack([taken.tag]),
            "give_back": lambda: consumer.give_back([taken.tag]),
            "reject": lambda: consumer.reject([taken.tag]),
            "take": lambda: consumer.take(queue, 1),
        }
        with pytest.raises(DeliveryTimedOut) as caught:
            uses[use]()
        assert (caught.value.queue, caught.value.timeout_s) == (queue, 1.0)
        assert not isinstance(caught.value, OwnOutage)
        other.ack([take_again(other, queue).tag])


def wait_until_told(consumer: Consumer) -> None:
    """Wait until the broker has said something that nobody has read yet."""
    socket = consumer._connection._impl._transport._sock
    assert select.select([socket], [], [], 60)[0]


def take_again(consumer: Consumer, queue: str) -> Delivery:
    """Wait until the broker has taken the message back and delivers it to somebody else."""
    taken: list[Delivery] = []

    def arrived() -> bool:
        taken.extend(each for each in consumer.take(queue, 1) if each.redelivered)
        return bool(taken)

    wait_until(arrived, within_s=60)
    return taken[0]
