"""CeleryExecutor's messages on the real broker: by topic to a node's queue, published as Airflow's executor does it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pika
import pytest

from collect_ops.nodes.queues import EXCHANGE
from stack.env_files import CONFIG, parse

pytestmark = pytest.mark.timeout(180)
#: What an Airflow process does that publishes with this configuration; the app is the provider's own.
PUBLISH = """
import sys
from airflow.providers.celery.executors.celery_executor import app
assert app.conf.broker_transport_options["confirm_publish"] is True, app.conf.broker_transport_options
for queue in sys.argv[1:]:
    app.send_task("execute_workload", args=["{}"], queue=queue)
if "serve" in sys.argv:
    # A worker declares what it serves; the form must be the one that the router has declared.
    app.amqp.queues.select("default,node.a,node.never-published")
    with app.connection_for_write() as connection:
        for queue in app.amqp.queues.consume_from.values():
            queue(connection.default_channel).declare()
"""


def publish(amqp_url: str, folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PUBLISH, *arguments],
        env={
            **{key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW__CELERY")},
            **parse(CONFIG / "airflow.env"),
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CELERY__BROKER_URL": amqp_url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def taken(amqp_url: str, queue: str) -> list[tuple[str, str, int | None]]:
    """Exchange, routing key and delivery mode of what lies in a queue; it is durable and there."""
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        channel = connection.channel()
        channel.queue_declare(queue, durable=True, passive=True)
        found = []
        while True:
            method, properties, _ = channel.basic_get(queue, auto_ack=True)
            if method is None or properties is None:
                return found
            found.append((method.exchange, method.routing_key, properties.delivery_mode))


def test_messages_go_to_their_nodes_by_topic_before_any_worker_was_there(
    amqp_url: str, tmp_path: Path
) -> None:
    publish(amqp_url, tmp_path, "node.a", "node.b.eu", "default", "node.a")
    assert taken(amqp_url, "node.a") == [(EXCHANGE, "task.node.a", 2)] * 2
    assert taken(amqp_url, "node.b.eu") == [(EXCHANGE, "task.node.b.eu", 2)]
    assert taken(amqp_url, "default") == [("", "default", 2)]


def test_worker_and_router_declare_the_same_queue_and_nothing_arrives_twice(
    amqp_url: str, tmp_path: Path
) -> None:
    publish(amqp_url, tmp_path, "node.a", "serve")
    publish(amqp_url, tmp_path, "node.never-published", "serve")
    assert taken(amqp_url, "node.a") == [(EXCHANGE, "task.node.a", 2)]
    assert taken(amqp_url, "node.never-published") == [(EXCHANGE, "task.node.never-published", 2)]
