"""The watcher of the backlog: wakes its evaluation once a minute while there is one."""

from __future__ import annotations

import time
from typing import Any

from collect_ops.kernel.backends import Backends
from collect_ops.storage import Connection, query
from collect_ops.triggers.due import DueTrigger

#: Seconds between two wake-ups, whatever became of the first.
LEAST_S = 45.0


class BacklogTrigger(DueTrigger):
    """Fires while something waits or a rule acts, and this minute has no sample yet.

    Args:
        poll_interval_s: Seconds between two looks (one short statement).
    """

    def __init__(self, poll_interval_s: float = 10.0) -> None:
        super().__init__(poll_interval_s)
        self._fired_at = -LEAST_S

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return "collect_ops.triggers.backlog.BacklogTrigger", {"poll_interval_s": self.poll_interval_s}

    def look(self, connection: Connection, backends: Backends) -> dict[str, Any]:
        """`due`, when it is."""
        now = time.monotonic()
        if now - self._fired_at < LEAST_S:
            return {}
        row = connection.execute(query("lanes/look_backlog")).fetchone()
        if row is None or not row["due"]:
            return {}
        self._fired_at = now
        return {"due": True}
