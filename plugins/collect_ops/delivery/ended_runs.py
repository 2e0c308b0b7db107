"""Removes the machinery's runs that ended well an hour ago, with their logs, so that people find theirs.

Never a run that failed, one of people's tasks (`collect_LANE`, `source_NAME`, `collect_submit`), or a DAG's newest
scheduled run, from which Airflow computes the next. Safe to run twice and at the same time: a run that is gone is
gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import lane_dag_id
from collect_ops.orchestrator.port import RunArchive
from collect_ops.orchestrator.run_logs import remove_run_logs
from collect_ops.storage import connect, query

log = logging.getLogger(__name__)

#: How long a run of the machinery is shown that ended well.
KEPT = timedelta(hours=1)
#: Seconds between two passes; a pass asks Airflow twice a DAG.
EVERY_S = 600.0
#: Runs removed with one call, and seconds after which no further call is made: the rest waits for the next pass.
BATCH = 100
TIME_LIMIT_S = 10.0
CHORE = "ended_runs"
#: Beside the lanes' DAGs.
DAG_IDS = ("collect_sweep", "heartbeat_ingest", "collect_backlog", "collect_inbox")


@dataclass(slots=True, kw_only=True)
class Removed:
    """What a pass did.

    Args:
        runs: Removed from Airflow.
        logs: Of them those that had logs here.
        more: The time was up before every DAG was looked at.
    """

    runs: int = 0
    logs: int = 0
    more: bool = field(default=False)

    def as_counts(self) -> dict[str, int | bool]:
        """As JSON."""
        return asdict(self)


def machinery_dag_ids(rules: LaneRules) -> list[str]:
    """The DAGs whose ended runs tell nobody anything."""
    return [*(lane_dag_id(lane) for lane in rules.lanes), *DAG_IDS]


def run_once(
    backends: Backends,
    rules: LaneRules,
    open_archive: Callable[[], RunArchive],
    logs: Path | None,
    *,
    every_s: float = EVERY_S,
    now: datetime | None = None,
) -> Removed:
    """Remove what ended well an hour ago, once an interval.

    Args:
        backends: Where the services are.
        rules: Lane rules: which DAGs there are.
        open_archive: Opens the way to Airflow's runs.
        logs: Airflow's folder of logs on this machine; None when they are elsewhere.
        every_s: Seconds since the last pass within which this one does nothing.
        now: Airflow's clock; this machine's when None.

    Raises:
        AirflowUnavailable: Airflow did not answer, or refused.
        OSError: Logs could not be removed; their runs are still there.
    """
    removed = Removed()
    with connect(backends.postgres_dsn, application_name="collect-ops ended runs") as connection:
        turn = {"chore": CHORE, "every_s": every_s}
        if connection.execute(query("delivery/take_chore_turn"), turn).fetchone() is None:
            return removed
    archive, until = open_archive(), time.monotonic() + TIME_LIMIT_S
    for dag_id in machinery_dag_ids(rules):
        _remove_of(dag_id, archive, logs, (now or datetime.now(UTC)) - KEPT, removed, until)
        if time.monotonic() > until:
            removed.more = True
            break
    if removed.runs:
        log.info("ended runs of the machinery: %s", removed)
    return removed


def _remove_of(
    dag_id: str, archive: RunArchive, logs: Path | None, before: datetime, removed: Removed, until: float
) -> None:
    kept = archive.newest_scheduled(dag_id)
    while True:
        # One more than is removed, since the one that stays may be among them.
        found = archive.ended_well(dag_id, before, limit=BATCH + len(kept))
        run_ids = [run_id for run_id in found if run_id not in kept][:BATCH]
        if not run_ids:
            return
        # Logs first: of a run that is still there they are found again.
        if logs is not None:
            removed.logs += remove_run_logs(logs, dag_id, run_ids)
        removed.runs += archive.delete_runs(dag_id, run_ids)
        if len(run_ids) < BATCH:
            return
        if time.monotonic() > until:
            removed.more = True
            return
