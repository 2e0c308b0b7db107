"""The watcher of what cannot wait for the sweep's own time.

Wakes it when a shard group has fallen silent, when a node does not start one, or when the last landing of a table has
had no asset event yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from collect_ops.coordination.wakeups import Wakeups
from collect_ops.delivery import dispatch, table_events
from collect_ops.hooks.backends import backends_of_async
from collect_ops.kernel.backends import Backends
from collect_ops.nodes.rules import placement_rules
from collect_ops.storage import DatabaseUnavailable, connect, errors


class RecoveryTrigger(BaseEventTrigger):
    """Fires when a shard group has to be taken back, or a table event sent, and nobody was woken for it yet.

    Args:
        poll_interval_s: Seconds between two looks (three short statements).
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
            found: dict[str, Any] = {}
            try:
                found = await asyncio.to_thread(self._look, backends, wakeups)
                pause_s = self.poll_interval_s
            except (DatabaseUnavailable, errors.OperationalError) as error:
                pause_s = min(30.0, pause_s * 2)
                self.log.warning("shard groups and table events: looking again in %.1f s: %s", pause_s, error)
            if found:
                yield TriggerEvent(found)
            await asyncio.sleep(pause_s)

    def _look(self, backends: Backends, wakeups: Wakeups) -> dict[str, Any]:
        """What there is to do, if somebody shall be woken for it now; else nothing."""
        groups = dispatch.look(backends, placement_rules())
        with connect(backends.postgres_dsn, application_name="collect-ops watch tables") as connection:
            tables = table_events.look(connection, older_than_s=table_events.GRACE_S)
        if not (groups or tables) or not wakeups.begin_watched(dispatch.WAKE_NAME):
            return {}
        return {"groups": groups, "tables": tables}
