"""The watcher of nodes: of what they say, and of their silence."""

from __future__ import annotations

from typing import Any

from collect_ops.coordination.liveness import Liveness, LivenessUnknown
from collect_ops.coordination.wakeups import Wakeups
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import lane_rules
from collect_ops.nodes.registry import WAKE_NAME, has_news
from collect_ops.nodes.rules import placement_rules
from collect_ops.storage import Connection, connect, query
from collect_ops.triggers.waking import WakingTrigger


class HeartbeatTrigger(WakingTrigger):
    """Fires when a node's state has changed, when a node says something new, and beside work that is to be placed.

    An idle stack's heartbeats say what the last ones said: they wait for the registry's own schedule. Beside work
    that is placed by them they are taken in as they come.

    Args:
        poll_interval_s: Seconds between two looks.
    """

    def __init__(self, poll_interval_s: float = 5.0) -> None:
        super().__init__(poll_interval_s)
        self._connection: Connection | None = None
        self._liveness: Liveness | None = None

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
        """Whether the figures in them count now: work waits, or runs on nodes that are chosen by them."""
        if not backends.node_queues:
            return False
        return self._kept_connection(backends).execute(query("nodes/look_placing")).fetchone() is not None

    def _look(self, backends: Backends, wakeups: Wakeups) -> int:
        """Also without messages: a node that has died sends none."""
        if not self._has_news(backends):
            return super()._look(backends, wakeups)
        return 1 if wakeups.begin_watched(self.wake_name) else 0

    def _has_news(self, backends: Backends) -> bool:
        rules = placement_rules()
        self._liveness = self._liveness or Liveness(backends.redis_url, rules.heartbeat.alive_s)
        try:
            return has_news(self._kept_connection(backends), self._liveness, rules)
        except LivenessUnknown as error:
            self.log.debug("states of nodes stay as they are: %s", error)
            return False

    def _kept_connection(self, backends: Backends) -> Connection:
        if self._connection is None:
            self._connection = connect(backends.postgres_dsn, application_name="collect-ops watch nodes")
        return self._connection

    def _close(self) -> None:
        super()._close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
