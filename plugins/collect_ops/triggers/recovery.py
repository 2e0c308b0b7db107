"""The watcher of what the sweep does: wakes it as soon as a pass has something to do."""

from __future__ import annotations

import time
from typing import Any

from collect_ops.coordination.wakeups import Wakeups
from collect_ops.delivery import dispatch, due
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import lane_rules
from collect_ops.nodes.rules import placement_rules
from collect_ops.storage import Connection
from collect_ops.triggers.due import DueTrigger


class RecoveryTrigger(DueTrigger):
    """Fires when a pass of the sweep is due, and nobody was woken for it yet.

    Args:
        poll_interval_s: Seconds between two looks (two short statements).
    """

    def __init__(self, poll_interval_s: float = 4.0) -> None:
        super().__init__(poll_interval_s)
        self._reminders = due.Reminders(first_s=poll_interval_s)
        self._wakeups: Wakeups | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return "collect_ops.triggers.recovery.RecoveryTrigger", {"poll_interval_s": self.poll_interval_s}

    def look(self, connection: Connection, backends: Backends) -> dict[str, Any]:
        """`due`: the passes that a run is to be started for."""
        now = time.monotonic()
        passes = due.look(connection, backends, lane_rules(), placement_rules())
        worth = self._reminders.worth_a_run(passes, now)
        if not worth:
            return {}
        self._wakeups = self._wakeups or Wakeups(backends.redis_url)
        if not self._wakeups.begin_watched(dispatch.WAKE_NAME):
            return {}
        self._reminders.told({name: passes[name] for name in worth}, now)
        return {"due": worth}
