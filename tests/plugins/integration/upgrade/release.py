"""A database that release 0.1.0 has written, as today's processes find it; see its folder's README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from collect_ops.broker.publisher import Publisher
from collect_ops.lanes.publication import Publication, publish
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import RunState
from collect_ops.sources.model import Source
from collect_ops.sources.stored import load_definition
from collect_ops.storage import Connection, connect
from collect_ops.storage.migrate import migrate
from tests.plugins.integration.world import World

RELEASE = Path(__file__).parents[3] / "fixtures" / "release-0.1.0"
#: Rows of the fixture's server.
ROWS = 300

_TIMES = """
SELECT c.table_schema, c.table_name, string_agg(format('%1$I = %1$I + %%(by)s', c.column_name), ', ') AS moves
FROM information_schema.columns AS c
JOIN information_schema.tables AS t USING (table_schema, table_name)
WHERE c.table_schema = 'collect' AND t.table_type = 'BASE TABLE' AND c.data_type = 'timestamp with time zone'
GROUP BY c.table_schema, c.table_name
"""


def restore(dsn: str, admin_dsn: str) -> None:
    """Fill an empty database with what the release has written, as if that was a minute ago; migrates nothing.

    Args:
        dsn: The database, as its owner.
        admin_dsn: The same, as a superuser: times are moved without the triggers' log.
    """
    with connect(dsn) as connection:
        connection.execute((RELEASE / "database.sql").read_text(encoding="utf-8"))  # type: ignore[arg-type]
    with connect(admin_dsn) as connection, connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        newest = connection.execute(
            "SELECT now() - interval '1 minute' - max(at) AS by FROM collect.task_log"
        ).fetchone()
        for table in connection.execute(_TIMES).fetchall():  # type: ignore[arg-type]
            connection.execute(f"UPDATE collect.{table['table_name']} SET {table['moves']}", newest)


def upgrade(dsn: str) -> None:
    """Apply today's migrations."""
    with connect(dsn) as connection:
        migrate(connection)


def definitions(connection: Connection) -> dict[str, Source]:
    """What is stored, read as today, by source."""
    rows = connection.execute(
        "SELECT encode(hash, 'hex') AS version, source, format, coalesce(declared, definition) AS definition"
        " FROM collect.source_version"
    ).fetchall()
    return {row["source"]: load_definition(row["version"], row["format"], row["definition"]) for row in rows}


class Upgraded(World):
    """The release's tasks, and today's services."""

    def __init__(self, backends: Any, rules: LaneRules) -> None:
        super().__init__(backends, rules)
        self.done: set[str] = set()
        with connect(backends.postgres_dsn) as connection:
            self.add(*definitions(connection).values())
        for row in self.rows(
            "SELECT DISTINCT run_id FROM collect.task WHERE run_id IS NOT NULL AND status <> 'CLAIMED'"
        ):
            # Their processes ended with the old release.
            self.runs.states[row["run_id"]] = RunState.ENDED

    def tasks(self, source: str) -> list[dict[str, Any]]:
        """Its tasks, oldest first."""
        return self.rows("SELECT * FROM collect.task WHERE source = %s ORDER BY id", source)

    def publish_waiting(self) -> None:
        """The broker has the messages that it had: of tasks that are QUEUED, or RETRYING and due by now."""
        rows = self.rows(
            "UPDATE collect.task SET due_at = CASE WHEN due_at IS NOT NULL THEN now() END"
            " WHERE status IN ('QUEUED', 'RETRYING') RETURNING id, generation, priority, lane"
        )
        items = [
            Publication(
                task_id=row["id"], generation=row["generation"], priority=row["priority"], lane=row["lane"]
            )
            for row in rows
        ]
        with (
            connect(self.backends.postgres_dsn) as connection,
            Publisher(self.backends.amqp_url) as publisher,
        ):
            publish(connection, publisher, self.rules, items)
