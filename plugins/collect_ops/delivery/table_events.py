"""Sends Airflow the asset event of every table in which rows have landed, so that DAGs can be scheduled on it.

At least once a landing, at most once a table in ten seconds unless Airflow took as long to answer or its answer was
lost, and the last landing is always followed by an event. Safe to run twice and at the same time: a table's turn is
taken just before its event is sent, and its rows are deleted after it. No table waits for another: the oldest landing
is first, and what Airflow does not take in a pass with a time limit is left to the sweep.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from collect_ops.kernel.backends import Backends
from collect_ops.orchestrator.errors import AirflowRefused, AirflowUnavailable
from collect_ops.orchestrator.port import AssetReports
from collect_ops.sources.asset import table_asset
from collect_ops.storage import Connection, connect, query

log = logging.getLogger(__name__)

#: Seconds between two events of a table: its consumers start a run for each.
INTERVAL_S = 10.0
#: Seconds that a landing's event is left to the run that it belongs to, before the sweep is woken for it.
GRACE_S = 8.0
#: Seconds after which Airflow is asked again for an asset that it did not know, or whose event it refused.
UNKNOWN_WAIT_S = 60.0
#: Seconds after which nobody waits for an event any more: a DAG that is scheduled on an asset makes it known.
UNKNOWN_LIFETIME_S = 3600.0
#: Seconds after which an event is dropped that Airflow has refused all the time.
REFUSED_LIFETIME_S = 86_400.0
#: Collect tasks that an event names at most, the latest first.
MOST_TASKS = 100


@dataclass(slots=True, kw_only=True)
class Sent:
    """What a pass did, counted in tables.

    Args:
        sent: Airflow has an event.
        unknown: No DAG makes the table's asset known yet.
        dropped: The same for an hour, so nobody is scheduled on it; or Airflow has refused it for a day.
    """

    sent: int = 0
    unknown: int = 0
    dropped: int = 0

    def as_counts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def run_once(
    backends: Backends,
    open_reports: Callable[[], AssetReports],
    *,
    interval_s: float = INTERVAL_S,
    limited: bool = False,
) -> Sent:
    """Send an event of each table with new rows whose turn it is.

    Args:
        backends: Where the services are.
        open_reports: Opens the way to Airflow; called when there is something to send.
        interval_s: Seconds between two events of a table.
        limited: The way to Airflow has a time limit: what another such pass failed to send is left to the sweep.

    Raises:
        AirflowUnavailable: Airflow did not answer; what is left can be sent at once, what failed when a pass without a
            limit comes to it.
        ExceptionGroup: Airflow refused some; the others were sent.
        DatabaseUnavailable: PostgreSQL went away.
    """
    done = Sent()
    refused: list[AirflowRefused] = []
    with connect(backends.postgres_dsn, application_name="collect-ops table events") as connection:
        rows = connection.execute(query("delivery/select_sendable_tables"), {"limited": limited}).fetchall()
        if not rows:
            return done
        one = _Pass(connection=connection, reports=open_reports(), interval_s=interval_s, limited=limited)
        for row in rows:
            try:
                one.send(row["table_name"], done)
            except AirflowRefused as error:  # of one table: it must not keep the others waiting
                refused.append(error)
    log.info("table events: %s", done)
    if refused:
        raise ExceptionGroup(f"{len(refused)} table events were refused", refused)
    return done


@dataclass(slots=True, kw_only=True)
class _Pass:
    """One pass over the tables."""

    connection: Connection
    reports: AssetReports
    interval_s: float
    limited: bool
    asked: bool = False

    def send(self, table: str, done: Sent) -> None:
        """Send a table's events as one, if its turn is to be had."""
        taken = {"table_name": table, "interval_s": self.interval_s}
        turn = self.connection.execute(query("delivery/take_table_turn"), taken).fetchone()
        if turn is None:
            return
        values = {"table_name": table, "most": MOST_TASKS}
        row = self.connection.execute(query("delivery/select_table_events"), values).fetchone()
        if row is None or not row["ids"]:
            self._put_off(table, 0.0, failed=turn["failed"])
            return
        if self._report(table, row, done):
            self.connection.execute(query("delivery/delete_table_events"), {"ids": row["ids"]})
            if turn["failed"]:
                self._put_off(table, self.interval_s, failed=False)

    def _report(self, table: str, row: dict[str, Any], done: Sent) -> bool:
        """Report to Airflow; returns whether nobody waits for these events any more."""
        asset = table_asset(table)
        extra = {name: row[name] for name in ("task_ids", "tasks", "sources", "rows_landed")}
        first, self.asked = not self.asked, True
        try:
            known = self.reports.report_change(asset.name, asset.uri, extra)
        except AirflowRefused as error:
            self._put_off(table, UNKNOWN_WAIT_S, failed=False)
            if row["oldest_s"] <= REFUSED_LIFETIME_S:
                raise
            log.error("the event of the asset %s is dropped: refused for a day: %s", asset.name, error)
            done.dropped += 1
            return True
        except AirflowUnavailable:
            # Whoever was not first had only what the others left of the time: it is first next time.
            self._put_off(table, 0.0 if self.limited else self.interval_s, failed=first or not self.limited)
            raise
        if known:
            done.sent += 1
        elif row["oldest_s"] > UNKNOWN_LIFETIME_S:
            log.warning("no DAG knows the asset %s: its event is dropped", asset.name)
            done.dropped += 1
        else:
            self._put_off(table, UNKNOWN_WAIT_S, failed=False)
            done.unknown += 1
            return False
        return True

    def _put_off(self, table: str, wait_s: float, *, failed: bool) -> None:
        values = {"table_name": table, "wait_s": wait_s, "failed": failed}
        self.connection.execute(query("delivery/put_off_table"), values)
