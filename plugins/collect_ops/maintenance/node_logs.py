"""Deletes this machine's old task logs of Airflow once a day, wherever a node runs.

The DAG `retention` runs on one machine, and the stack's housekeeping on its own: what lies on a machine that has
joined, nobody else can reach. The rule is the same, `airflow.logs` of include/rules/retention.yaml. Safe beside another
pass.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from collect_ops.kernel.errors import CollectOpsError
from collect_ops.maintenance.airflow_records import LOGS_VARIABLE, LogsDeleted, delete_logs
from collect_ops.maintenance.retention_rules import retention_rules

log = logging.getLogger(__name__)

INTERVAL_S = 86_400.0


def kept_days() -> float:
    """How long logs are kept, read anew."""
    return float(retention_rules().airflow.logs)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLogs:
    """The chore of one machine.

    Args:
        folder: Airflow's base folder of logs.
        days: How long logs are kept.
        every_s: Seconds between two passes.
    """

    folder: Path
    days: Callable[[], float] = kept_days
    every_s: float = INTERVAL_S

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> NodeLogs | None:
        """Of the folder that a process of Airflow's here writes to; None where nobody says which that is."""
        folder = environment.get(LOGS_VARIABLE)
        return cls(folder=Path(folder)) if folder else None

    def run_once(self) -> LogsDeleted:
        """Delete what is older than the rules keep.

        Raises:
            ValidationFailed: The rules have faults.
        """
        return delete_logs(self.folder, self.days())

    def start(self, stopping: threading.Event) -> threading.Thread:
        """Passes in a thread of their own, one now, until `stopping`: the node's sign of life waits for none."""
        thread = threading.Thread(target=self._run, args=(stopping,), name="node-logs", daemon=True)
        thread.start()
        return thread

    def _run(self, stopping: threading.Event) -> None:
        while True:
            try:
                self.run_once()
            except (CollectOpsError, OSError):  # the second: the folder itself cannot be read
                # No reason to stop the node; the next pass tries again.
                log.exception("old logs below %s were not deleted", self.folder)
            if stopping.wait(self.every_s):
                return
