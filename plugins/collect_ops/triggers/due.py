"""Watching the database for what is due: a look every few seconds, on one connection that is kept."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from collect_ops.coordination.liveness import LivenessUnknown
from collect_ops.hooks.backends import backends_of_async
from collect_ops.kernel.backends import Backends
from collect_ops.storage import Connection, DatabaseUnavailable, connect, errors
from collect_ops.triggers.threads import run_in_thread

#: Between two looks while a service that is looked at is away.
LONGEST_PAUSE_S = 30.0


class DueTrigger(BaseEventTrigger):
    """Fires when something is due that a run is worth.

    The event is only a wake-up: what is due stands in the database (an event that Airflow loses costs the time until
    the DAG's own schedule).

    Args:
        poll_interval_s: Seconds between two looks.
    """

    def __init__(self, poll_interval_s: float) -> None:
        super().__init__()
        self.poll_interval_s = poll_interval_s
        self._connection: Connection | None = None

    @abstractmethod
    def look(self, connection: Connection, backends: Backends) -> dict[str, Any]:
        """What is due, if somebody is to be woken for it now; else nothing. Runs in a thread.

        Args:
            connection: Autocommit, kept between looks.
            backends: Where the services are.
        """

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look for as long as the triggerer runs."""
        backends = await backends_of_async()
        pause_s = self.poll_interval_s
        try:
            while True:
                found: dict[str, Any] = {}
                try:
                    found = await run_in_thread(partial(self._look, backends))
                    pause_s = self.poll_interval_s
                except (
                    DatabaseUnavailable,
                    LivenessUnknown,
                    errors.OperationalError,
                    errors.InterfaceError,
                ) as error:
                    self._close()
                    pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
                    self.log.warning("%s: looking again in %.1f s: %s", type(self).__name__, pause_s, error)
                if found:
                    yield TriggerEvent(found)
                await asyncio.sleep(pause_s)
        finally:
            self._close()

    def _look(self, backends: Backends) -> dict[str, Any]:
        if self._connection is None:
            self._connection = connect(backends.postgres_dsn, application_name="collect-ops watch")
        return self.look(self._connection, backends)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
