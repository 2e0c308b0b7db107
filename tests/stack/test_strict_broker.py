"""A broker as strict as releases get: it takes back what is held for long, and refuses what RabbitMQ 4.3 refuses."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collect_ops.broker.consumer import Consumer, Delivery, DeliveryTimedOut
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.broker.topology import Queue, Topology, declare
from collect_ops.kernel.errors import OwnOutage
from stack.env_files import CONFIG, parse
from stack.layout import CHECKOUT, Layout
from tests.plugins.integration.broker.link import wait_until
from tests.stack.command import run_stack

pytestmark = pytest.mark.timeout(400)
# RabbitMQ looks at a channel's age once a minute, and is patient for half an hour. Queues that are neither durable nor
# exclusive, and a prefetch for all consumers of a channel, are refused from 4.3 on; 3.10 does not know that setting.
STRICT = """[{rabbit, [
    {consumer_timeout, 1000}, {channel_tick_interval, 1000},
    {permit_deprecated_features, #{transient_nonexcl_queues => false, global_qos => false}}
]}].
"""
WORKER = ["-m", "celery", "--app", "airflow.providers.celery.executors.celery_executor.app"]


@pytest.fixture(scope="module")
def amqp_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of this test's own."""
    layout = Layout(home=tmp_path_factory.mktemp("strict") / "stack")
    layout.create()
    (layout.etc / "rabbitmq-advanced.config").write_text(STRICT)
    try:
        run_stack(layout.home, "up", "--only", "rabbitmq").check_returncode()
        exported = [
            line.removeprefix("export ").partition("=")
            for line in run_stack(layout.home, "env", "--all").stdout.splitlines()
        ]
        yield next(value.strip("'") for name, _, value in exported if name == "COLLECT_AMQP_URL")
    finally:
        run_stack(layout.home, "clean", "--yes").check_returncode()


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


@pytest.fixture
def celery(amqp_url: str, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Celery's command as this configuration has it."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW__")},
        **parse(CONFIG / "airflow.env"),
        "PYTHONPATH": str(CHECKOUT / "plugins"),
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CELERY__BROKER_URL": amqp_url,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+sqlite:///{tmp_path}/results.db",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
    }
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, *WORKER, *arguments],
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=30)


@pytest.mark.long
def test_a_worker_of_airflows_has_its_mailbox(celery: Callable[..., subprocess.Popen[str]]) -> None:
    worker = celery(
        "worker", "--queues", "default", "--pool", "solo", "--hostname", "strict@here", "-l", "info"
    )
    for line in worker.stdout or ():
        assert "541" not in line, line
        if "strict@here ready" in line:
            break
    answer, _ = celery("inspect", "--timeout", "20", "ping").communicate(timeout=90)
    assert "strict@here: OK" in answer
    assert "pong" in answer


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
