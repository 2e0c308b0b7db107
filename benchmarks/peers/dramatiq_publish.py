"""Dramatiq's `send` with confirmed delivery: each message waits for its confirm; connections are kept, one a thread.

Messages are persistent and the queue durable, as dramatiq always has them. It stores nothing, validates nothing and
knows no duplicates.

Prints `{"messages": …, "seconds": …}`.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

QUEUE: Final = "bench.dramatiq"
#: Messages before the measurement.
WARM: Final = 50


def main() -> None:
    """Send as many messages as asked, and print how long that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amqp", required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--callers", type=int, default=1, help="threads that send at the same time")
    arguments = parser.parse_args()
    broker = RabbitmqBroker(url=arguments.amqp, confirm_delivery=True, max_priority=10)
    dramatiq.set_broker(broker)

    @dramatiq.actor(queue_name=QUEUE)
    def collect(source: str, since: str) -> None:
        """Never runs: only its sending is measured."""

    def send(number: int) -> None:
        collect.send_with_options(args=("example_offset", f"since {number}"), broker_priority=5)

    with ThreadPoolExecutor(arguments.callers) as pool:
        list(pool.map(send, range(WARM)))  # declares the queue, opens the connections
        spread = map if arguments.callers == 1 else pool.map
        began = time.perf_counter()
        list(spread(send, range(arguments.messages)))
        seconds = time.perf_counter() - began
    ready, _, _ = broker.get_queue_message_counts(QUEUE)
    broker.flush(QUEUE)
    broker.close()
    if ready != arguments.messages + WARM:
        raise SystemExit(f"{ready} messages in the queue, {arguments.messages + WARM} were sent")
    print(json.dumps({"messages": arguments.messages, "seconds": seconds}))


if __name__ == "__main__":
    main()
