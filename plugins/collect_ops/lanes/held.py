"""Letting go of what was set aside: whoever frees a limit, or finds a host in order again, calls this."""

from __future__ import annotations

from typing import Any

from collect_ops.sources.stored import FORMAT
from collect_ops.storage import Connection, query


def release_held(
    connection: Connection,
    *,
    source: str | None = None,
    host: str | None = None,
    actor: str,
    spared: int | None = None,
) -> list[dict[str, Any]]:
    """Move HELD tasks that may run now to their next generation; returns what to publish.

    Those whose declaration only a newer release can read are left to its processes.

    Args:
        connection: To the database.
        source: Only tasks of this source, and of `host`; all when neither is given.
        host: Only tasks of this connection, beside those of `source`.
        actor: For the task log.
        spared: A task that stays as it is, since it has only just been set aside.
    """
    values = {"source": source, "connection": host, "actor": actor, "format": FORMAT, "spared": spared}
    return connection.execute(query("lanes/release_held"), values).fetchall()
