"""Hosts as PostgreSQL knows them: their breakers, pauses and quotas. One record a connection, shared by all nodes.

Every change of a breaker reads it under its row's lock, lets `breaker` decide, and writes it back: what two processes
see at the same time comes one after the other. A killed process leaves nothing behind but a half-open breaker, which is
tried again when `probe_s` has passed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from collect_ops.lanes.breaker import (
    Breaker,
    Outcomes,
    Permit,
    Phase,
    Window,
    let_through,
    permit,
    probe_ended,
    report,
)
from collect_ops.lanes.policy import DownHost
from collect_ops.lanes.rules import HostRule
from collect_ops.storage import AsyncConnection, Connection, query

log = logging.getLogger(__name__)

_MAX_ERROR_CHARS = 500
#: A block of quota is this share of what is left of it, within these bounds: small blocks near the end.
_BLOCK_SHARE = 20
_MAX_BLOCK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is known of a host.

    Args:
        connection: The Airflow connection that names it.
        breaker: Its breaker.
        now: The database's time when this was read.
        error: Why it failed last.
        paused_until: Nothing is sent until then; None: it is not paused.
        pause_reason: Why.
    """

    connection: str
    breaker: Breaker = field(default_factory=Breaker)
    now: float = 0.0
    error: str | None = None
    paused_until: float | None = None
    pause_reason: str | None = None

    @property
    def paused(self) -> bool:
        """Whether it has asked for patience, or its quota is used up."""
        return self.paused_until is not None and self.paused_until > self.now

    @property
    def refused(self) -> bool:
        """Whether nothing may be sent to it now, not even a probe."""
        return self.paused or (self.breaker.phase is Phase.OPEN and not self.breaker.due(self.now))

    @property
    def reason(self) -> str:
        """Why nothing is sent, and when it goes on; for people."""
        if self.paused and self.paused_until is not None:
            until = _clock(self.paused_until)
            return f"host of connection {self.connection} is paused until {until}: {self.pause_reason}"
        held_until = _clock(self.breaker.until or self.now)
        return (
            f"host of connection {self.connection} is out of order ({(self.error or 'no error known')[:200]}), "
            f"held until {held_until}, then tried again"
        )


def read_hosts(connection: Connection, names: Iterable[str]) -> dict[str, Host]:
    """The records of some connections; those that have none are in order. One read by primary key."""
    asked = sorted(set(names))
    if not asked:
        return {}
    rows = connection.execute(query("lanes/select_hosts"), {"connections": asked}).fetchall()
    return {row["connection"]: _host(row) for row in rows}


def read_host(connection: Connection, name: str) -> Host:
    """The record of one connection."""
    return read_hosts(connection, [name]).get(name, Host(connection=name))


async def read_host_async(connection: AsyncConnection, name: str) -> Host:
    """The same for asyncio."""
    cursor = await connection.execute(query("lanes/select_hosts"), {"connections": [name]})
    row = await cursor.fetchone()
    return Host(connection=name) if row is None else _host(row)


def down_hosts(connection: Connection, names: Iterable[str]) -> dict[str, DownHost]:
    """Those of some connections to which tasks may not be sent as they come; mostly none."""
    return {
        name: DownHost(
            connection=name, reason=host.reason, may_probe=not host.paused and host.breaker.due(host.now)
        )
        for name, host in read_hosts(connection, names).items()
        if host.paused or host.breaker.phase is not Phase.CLOSED
    }


def note_probes(connection: Connection, names: Iterable[str], rule: HostRule) -> None:
    """A task was let through to each of these hosts; the others wait for what becomes of it.

    Args:
        connection: In the claim's transaction.
        names: Of connections.
        rule: When to hold, and for how long.
    """
    asked = sorted(names)
    if not asked:
        return
    for row in connection.execute(query("lanes/lock_hosts"), {"connections": asked}).fetchall():
        host = _host(row)
        connection.execute(
            query("lanes/save_host"), _saved(host.connection, let_through(host.breaker, host.now, rule))
        )


async def report_outcomes(
    connection: AsyncConnection, name: str, outcomes: Outcomes, error: str | None, rule: HostRule
) -> Host:
    """Count what became of requests that were sent while the host was in order.

    Args:
        connection: Autocommit.
        name: The connection's id.
        outcomes: Of the requests.
        error: The last error, for people.
        rule: When to open.

    Returns:
        The host as it is now.
    """
    return await _change(
        connection, name, lambda host: report(host.breaker, outcomes, host.now, rule), error=error
    )


async def report_probe(
    connection: AsyncConnection, name: str, *, answered: bool, holds: int, error: str | None, rule: HostRule
) -> Host:
    """A probe has ended: the host is in order again, or held for longer.

    Args:
        connection: Autocommit.
        name: The connection's id.
        answered: Whether it was answered.
        holds: Of the half-open phase that it was let through in.
        error: Why it failed, for people.
        rule: For how long to hold.

    Returns:
        The host as it is now.
    """
    return await _change(
        connection,
        name,
        lambda host: probe_ended(host.breaker, answered=answered, holds=holds, now=host.now, rule=rule),
        error=error,
    )


async def take_permit(connection: AsyncConnection, name: str, rule: HostRule) -> tuple[Host, Permit]:
    """Whether a request may be sent to a host that was not in order when it was last looked at."""
    decided = Permit.REFUSED

    def decide(host: Host) -> Breaker:
        nonlocal decided
        breaker, decided = permit(host.breaker, host.now, rule)
        return breaker

    host = await _change(connection, name, decide)
    return host, Permit.REFUSED if host.paused else decided


async def pause(connection: AsyncConnection, name: str, reason: str, seconds: float | None) -> None:
    """Nothing is sent to a host for so long: its tasks are held, and go on by themselves.

    Args:
        connection: Autocommit.
        name: The connection's id.
        reason: Why, for people.
        seconds: For how long; None until the UTC day ends.
    """
    values = {"connection": name, "reason": reason[:_MAX_ERROR_CHARS], "seconds": seconds}
    await connection.execute(query("lanes/pause_host"), values)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaBlock:
    """Requests that were given out of a host's quota.

    Args:
        granted: How many; 0: it is used up.
        day: Of which day.
        quota: Of the day.
        left_s: Seconds until the day ends, when it was asked for.
    """

    granted: int
    day: Any
    quota: int
    left_s: float


def quota_block(quota: int, granted: int, wanted: int) -> int:
    """How many requests are given out at once: few when few are left, never more than are left. Pure."""
    left = max(0, quota - granted)
    return min(left, max(wanted, min(_MAX_BLOCK, left // _BLOCK_SHARE)))


async def take_quota(
    connection: AsyncConnection, name: str, quota: int | None, wanted: int
) -> QuotaBlock | None:
    """Take a block of a host's quota of today.

    Args:
        connection: Autocommit.
        name: The connection's id.
        quota: As the source declares it; None: as another source of the connection has declared it.
        wanted: Requests that wait for it.

    Returns:
        What was given; None when nobody has declared a quota.
    """
    key = {"connection": name}
    async with connection.transaction():
        if quota is not None:
            await connection.execute(query("lanes/insert_quota"), {**key, "quota": quota})
        row = await (await connection.execute(query("lanes/lock_quota"), key)).fetchone()
        if row is None:
            return None
        day, limit = row["today"], quota if quota is not None else row["quota"]
        used = row["granted"] if row["day"] == day else 0
        block = quota_block(limit, used, wanted)
        await connection.execute(
            query("lanes/save_quota"), {**key, "day": day, "quota": limit, "granted": used + block}
        )
    return QuotaBlock(granted=block, day=day, quota=limit, left_s=row["left_s"])


async def return_quota(connection: AsyncConnection, name: str, block: QuotaBlock, unused: int) -> None:
    """Give back what is left of a block."""
    values = {"connection": name, "day": block.day, "unused": unused}
    await connection.execute(query("lanes/return_quota"), values)


async def _change(
    connection: AsyncConnection, name: str, decide: Callable[[Host], Breaker], *, error: str | None = None
) -> Host:
    async with connection.transaction():
        row = await (await connection.execute(query("lanes/lock_hosts"), {"connections": [name]})).fetchone()
        if row is None:
            raise LookupError(f"lanes/lock_hosts returned no row for {name}")
        before = _host(row)
        after = decide(before)
        if after != before.breaker:
            await connection.execute(query("lanes/save_host"), _saved(name, after, error))
    if after.phase is not before.breaker.phase:
        log.warning(
            "host of connection %s: %s, was %s%s",
            name,
            after.phase,
            before.breaker.phase,
            f" ({error[:200]})" if error else "",
        )
    return _host({**row, **_row(after), "last_error": error or row["last_error"]})


def _host(row: Mapping[str, Any]) -> Host:
    held = row["held_until"] is not None
    phase = Phase.CLOSED if not held else Phase.HALF_OPEN if row["probing"] else Phase.OPEN
    return Host(
        connection=row["connection"],
        now=row["now"],
        error=row["last_error"],
        paused_until=row["paused_until"],
        pause_reason=row["pause_reason"],
        breaker=Breaker(
            phase=phase,
            in_a_row=row["failures"],
            holds=row["holds"],
            until=row["held_until"],
            probes=row["probes"],
            since=row["since"],
            window=Window(
                since=row["window_from"],
                requests=row["requests"],
                errors=row["errors"],
                requests_before=row["requests_before"],
                errors_before=row["errors_before"],
            ),
        ),
    )


def _row(breaker: Breaker) -> dict[str, Any]:
    return {
        "failures": breaker.in_a_row,
        "holds": breaker.holds,
        "probing": breaker.phase is Phase.HALF_OPEN,
        "probes": breaker.probes,
        "held_until": breaker.until,
        "since": breaker.since,
        "window_from": breaker.window.since,
        "requests": breaker.window.requests,
        "errors": breaker.window.errors,
        "requests_before": breaker.window.requests_before,
        "errors_before": breaker.window.errors_before,
    }


def _saved(name: str, breaker: Breaker, error: str | None = None) -> dict[str, Any]:
    return {**_row(breaker), "connection": name, "error": error[:_MAX_ERROR_CHARS] if error else None}


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
