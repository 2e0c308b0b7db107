"""Watching a queue whose work a DAG does: fires when there is something to do and nobody was woken for it yet."""

from __future__ import annotations

import asyncio
import contextlib
from abc import abstractmethod
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from collect_ops.broker.connection import BrokerRefused, BrokerUnavailable
from collect_ops.broker.consumer import Consumer, QueueMissing
from collect_ops.coordination.wakeups import Wakeups
from collect_ops.hooks.backends import backends_of_async
from collect_ops.kernel.backends import Backends
from collect_ops.storage import DatabaseUnavailable, errors
from collect_ops.triggers.threads import run_in_thread


class WakingTrigger(BaseEventTrigger):
    """Fires when a queue holds messages, there is room for them and no wake-up is pending.

    The event is only a wake-up: what there is to do stays in the broker (an event that Airflow loses costs the time
    until the sweep).

    Args:
        poll_interval_s: Seconds between two looks at the queue (a passive declare on a kept connection).
    """

    def __init__(self, poll_interval_s: float = 1.0) -> None:
        super().__init__()
        self.poll_interval_s = poll_interval_s
        self._consumer: Consumer | None = None

    @property
    @abstractmethod
    def wake_name(self) -> str:
        """Under which the wake-up is marked."""

    @property
    @abstractmethod
    def queue_name(self) -> str:
        """The queue that is looked at."""

    @abstractmethod
    def has_room(self, backends: Backends) -> bool:
        """Whether a run could take a message now."""

    def event(self, depth: int) -> dict[str, Any]:
        """What the event tells: `queue`, and `depth` (messages in it)."""
        return {"queue": self.queue_name, "depth": depth}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the queue for as long as the triggerer runs."""
        backends = await backends_of_async()
        wakeups = Wakeups(backends.redis_url)
        pause_s = self.poll_interval_s
        try:
            while True:
                try:
                    depth = await run_in_thread(partial(self._look, backends, wakeups))
                    pause_s = self.poll_interval_s
                except (
                    BrokerUnavailable,
                    BrokerRefused,
                    QueueMissing,
                    DatabaseUnavailable,
                    errors.OperationalError,
                    errors.InterfaceError,
                ) as error:
                    self._close()
                    pause_s = min(10.0, pause_s * 2)
                    self.log.warning("queue %s: looking again in %.1f s: %s", self.queue_name, pause_s, error)
                    depth = 0
                if depth:
                    yield TriggerEvent(self.event(depth))
                await asyncio.sleep(pause_s)
        finally:
            self._close()

    def _look(self, backends: Backends, wakeups: Wakeups) -> int:
        """Messages in the queue if somebody shall be woken for them now, else 0."""
        if self._consumer is None:
            self._consumer = Consumer(backends.amqp_url)
        depth = self._consumer.depth(self.queue_name)
        if depth == 0 or not self.has_room(backends):
            return 0
        return depth if wakeups.begin_watched(self.wake_name) else 0

    def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(BrokerUnavailable):  # it is gone already: that is why we close
                consumer.close()
