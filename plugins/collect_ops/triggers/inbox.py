"""The watcher of the AMQP inbox: its producers wake nobody themselves."""

from __future__ import annotations

from typing import Any

from collect_ops.admission.inbox import WAKE_NAME
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import lane_rules
from collect_ops.triggers.waking import WakingTrigger


class InboxTrigger(WakingTrigger):
    """Fires when the inbox holds messages and no wake-up is pending."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return "collect_ops.triggers.inbox.InboxTrigger", {"poll_interval_s": self.poll_interval_s}

    @property
    def wake_name(self) -> str:
        """The inbox's mark."""
        return WAKE_NAME

    @property
    def queue_name(self) -> str:
        """The inbox."""
        return lane_rules().broker.inbox

    def has_room(self, backends: Backends) -> bool:
        """Admission stores; there is always room for that."""
        return True
