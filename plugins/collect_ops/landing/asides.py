"""Tables aside that nobody goes on from: dropped by a chore, and with the shards of a DEAD task by retention."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from collect_ops.kernel.backends import Backends
from collect_ops.landing.layout import ASIDE_SCHEMA
from collect_ops.storage import Connection, connect, errors, query, sql

log = logging.getLogger(__name__)

#: How long a DROP waits for whoever reads the table; what it waits for is tried again by the next run.
_LOCK_TIMEOUT: Final = "2s"


def run_once(backends: Backends) -> int:
    """Drop what is left aside of tasks that have ended; returns how many tables. Safe to run twice at once."""
    with connect(backends.postgres_dsn, application_name="collect-ops asides") as connection:
        return drop_ended_asides(connection)


def drop_ended_asides(connection: Connection, task_ids: Sequence[int] | None = None) -> int:
    """Drop the tables aside of tasks that are CANCELLED, COMPLETED, PARTIAL or MERGED; returns how many.

    Never those of a DEAD task: a redrive goes on from them. A table that somebody reads is left for the next run.

    Args:
        connection: In no transaction: each table has one of its own.
        task_ids: Of these tasks; None for all.
    """
    named = {"task_ids": None if task_ids is None else list(task_ids)}
    dropped = 0
    for row in connection.execute(query("landing/select_ended_asides"), named).fetchall():
        try:
            dropped += _drop_ended(connection, row["name"], row["task_id"])
        except errors.LockNotAvailable:
            log.warning("landing_aside.%s is in use and stays until the next sweep", row["name"])
    if dropped:
        log.info("dropped %d tables aside of tasks that have ended", dropped)
    return dropped


def drop_asides_of(connection: Connection, task_ids: Sequence[int]) -> int:
    """Drop the tables aside of tasks, whatever their status; returns how many.

    For retention: a DEAD task whose shards are deleted goes on from nothing.

    Args:
        connection: Its transaction holds the tasks' locks and deletes their shards, or the tasks themselves.
        task_ids: The tasks.

    Raises:
        psycopg.errors.LockNotAvailable: Somebody reads one of the tables, and the transaction's lock_timeout is over.
    """
    rows = connection.execute(query("landing/select_asides_of"), {"task_ids": list(task_ids)}).fetchall()
    for row in rows:
        _drop(connection, row["name"])
    return len(rows)


def _drop_ended(connection: Connection, name: str, task_id: int) -> int:
    with connection.transaction():
        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_TIMEOUT)))
        if connection.execute(query("landing/lock_ended"), {"task_id": task_id}).fetchone() is None:
            return 0
        _drop(connection, name)
    return 1


def _drop(connection: Connection, name: str) -> None:
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(ASIDE_SCHEMA, name)))
