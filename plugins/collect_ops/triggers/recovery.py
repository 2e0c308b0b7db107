"""The watcher of shard groups: wakes the sweep when one has fallen silent, or its node does not start it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from collect_ops.coordination.wakeups import Wakeups
from collect_ops.delivery import dispatch
from collect_ops.hooks.backends import backends_of_async
from collect_ops.kernel.backends import Backends
from collect_ops.nodes.rules import placement_rules
from collect_ops.storage import DatabaseUnavailable, errors


class RecoveryTrigger(BaseEventTrigger):
    """Fires when a shard group has to be taken back and nobody was woken for it yet.

    Args:
        poll_interval_s: Seconds between two looks (two short statements).
    """

    def __init__(self, poll_interval_s: float = 4.0) -> None:
        super().__init__()
        self.poll_interval_s = poll_interval_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return "collect_ops.triggers.recovery.RecoveryTrigger", {"poll_interval_s": self.poll_interval_s}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look for as long as the triggerer runs."""
        backends = await backends_of_async()
        wakeups = Wakeups(backends.redis_url)
        pause_s = self.poll_interval_s
        while True:
            groups = 0
            try:
                groups = await asyncio.to_thread(self._look, backends, wakeups)
                pause_s = self.poll_interval_s
            except (DatabaseUnavailable, errors.OperationalError) as error:
                pause_s = min(30.0, pause_s * 2)
                self.log.warning("shard groups: looking again in %.1f s: %s", pause_s, error)
            if groups:
                yield TriggerEvent({"groups": groups})
            await asyncio.sleep(pause_s)

    def _look(self, backends: Backends, wakeups: Wakeups) -> int:
        groups = dispatch.look(backends, placement_rules())
        return groups if groups and wakeups.begin_watched(dispatch.WAKE_NAME) else 0
