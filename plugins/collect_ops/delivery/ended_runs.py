"""Removes the machinery's runs that ended well an hour ago, with their logs, so that people find theirs.

Never a run that failed, one of people's tasks (`collect_LANE`, `source_NAME`, `collect_submit`), or a DAG's newest
scheduled run, from which Airflow computes the next. Safe to run twice and at the same time: a run that is gone is
gone.

A run that cannot be removed, or a DAG whose runs cannot be listed, keeps nothing else from being removed: a call that
failed is repeated in ever smaller parts, and passes begin anywhere, so that many bad runs hold up the others for some
passes only. An Airflow that does not answer at all ends the pass.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import lane_dag_id
from collect_ops.orchestrator.errors import AirflowRefused, AirflowUnavailable
from collect_ops.orchestrator.port import RunArchive
from collect_ops.orchestrator.run_logs import remove_run_logs
from collect_ops.storage import connect, query

log = logging.getLogger(__name__)

#: How long a run of the machinery is shown that ended well.
KEPT = timedelta(hours=1)
#: Seconds between two passes; a pass asks Airflow twice a DAG.
EVERY_S = 600.0
#: Runs removed with one call; of a call that failed, with each of the next ones; and then one by one.
BATCHES = (100, 10, 1)
#: Seconds after which no further call is made: the rest waits for the next pass. The second when a call has failed.
TIME_LIMIT_S = 10.0
SEARCH_LIMIT_S = 45.0
#: Seconds that Airflow has to remove the runs of one call.
CALL_LIMIT_S = 10.0
#: Failed calls after which the rest of a batch waits for another pass.
MOST_FAILURES = 20
#: Failed calls in a row after which the pass ends: it is not about single runs.
MOST_IN_A_ROW = 60
CHORE = "ended_runs"
#: Beside the lanes' DAGs.
DAG_IDS = ("collect_sweep", "heartbeat_ingest", "collect_backlog", "collect_inbox")


@dataclass(slots=True, kw_only=True)
class Removed:
    """What a pass did.

    Args:
        runs: Removed from Airflow.
        logs: Of them those that had logs here.
        failed: Could not be removed; the next pass tries again.
        more: The time was up before every DAG was looked at.
    """

    runs: int = 0
    logs: int = 0
    failed: int = 0
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
        AirflowUnavailable: Airflow does not answer, or refuses everything.
        ExceptionGroup: Some runs, their logs, or the runs of some DAGs could not be removed; the others were.
    """
    removed = Removed()
    with connect(backends.postgres_dsn, application_name="collect-ops ended runs") as connection:
        turn = {"chore": CHORE, "every_s": every_s}
        if connection.execute(query("delivery/take_chore_turn"), turn).fetchone() is None:
            return removed
    one = _Pass(archive=open_archive(), logs=logs, before=(now or datetime.now(UTC)) - KEPT, removed=removed)
    dag_ids = machinery_dag_ids(rules)
    random.shuffle(dag_ids)
    for dag_id in dag_ids:
        try:
            one.remove_of(dag_id)
        except AirflowUnavailable as error:
            one.failures.append(error)
            one.demand_airflow(dag_id, error)
        if one.time_is_up():
            break
    if removed.runs or one.failures:
        log.info("ended runs of the machinery: %s", removed)
    if one.failures:
        raise ExceptionGroup(
            f"{removed.failed} ended runs could not be removed; failures", one.failures[:MOST_FAILURES]
        )
    return removed


@dataclass(slots=True, kw_only=True)
class _Pass:
    """One pass over the DAGs."""

    archive: RunArchive
    logs: Path | None
    before: datetime
    removed: Removed
    failures: list[Exception] = field(default_factory=list)
    failed_calls: int = 0
    in_batch: int = 0
    in_a_row: int = 0
    began: float = field(default_factory=time.monotonic)

    def remove_of(self, dag_id: str) -> None:
        """Remove a DAG's runs, oldest first, as long as there is time."""
        newest = self.archive.newest_scheduled(dag_id)
        offset = 0
        while True:
            found = self.archive.ended_well(dag_id, self.before, limit=BATCHES[0], offset=offset)
            # Logs first: of a run that is still there they are found again.
            bare = self._remove_logs(dag_id, [run_id for run_id in found if run_id not in newest])
            self.in_batch = 0
            gone = self._delete(dag_id, bare, BATCHES)
            offset += len(found) - len(gone)
            if len(found) < BATCHES[0] or self.time_is_up():
                return

    def demand_airflow(self, dag_id: str, error: AirflowUnavailable) -> None:
        """After a call that failed: goes on if that may be about what was asked.

        Raises:
            AirflowUnavailable: Airflow is away, or refuses everything.
        """
        self.failed_calls += 1
        self.in_batch += 1
        self.in_a_row += 1
        if self.in_a_row >= MOST_IN_A_ROW:
            raise error
        if not isinstance(error, AirflowRefused):
            with contextlib.suppress(AirflowRefused):  # an answer, and so it is there
                self.archive.newest_scheduled(dag_id)

    def time_is_up(self) -> bool:
        """Whether no further call is to be made."""
        limit_s = SEARCH_LIMIT_S if self.failed_calls else TIME_LIMIT_S
        if time.monotonic() - self.began > limit_s:
            self.removed.more = True
        return self.removed.more

    def _remove_logs(self, dag_id: str, run_ids: Sequence[str]) -> list[str]:
        """Returns the runs that have no logs here any more."""
        if self.logs is None:
            return list(run_ids)
        bare = []
        for run_id in run_ids:
            try:
                self.removed.logs += remove_run_logs(self.logs, dag_id, [run_id])
            except OSError as error:
                error.add_note(f"logs of run {run_id} of {dag_id}")
                self.failures.append(error)
                self.removed.failed += 1
            else:
                bare.append(run_id)
        return bare

    def _delete(self, dag_id: str, run_ids: Sequence[str], sizes: Sequence[int]) -> set[str]:
        """Delete runs, so many a call; those of a call that failed in smaller parts. Returns which are gone."""
        gone: set[str] = set()
        size, *smaller = sizes
        parts = [run_ids[first : first + size] for first in range(0, len(run_ids), size)]
        random.shuffle(parts)
        for number, part in enumerate(parts):
            if self.in_batch >= MOST_FAILURES or (number and self.time_is_up()):
                break
            try:
                self.removed.runs += self.archive.delete_runs(dag_id, part, limit_s=CALL_LIMIT_S)
            except AirflowUnavailable as error:
                if len(part) == 1:
                    self.removed.failed += 1
                    self.failures.append(error)
                self.demand_airflow(dag_id, error)
                if len(part) > 1:
                    gone |= self._delete(dag_id, part, [each for each in smaller if each < len(part)])
            else:
                self.in_a_row = 0
                gone.update(part)
        return gone
