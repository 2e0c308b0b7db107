"""Letting go of what was set aside: whoever frees a limit, or closes a circuit, calls this."""

from __future__ import annotations

import logging
from typing import Any

from collect_ops.broker.connection import BrokerUnavailable
from collect_ops.broker.publisher import Publisher
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.publication import publication_of, publish
from collect_ops.lanes.rules import HostRule, LaneRules
from collect_ops.sources.stored import FORMAT
from collect_ops.storage import Connection, DatabaseUnavailable, connect, errors, query

log = logging.getLogger(__name__)

#: Tasks of a source that are released at once: each that ends releases as many again, so that a circuit which opens
#: anew does not find thousands in a queue that are all to be held again.
AT_ONCE = 100


def release_held(
    connection: Connection,
    rule: HostRule,
    *,
    source: str | None = None,
    host: str | None = None,
    actor: str,
    spared: int | None = None,
) -> list[dict[str, Any]]:
    """Move HELD tasks that may run now to their next generation; returns what to publish, in this order.

    The highest priority comes first, of equal ones the oldest. Those whose declaration only a newer release can read
    are left to its processes.

    Args:
        connection: To the database.
        rule: How patient endpoints are.
        source: Only tasks of this source, and of `host`; all when neither is given.
        host: Only tasks of this connection, beside those of `source`.
        actor: For the task log.
        spared: A task that stays as it is, since it has only just been set aside.
    """
    if not (connection.execute(query("lanes/has_held")).fetchone() or {}).get("held"):
        return []
    values = {
        "source": source,
        "connection": host,
        "actor": actor,
        "format": FORMAT,
        "spared": spared,
        "patience_s": rule.patience_s,
        "at_once": AT_ONCE,
    }
    rows = connection.execute(query("lanes/release_held"), values).fetchall()
    return sorted(rows, key=lambda row: (-row["priority"], row["id"]))


def let_go(backends: Backends, rules: LaneRules, source: str, host: str, *, actor: str) -> None:
    """Publish what a circuit held that has just been closed; without the services it needs, the sweep will.

    Args:
        backends: Where the services are.
        rules: Lane rules.
        source: Whose request has closed it.
        host: Of this connection.
        actor: For the task log.
    """
    try:
        with connect(backends.postgres_dsn, application_name="collect-ops release") as connection:
            rows = release_held(connection, rules.host, source=source, host=host, actor=actor)
            if not rows:
                return
            with Publisher(backends.amqp_url) as publisher:
                publish(connection, publisher, rules, [publication_of(row) for row in rows])
    except (BrokerUnavailable, DatabaseUnavailable, errors.OperationalError, errors.InterfaceError) as error:
        log.warning("what waited for connection %s is left to the sweep: %s", host, error)
        return
    log.info("connection %s answers again: %d tasks of it go on", host, len(rows))
