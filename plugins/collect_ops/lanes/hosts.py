"""Hosts that do not answer: what waits for them is held, and does not hold up what stands behind it.

Several connection failures in a row hold a host for a time that grows. When it has passed, one task is let through: if
it is answered, all go on; if not, the host is held for twice as long.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime

from collect_ops.lanes.policy import DownHost
from collect_ops.lanes.rules import HostRule
from collect_ops.storage import Connection, query

log = logging.getLogger(__name__)


def down_hosts(connection: Connection, names: Iterable[str]) -> dict[str, DownHost]:
    """Those of some connections whose host is held; mostly none. One read by primary key."""
    asked = sorted(set(names))
    if not asked:
        return {}
    rows = connection.execute(query("lanes/select_down_hosts"), {"connections": asked}).fetchall()
    return {
        row["connection"]: DownHost(
            connection=row["connection"],
            reason=_reason(row["connection"], row["failures"], row["held_until"]),
            may_probe=row["left_s"] <= 0,
        )
        for row in rows
    }


def note_probes(connection: Connection, names: Iterable[str], rule: HostRule) -> None:
    """A task was let through to these hosts; the others wait for what becomes of it."""
    values = {"connections": sorted(names), **_durations(rule)}
    if values["connections"]:
        connection.execute(query("lanes/take_probes"), values)


def note_failures(connection: Connection, name: str, failures: int, error: str, rule: HostRule) -> bool:
    """Connection failures of a host; returns whether it is held now.

    Args:
        connection: Autocommit.
        name: The connection's id.
        failures: How many, one or more.
        error: The last one, for people.
        rule: When to hold, and for how long.
    """
    row = connection.execute(
        query("lanes/note_host_down"),
        {
            "connection": name,
            "failures": failures,
            "error": error[:500],
            "limit": rule.failures,
            **_durations(rule),
        },
    ).fetchone()
    held = bool(row and row["held"])
    if held:
        log.warning("host of connection %s does not answer, its tasks are held: %s", name, error[:200])
    return held


def note_answer(connection: Connection, name: str) -> bool:
    """A host has answered; returns whether something was held for it, which may go on now."""
    row = connection.execute(query("lanes/note_host_up"), {"connection": name}).fetchone()
    return bool(row and row["was_held"])


def _durations(rule: HostRule) -> dict[str, float]:
    return {"hold_s": rule.hold_s, "factor": rule.factor, "max_hold_s": rule.max_hold_s}


def _reason(name: str, failures: int, until: datetime) -> str:
    return (
        f"host of connection {name} did not answer {failures} times in a row, held until {until:%H:%M:%S} UTC"
    )
