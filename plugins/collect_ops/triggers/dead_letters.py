"""The watcher of the dead-letter queue: what is in it is stored by the sweep, where people can read it."""

from __future__ import annotations

from typing import Any

from collect_ops.delivery import dispatch
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import lane_rules
from collect_ops.triggers.waking import WakingTrigger


class DeadLetterTrigger(WakingTrigger):
    """Fires when the dead-letter queue holds messages and the sweep has not been woken yet.

    It looks every fifteen seconds only: a dead letter waits for people.
    """

    def __init__(self, poll_interval_s: float = 15.0) -> None:
        super().__init__(poll_interval_s)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return "collect_ops.triggers.dead_letters.DeadLetterTrigger", {
            "poll_interval_s": self.poll_interval_s
        }

    @property
    def wake_name(self) -> str:
        """The sweep's mark."""
        return dispatch.WAKE_NAME

    @property
    def queue_name(self) -> str:
        """Where dead letters wait to be stored."""
        return lane_rules().broker.dead_queue

    def has_room(self, backends: Backends) -> bool:
        """The database takes what there is."""
        return True
