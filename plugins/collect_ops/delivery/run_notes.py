"""Delivers the run notes that a run's last task could not: it was over by then, or Airflow did not answer.

Safe to run twice and at the same time: a note says the same both times, and a run is set failed once it has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from collect_ops.execution.run_verdict import confirm, read_verdict
from collect_ops.kernel.backends import Backends
from collect_ops.orchestrator.errors import AirflowRefused
from collect_ops.orchestrator.port import RunOutcome, RunReports
from collect_ops.storage import Connection, connect, query

log = logging.getLogger(__name__)

#: Runs looked at in one pass; two or three calls each.
MOST = 50
#: Seconds that a note is left to the run's own last task.
GRACE_S = 5.0


@dataclass(slots=True, kw_only=True)
class Delivered:
    """What a pass did.

    Args:
        notes: Runs whose note was written.
        failed: Of them those that had ended green and are failed now.
        active: Runs that go on: their last task says it.
        missing: Runs that Airflow does not have any more.
    """

    notes: int = 0
    failed: int = 0
    active: int = 0
    missing: int = 0

    def as_counts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def run_once(
    backends: Backends, open_reports: Callable[[], RunReports], *, grace_s: float = GRACE_S, most: int = MOST
) -> Delivered:
    """Write the notes of runs that have ended, and set failed what ended green although a task of it is dead.

    Args:
        backends: Where the services are.
        open_reports: Opens the way to Airflow; called when there is something to deliver.
        grace_s: Seconds that a note is left to the run's own last task.
        most: Runs looked at.

    Raises:
        AirflowUnavailable: Airflow did not answer; what is left is tried again.
        ExceptionGroup: Airflow refused some; the others were delivered.
        DatabaseUnavailable: PostgreSQL went away.
    """
    done = Delivered()
    refused: list[AirflowRefused] = []
    with connect(backends.postgres_dsn, application_name="collect-ops run notes") as connection:
        values = {"older_than_s": grace_s, "most": most}
        rows = connection.execute(query("delivery/select_noted_runs"), values).fetchall()
        if not rows:
            return done
        reports = open_reports()
        for row in rows:
            try:
                _deliver(connection, row["dag_id"], row["run_id"], reports, done)
            except AirflowRefused as error:  # of one run: it must not keep the others waiting
                refused.append(error)
    log.info("run notes: %s", done)
    if refused:
        raise ExceptionGroup(f"{len(refused)} run notes were refused", refused)
    return done


def _deliver(connection: Connection, dag_id: str, run_id: str, reports: RunReports, done: Delivered) -> None:
    run = reports.look(dag_id, run_id)
    if run.outcome is RunOutcome.ACTIVE:
        done.active += 1
        return
    verdict = read_verdict(connection, run_id)
    if run.outcome is RunOutcome.MISSING:
        done.missing += 1
    else:
        done.notes += 1
        if verdict.dead and run.outcome is RunOutcome.SUCCESS:
            reports.fail(dag_id, run_id, verdict.note(run.note))
            done.failed += 1
        else:
            reports.write_note(dag_id, run_id, verdict.note(run.note))
    confirm(connection, verdict)
