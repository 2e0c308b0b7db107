"""The watcher of a lane's queue: wakes the lane for producers and dead-lettered retries that nobody else announces."""

from __future__ import annotations

from typing import Any

from collect_ops.kernel.backends import Backends
from collect_ops.lanes.capacity import room
from collect_ops.lanes.rules import lane_rules
from collect_ops.storage import Connection, connect
from collect_ops.triggers.waking import WakingTrigger


class LaneTrigger(WakingTrigger):
    """Fires when a lane's queue holds messages, the lane has room and no wake-up is pending.

    Args:
        lane: Lane name.
        poll_interval_s: Seconds between two looks at the queue. Each costs something on an idle stack, and only retries
            that come back wait for it: who admits or settles wakes the lane.
    """

    def __init__(self, lane: str, poll_interval_s: float = 2.0) -> None:
        super().__init__(poll_interval_s)
        self.lane = lane
        self._connection: Connection | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return (
            "collect_ops.triggers.lane.LaneTrigger",
            {"lane": self.lane, "poll_interval_s": self.poll_interval_s},
        )

    @property
    def wake_name(self) -> str:
        """The lane."""
        return self.lane

    @property
    def queue_name(self) -> str:
        """The lane's queue."""
        return lane_rules().queue(self.lane)

    def has_room(self, backends: Backends) -> bool:
        """Whether the lane may start a shard group."""
        if self._connection is None:
            self._connection = connect(backends.postgres_dsn, application_name="collect-ops watch")
        return room(self._connection, self.lane, lane_rules(), backends) > 0

    def event(self, depth: int) -> dict[str, Any]:
        """What the event tells: `lane` and `depth`."""
        return {"lane": self.lane, "depth": depth}

    def _close(self) -> None:
        super()._close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
