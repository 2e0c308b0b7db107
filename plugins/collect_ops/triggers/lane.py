"""The watcher of a lane's queue: wakes the lane for producers and dead-lettered retries that nobody else announces."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from collect_ops.broker.connection import BrokerUnavailable
from collect_ops.broker.consumer import Consumer, QueueMissing
from collect_ops.coordination.wakeups import Wakeups
from collect_ops.hooks.backends import backends_of_async
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.capacity import room
from collect_ops.lanes.rules import lane_rules
from collect_ops.storage import DatabaseUnavailable, connect, errors


class LaneTrigger(BaseEventTrigger):
    """Fires when a lane's queue holds messages, the lane has room and no wake-up is pending.

    The event is only a wake-up: what there is to do stays in the broker (an event that Airflow loses costs the minute
    until the sweep).

    Args:
        lane: Lane name.
        poll_interval_s: Seconds between two looks at the queue (a passive declare on a kept connection).
    """

    def __init__(self, lane: str, poll_interval_s: float = 0.5) -> None:
        super().__init__()
        self.lane = lane
        self.poll_interval_s = poll_interval_s
        self._consumer: Consumer | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return (
            "collect_ops.triggers.lane.LaneTrigger",
            {"lane": self.lane, "poll_interval_s": self.poll_interval_s},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the queue for as long as the triggerer runs."""
        backends = await backends_of_async()
        wakeups = Wakeups(backends.redis_url)
        pause_s = self.poll_interval_s
        try:
            while True:
                try:
                    depth = await asyncio.to_thread(self._look, backends, wakeups)
                    pause_s = self.poll_interval_s
                except (
                    BrokerUnavailable,
                    QueueMissing,
                    DatabaseUnavailable,
                    errors.OperationalError,
                ) as error:
                    self._close()
                    pause_s = min(10.0, pause_s * 2)
                    self.log.warning("lane %s: looking again in %.1f s: %s", self.lane, pause_s, error)
                    depth = 0
                if depth:
                    yield TriggerEvent({"lane": self.lane, "depth": depth})
                await asyncio.sleep(pause_s)
        finally:
            self._close()

    def _look(self, backends: Backends, wakeups: Wakeups) -> int:
        """Messages in the queue if the lane shall be woken for them now, else 0."""
        if self._consumer is None:
            self._consumer = Consumer(backends.amqp_url)
        depth = self._consumer.depth(lane_rules().queue(self.lane))
        if depth == 0:
            return 0
        with connect(backends.postgres_dsn, application_name="collect-ops watch") as connection:
            if room(connection, self.lane, lane_rules()) == 0:
                return 0
        return depth if wakeups.begin(self.lane) else 0

    def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(BrokerUnavailable):  # it is gone already: that is why we close
                consumer.close()
