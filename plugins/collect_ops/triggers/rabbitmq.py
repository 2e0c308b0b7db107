"""Waiting for messages in a RabbitMQ queue, without a worker slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from collect_ops.broker.connection import BrokerUnavailable
from collect_ops.broker.consumer import Consumer, QueueMissing
from collect_ops.hooks.rabbitmq import DEFAULT_CONN_ID, RabbitMQHook

LONGEST_PAUSE_S = 30.0


@dataclass(slots=True, kw_only=True)
class Watch:
    """Decides which looks at a queue are worth an event.

    The first with enough messages is, and so is one with more than the last event told. While messages stay
    where they are, one event in `remind_s` is enough: each starts a DAG run, and an event may be lost.

    Args:
        min_messages: Messages that are enough.
        remind_s: Seconds after which an event is repeated.
    """

    min_messages: int
    remind_s: float
    _told: int = 0
    _told_at: float = 0.0

    def fires(self, depth: int, now: float) -> bool:
        """Whether a look that found `depth` messages at `now` (seconds of any steady clock) is an event."""
        if depth < self.min_messages:
            self._told = 0
            return False
        due = depth > self._told or now - self._told_at >= self.remind_s
        if due:
            self._told, self._told_at = depth, now
        return due


class RabbitMQQueueTrigger(BaseEventTrigger):
    """Fires when a queue holds enough messages; serves deferred sensors and `AssetWatcher`s alike.

    It takes nothing from the queue: an event is a wake-up, the messages stay in the broker until somebody
    consumes them. It looks by a passive declare on a kept connection, and goes on through an outage of the
    broker, looking again after one second, doubling to 30 s.

    Example, a DAG that starts when work arrives::

        trigger = RabbitMQQueueTrigger(queue_name="inbox")
        inbox = Asset("inbox", watchers=[AssetWatcher(name="inbox", trigger=trigger)])

        @dag(schedule=[inbox])
        def drain_inbox(): ...

    Args:
        queue_name: Queue name.
        min_messages: Messages (ready ones, not those taken and unacked) that are enough.
        poll_interval_s: Seconds between two looks.
        remind_s: Seconds after which an event is repeated while enough messages stay in the queue.
        missing_ok: Whether a queue that is not declared counts as empty.
        rabbitmq_conn_id: Airflow connection.

    Raises:
        QueueMissing: From `run`, unless `missing_ok`.
    """

    def __init__(
        self,
        *,
        queue_name: str,
        min_messages: int = 1,
        poll_interval_s: float = 1.0,
        remind_s: float = 60.0,
        missing_ok: bool = False,
        rabbitmq_conn_id: str = DEFAULT_CONN_ID,
    ) -> None:
        super().__init__()
        self.queue_name = queue_name
        self.min_messages = min_messages
        self.poll_interval_s = poll_interval_s
        self.remind_s = remind_s
        self.missing_ok = missing_ok
        self.rabbitmq_conn_id = rabbitmq_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return (
            "collect_ops.triggers.rabbitmq.RabbitMQQueueTrigger",
            {
                "queue_name": self.queue_name,
                "min_messages": self.min_messages,
                "poll_interval_s": self.poll_interval_s,
                "remind_s": self.remind_s,
                "missing_ok": self.missing_ok,
                "rabbitmq_conn_id": self.rabbitmq_conn_id,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the queue for as long as somebody listens; events carry `queue` and `messages`."""
        loop = asyncio.get_running_loop()
        amqp_url = await RabbitMQHook(self.rabbitmq_conn_id).aamqp_url()
        watch = Watch(min_messages=self.min_messages, remind_s=self.remind_s)
        glance = _Glance(amqp_url, self.queue_name, missing_ok=self.missing_ok)
        # One thread, since a pika connection must not be used by two at once; of our own, since a broker that
        # is away holds it for seconds, and the triggerer's shared threads are few.
        threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"rabbitmq-{self.queue_name}")
        pause_s = 1.0
        try:
            while True:
                try:
                    depth = await loop.run_in_executor(threads, glance.depth)
                except BrokerUnavailable as error:
                    self.log.warning("queue %s: looking again in %.0f s: %s", self.queue_name, pause_s, error)
                    await asyncio.sleep(pause_s)
                    pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
                    continue
                pause_s = 1.0
                if watch.fires(depth, loop.time()):
                    yield TriggerEvent({"queue": self.queue_name, "messages": depth})
                await asyncio.sleep(self.poll_interval_s)
        finally:
            # Not waited for: the thread may be in a look that takes its time-out, and the loop serves others.
            threads.submit(glance.close)
            threads.shutdown(wait=False)


class _Glance:
    """Looks at one queue over a connection that is kept, and opened anew after a loss."""

    def __init__(self, amqp_url: str, queue: str, *, missing_ok: bool) -> None:
        self._amqp_url = amqp_url
        self._queue = queue
        self._missing_ok = missing_ok
        self._consumer: Consumer | None = None

    def depth(self) -> int:
        try:
            self._consumer = self._consumer or Consumer(self._amqp_url)
            return self._consumer.depth(self._queue)
        except QueueMissing:
            if self._missing_ok:
                return 0
            raise
        except BrokerUnavailable:
            self.close()
            raise

    def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()
