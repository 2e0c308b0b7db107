"""Celery's `apply_async` with publisher confirms.

A producer and a connection a caller, kept, as a long-lived web process has them; messages are persistent, the queue
durable. `confirm_publish` makes Celery wait for the broker's confirm of each message before the next one goes out. It
stores nothing, validates nothing and knows no duplicates.

With `--dsn` each message is a row first, as in an outbox written by hand: inserted and committed, published, marked as
confirmed and committed. That is the least which loses nothing that a caller was told is taken.

Prints `{"messages": …, "seconds": …}`.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import psycopg
from celery import Celery
from kombu import Exchange, Queue

QUEUE: Final = "bench.celery"
#: Messages before the measurement.
WARM: Final = 50
TABLE: Final = """
DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;
CREATE TABLE bench.outbox (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    since     text NOT NULL UNIQUE,
    confirmed boolean NOT NULL DEFAULT false
)
"""
INSERT: Final = """
INSERT INTO bench.outbox (since) VALUES (%s) ON CONFLICT (since) DO UPDATE SET confirmed = false RETURNING id
"""
MARK: Final = "UPDATE bench.outbox SET confirmed = true WHERE id = %s"


def _queue() -> Queue:
    return Queue(QUEUE, Exchange(QUEUE, durable=True), routing_key=QUEUE, durable=True, max_priority=10)


def main() -> None:
    """Publish as many messages as asked, and print how long that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amqp", required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--callers", type=int, default=1, help="threads that publish at the same time")
    parser.add_argument("--dsn", help="a database whose table bench.outbox keeps each message first")
    arguments = parser.parse_args()
    app = Celery("bench", broker=arguments.amqp)
    app.conf.update(
        broker_transport_options={"confirm_publish": True},
        broker_pool_limit=arguments.callers,
        task_default_queue=QUEUE,
        task_queues=[_queue()],
        task_default_delivery_mode="persistent",
        task_ignore_result=True,
    )

    @app.task(name="collect")
    def collect(source: str, since: str) -> None:
        """Never runs: only its publishing is measured."""

    def send(number: int) -> None:
        with app.producer_pool.acquire(block=True) as producer:
            collect.apply_async(("example_offset", f"since {number}"), producer=producer, priority=5)

    kept = threading.local()

    def through_outbox(number: int) -> None:
        if not hasattr(kept, "connection"):
            kept.connection = psycopg.connect(arguments.dsn, autocommit=True)
        row = kept.connection.execute(INSERT, (f"since {number}",)).fetchone()
        send(number)
        kept.connection.execute(MARK, row)

    if arguments.dsn:
        with psycopg.connect(arguments.dsn, autocommit=True) as connection:
            connection.execute(TABLE)
    publish = through_outbox if arguments.dsn else send
    with ThreadPoolExecutor(arguments.callers) as pool:
        list(pool.map(publish, range(WARM)))  # declares the queue, opens the connections
        spread = map if arguments.callers == 1 else pool.map
        began = time.perf_counter()
        list(spread(publish, range(arguments.messages)))
        seconds = time.perf_counter() - began
    with app.connection_for_read() as connection:
        ready = connection.default_channel.queue_declare(QUEUE, passive=True).message_count
        connection.default_channel.queue_purge(QUEUE)
    if ready != arguments.messages + WARM:
        raise SystemExit(f"{ready} messages in the queue, {arguments.messages + WARM} were published")
    print(json.dumps({"messages": arguments.messages, "seconds": seconds}))


if __name__ == "__main__":
    main()
