"""The watcher of heartbeats."""

from __future__ import annotations

from typing import Any

from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import lane_rules
from collect_ops.nodes.registry import WAKE_NAME
from collect_ops.triggers.waking import WakingTrigger


class HeartbeatTrigger(WakingTrigger):
    """Fires when heartbeats wait and no wake-up is pending.

    It looks every five seconds only: whether a node lives is not told by how soon its heartbeats are taken in, and a
    run for each of them would cost more than it tells.
    """

    def __init__(self, poll_interval_s: float = 5.0) -> None:
        super().__init__(poll_interval_s)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return "collect_ops.triggers.heartbeats.HeartbeatTrigger", {"poll_interval_s": self.poll_interval_s}

    @property
    def wake_name(self) -> str:
        """The heartbeats' mark."""
        return WAKE_NAME

    @property
    def queue_name(self) -> str:
        """Where they wait."""
        return lane_rules().broker.heartbeats

    def has_room(self, backends: Backends) -> bool:
        """The registry takes in what there is."""
        return True
