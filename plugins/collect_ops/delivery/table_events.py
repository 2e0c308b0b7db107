"""Sends Airflow the asset event of every table in which rows have landed, so that DAGs can be scheduled on it.

At least once a landing, at most once a table in ten seconds, and the last landing is always followed by an event. Safe
to run twice and at the same time: a table's turn is taken before its event is sent, and its rows are deleted after it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from collect_ops.kernel.backends import Backends
from collect_ops.orchestrator.errors import AirflowRefused
from collect_ops.orchestrator.port import AssetReports
from collect_ops.sources.asset import table_asset
from collect_ops.storage import Connection, connect, query

log = logging.getLogger(__name__)

#: Seconds between two events of a table: its consumers start a run for each.
INTERVAL_S = 10.0
#: Seconds that a landing's event is left to the run that it belongs to, before the sweep is woken for it.
GRACE_S = 8.0
#: Seconds after which Airflow is asked again for an asset that it did not know.
UNKNOWN_WAIT_S = 60.0
#: Seconds after which nobody waits for an event any more: a DAG that is scheduled on an asset makes it known.
UNKNOWN_LIFETIME_S = 3600.0
#: Collect tasks that an event names at most, the latest first.
MOST_TASKS = 100


@dataclass(slots=True, kw_only=True)
class Sent:
    """What a pass did, counted in tables.

    Args:
        sent: Airflow has an event.
        unknown: No DAG makes the table's asset known yet.
        dropped: The same for an hour: nobody is scheduled on it.
    """

    sent: int = 0
    unknown: int = 0
    dropped: int = 0

    def as_counts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def look(connection: Connection, *, older_than_s: float = 0.0) -> bool:
    """Whether a pass has something to do now: one short statement.

    Args:
        connection: To the database.
        older_than_s: Seconds that a landing is left to the run that it belongs to.
    """
    values = {"older_than_s": older_than_s}
    return connection.execute(query("delivery/look_table_events"), values).fetchone() is not None


def run_once(
    backends: Backends, open_reports: Callable[[], AssetReports], *, interval_s: float = INTERVAL_S
) -> Sent:
    """Send an event of each table with new rows whose turn it is.

    Args:
        backends: Where the services are.
        open_reports: Opens the way to Airflow; called when there is something to send.
        interval_s: Seconds between two events of a table.

    Raises:
        AirflowUnavailable: Airflow did not answer; what is left is sent when the interval is over.
        ExceptionGroup: Airflow refused some; the others were sent.
        DatabaseUnavailable: PostgreSQL went away.
    """
    done = Sent()
    refused: list[AirflowRefused] = []
    with connect(backends.postgres_dsn, application_name="collect-ops table events") as connection:
        if not look(connection):
            return done
        reports = open_reports()
        values = {"interval_s": interval_s}
        for row in connection.execute(query("delivery/take_table_turns"), values).fetchall():
            try:
                _send(connection, row["table_name"], reports, done)
            except AirflowRefused as error:  # of one table: it must not keep the others waiting
                refused.append(error)
    log.info("table events: %s", done)
    if refused:
        raise ExceptionGroup(f"{len(refused)} table events were refused", refused)
    return done


def _send(connection: Connection, table: str, reports: AssetReports, done: Sent) -> None:
    values = {"table_name": table, "most": MOST_TASKS}
    row = connection.execute(query("delivery/select_table_events"), values).fetchone()
    if row is None or not row["ids"]:
        return
    asset = table_asset(table)
    extra = {name: row[name] for name in ("task_ids", "tasks", "sources", "rows_landed")}
    if reports.report_change(asset.name, asset.uri, extra):
        done.sent += 1
    elif row["oldest_s"] > UNKNOWN_LIFETIME_S:
        log.warning("no DAG knows the asset %s: its event is dropped", asset.name)
        done.dropped += 1
    else:
        connection.execute(query("delivery/put_off_table"), {"table_name": table, "wait_s": UNKNOWN_WAIT_S})
        done.unknown += 1
        return
    connection.execute(query("delivery/delete_table_events"), {"ids": row["ids"]})
