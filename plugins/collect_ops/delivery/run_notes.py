"""Delivers the run notes that a run's last task could not: it was over by then, or Airflow did not answer.

Safe to run twice and at the same time: a note says the same both times, and a run is set failed once it has ended. What
cannot be delivered now (the run goes on, Airflow refuses its note) is tried again after twice as long each time, and
keeps no other waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from collect_ops.execution.run_verdict import confirm, read_verdict
from collect_ops.kernel.backends import Backends
from collect_ops.orchestrator.errors import AirflowRefused, AirflowUnavailable
from collect_ops.orchestrator.port import RunOutcome, RunReports
from collect_ops.storage import Connection, connect, query

log = logging.getLogger(__name__)

#: Runs looked at in one pass; two or three calls each.
MOST = 50
#: Seconds that a note is left to the run's own last task.
GRACE_S = 5.0
#: Seconds until a run is tried again, and the most that it becomes: of one that goes on, and of one that is refused.
FIRST_WAIT_S = 15.0
LONGEST_ACTIVE_WAIT_S = 300.0
LONGEST_REFUSED_WAIT_S = 3600.0
#: Seconds after which a note is given up that Airflow refuses, and that of a run which never ends: until then the note
#: keeps its task from being deleted.
REFUSED_LIFETIME_S = 86_400.0
ACTIVE_LIFETIME_S = 7 * 86_400.0
#: Refusals that are about the run. Others are about us, or Airflow's own trouble, and end when somebody mends that.
FINAL_STATUSES = frozenset({400, 404, 405, 409, 410, 413, 422})


@dataclass(slots=True, kw_only=True)
class Delivered:
    """What a pass did.

    Args:
        notes: Runs whose note was written.
        failed: Of them those that had ended green and are failed now.
        active: Runs that go on: their last task says it.
        missing: Runs that Airflow does not have any more.
        given_up: Runs whose note Airflow has refused for a day, or that have not ended in a week.
    """

    notes: int = 0
    failed: int = 0
    active: int = 0
    missing: int = 0
    given_up: int = 0

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
        ExceptionGroup: Airflow refused some, which are tried again later; the others were delivered.
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
            dag_id, run_id = row["dag_id"], row["run_id"]
            try:
                _deliver(connection, dag_id, run_id, reports, done, waits_s=row["waits_s"])
            except AirflowRefused as error:  # of one run: it must not keep the others waiting
                if error.status in FINAL_STATUSES and row["waits_s"] > REFUSED_LIFETIME_S:
                    _give_up(connection, run_id, done, f"refused for a day: {error}")
                else:
                    _put_off(connection, run_id, LONGEST_REFUSED_WAIT_S)
                    refused.append(error)
            except AirflowUnavailable:  # over this run, perhaps: the next pass begins with the others
                _put_off(connection, run_id, LONGEST_ACTIVE_WAIT_S)
                raise
    log.info("run notes: %s", done)
    if refused:
        raise ExceptionGroup(f"{len(refused)} run notes were refused", refused)
    return done


def _deliver(
    connection: Connection, dag_id: str, run_id: str, reports: RunReports, done: Delivered, *, waits_s: float
) -> None:
    run = reports.look(dag_id, run_id)
    if run.outcome is RunOutcome.ACTIVE:
        if waits_s > ACTIVE_LIFETIME_S:
            _give_up(connection, run_id, done, "the run has not ended in a week")
        else:
            _put_off(connection, run_id, LONGEST_ACTIVE_WAIT_S)
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


def _put_off(connection: Connection, run_id: str, longest_s: float) -> None:
    values = {"run_id": run_id, "first_s": FIRST_WAIT_S, "longest_s": longest_s}
    connection.execute(query("delivery/put_off_notes"), values)


def _give_up(connection: Connection, run_id: str, done: Delivered, problem: str) -> None:
    verdict = read_verdict(connection, run_id)
    log.error("the note of run %s is given up, %s; it said: %s", run_id, problem, verdict.note())
    confirm(connection, verdict)
    done.given_up += 1
