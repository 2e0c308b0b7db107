"""Hosts as PostgreSQL knows them: circuits of them and of their endpoints, pauses, quotas; shared by all nodes.

Every change of a circuit reads those of its host under the lock of the host's record, lets `circuits` decide, and
writes back what has changed: what two processes see at the same time comes one after the other. A killed process leaves
nothing behind but a half-open circuit, which is tried again when `probe_s` has passed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from collect_ops.lanes.breaker import Breaker, Permit, Phase, Window
from collect_ops.lanes.circuits import (
    SILENT_ENDPOINTS,
    Circuits,
    EndpointCircuit,
    EndpointReport,
    Failure,
    Probe,
    apply_report,
    end_probe,
    grant_permit,
    let_task_through,
)
from collect_ops.lanes.rules import HostRule
from collect_ops.storage import AsyncConnection, Connection, query

log = logging.getLogger(__name__)

_MAX_ERROR_CHARS = 500
#: A block of quota is this share of what is left of it, within these bounds: small blocks near the end.
_BLOCK_SHARE = 20
_MAX_BLOCK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is known of a host and of its endpoints.

    Args:
        connection: The Airflow connection that names it.
        circuits: Its circuits.
        now: The database's time when this was read.
        error: Why it failed last.
        endpoint_errors: Why its endpoints failed last, by source.
        paused_until: Nothing is sent until then; None: it is not paused.
        pause_reason: Why.
    """

    connection: str
    circuits: Circuits = field(default_factory=Circuits)
    now: float = 0.0
    error: str | None = None
    endpoint_errors: Mapping[str, str] = field(default_factory=dict)
    paused_until: float | None = None
    pause_reason: str | None = None

    @property
    def breaker(self) -> Breaker:
        """The host's own."""
        return self.circuits.host

    @property
    def is_paused(self) -> bool:
        """Whether it has asked for patience, or its quota is used up."""
        return self.paused_until is not None and self.paused_until > self.now

    def is_free(self, source: str) -> bool:
        """Whether requests of a source are sent as they come."""
        return not self.is_paused and self.circuits.is_closed(source)

    def is_refused(self, source: str) -> bool:
        """Whether nothing of a source may be sent now, not even a probe."""
        return self.is_paused or self.circuits.is_refused(source, self.now)

    def may_be_tried(self, source: str) -> bool:
        """Whether a task of a source may be let through to try what is not closed."""
        return not self.is_paused and self.circuits.is_due(source, self.now)

    def reason(self, source: str) -> str:
        """Why nothing of a source is sent, and when it goes on; for people."""
        if self.is_paused and self.paused_until is not None:
            until = _clock(self.paused_until)
            return f"host of connection {self.connection} is paused until {until}: {self.pause_reason}"
        if self.circuits.host.phase is not Phase.CLOSED:
            what = f"circuit of the host of connection {self.connection} is open"
            return self._held(what, self.error, self.circuits.host)
        what = f"circuit of source {source} at connection {self.connection} is open"
        return self._held(what, self.endpoint_errors.get(source), self.circuits.endpoint(source).breaker)

    def _held(self, what: str, error: str | None, breaker: Breaker) -> str:
        until = _clock(breaker.until or self.now)
        return f"{what} ({(error or 'no error known')[:200]}), held until {until}, then tried again"


def read_hosts(connection: Connection, names: Iterable[str]) -> dict[str, Host]:
    """The records of some connections; those that have none are in order. One read by primary keys."""
    asked = sorted(set(names))
    if not asked:
        return {}
    rows = connection.execute(query("lanes/select_hosts"), {"connections": asked}).fetchall()
    return _hosts(rows)


def read_host(connection: Connection, name: str) -> Host:
    """The record of one connection."""
    return read_hosts(connection, [name]).get(name, Host(connection=name))


async def read_host_async(connection: AsyncConnection, name: str) -> Host:
    """The same for asyncio."""
    cursor = await connection.execute(query("lanes/select_hosts"), {"connections": [name]})
    return _hosts(await cursor.fetchall()).get(name, Host(connection=name))


def hosts_in_the_way(connection: Connection, names: Iterable[str]) -> dict[str, Host]:
    """Those of some connections to which not every task may be sent as it comes; mostly none."""
    return {
        name: host
        for name, host in read_hosts(connection, names).items()
        if host.is_paused
        or host.breaker.phase is not Phase.CLOSED
        or any(each.breaker.phase is not Phase.CLOSED for each in host.circuits.endpoints.values())
    }


def note_probes(connection: Connection, endpoints: Iterable[tuple[str, str]], rule: HostRule) -> None:
    """A task was let through to each of these; the others wait for what becomes of it.

    Args:
        connection: In the claim's transaction.
        endpoints: Connections, each with a source.
        rule: When to hold, and for how long.
    """
    asked = sorted(endpoints)
    if not asked:
        return
    names = sorted({name for name, _ in asked})
    connection.execute(query("lanes/lock_hosts"), {"connections": names})
    hosts = read_hosts(connection, names)
    for name in names:
        before = after = hosts[name].circuits
        for source in (source for at, source in asked if at == name):
            after = let_task_through(after, source, hosts[name].now, rule)
        for statement, values in _changes(name, before, after):
            connection.execute(query(statement), values)


async def report_outcomes(
    connection: AsyncConnection,
    name: str,
    source: str,
    outcomes: EndpointReport,
    error: str | None,
    rule: HostRule,
) -> Host:
    """Count what became of requests that were sent while nothing was held.

    Args:
        connection: Autocommit.
        name: The connection's id.
        source: Whose requests they were.
        outcomes: What became of them.
        error: The last error, for people.
        rule: When to open.

    Returns:
        The host as it is now.
    """

    def decide(host: Host, active_sources: Collection[str]) -> Circuits:
        return apply_report(host.circuits, source, outcomes, active_sources, host.now, rule)

    return await _change(connection, name, decide, error=error)


async def report_probe(
    connection: AsyncConnection,
    name: str,
    source: str,
    probe: Probe,
    *,
    failure: Failure | None,
    error: str | None,
    rule: HostRule,
) -> Host:
    """A probe has ended: what it tried is in order again, or held for longer.

    Args:
        connection: Autocommit.
        name: The connection's id.
        source: Whose request it was.
        probe: What it was let through to try.
        failure: How it failed; None: it was answered in order.
        error: Why it failed, for people.
        rule: For how long to hold.

    Returns:
        The host as it is now.
    """

    def decide(host: Host, active_sources: Collection[str]) -> Circuits:
        return end_probe(host.circuits, source, probe, failure, active_sources, host.now, rule)

    return await _change(connection, name, decide, error=error)


async def take_permit(
    connection: AsyncConnection, name: str, source: str, rule: HostRule
) -> tuple[Host, Permit, Probe | None]:
    """Whether a request may be sent where not all was in order when last looked at; of a probe, what it tries."""
    decided, probe = Permit.REFUSED, None

    def decide(host: Host, _: Collection[str]) -> Circuits:
        nonlocal decided, probe
        if host.is_paused:
            return host.circuits
        circuits, decided, probe = grant_permit(host.circuits, source, host.now, rule)
        return circuits

    host = await _change(connection, name, decide)
    return host, decided, probe


def forget_quiet_endpoints(connection: Connection, *, quiet_s: float = 86_400.0) -> int:
    """Forget endpoints of which nothing was heard for a day; returns how many. Safe to run twice at once."""
    return connection.execute(query("lanes/delete_quiet_endpoints"), {"quiet_s": quiet_s}).rowcount


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
    connection: AsyncConnection,
    name: str,
    decide: Callable[[Host, Collection[str]], Circuits],
    *,
    error: str | None = None,
) -> Host:
    async with connection.transaction():
        await connection.execute(query("lanes/lock_hosts"), {"connections": [name]})
        before = await read_host_async(connection, name)
        after = decide(before, await _active_sources(connection, before))
        for statement, values in _changes(name, before.circuits, after, error):
            await connection.execute(query(statement), values)
    _log_change(name, before.circuits, after, error)
    return replace(
        before,
        circuits=after,
        error=_error_of(after.host, before.circuits.host, error) or before.error,
        endpoint_errors={
            source: text
            for source, each in after.endpoints.items()
            if (
                text := _error_of(each.breaker, before.circuits.endpoint(source).breaker, error)
                or before.endpoint_errors.get(source)
            )
        },
    )


async def _active_sources(connection: AsyncConnection, host: Host) -> Collection[str]:
    """The sources that ask a host now; not read while so few of its circuits are open that it decides nothing."""
    held = sum(each.breaker.phase is not Phase.CLOSED for each in host.circuits.endpoints.values())
    if held + 1 < SILENT_ENDPOINTS:
        return ()
    cursor = await connection.execute(query("lanes/select_active_sources"), {"connection": host.connection})
    return {row["source"] for row in await cursor.fetchall()}


def _changes(
    name: str, before: Circuits, after: Circuits, error: str | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """What is to be written, as statements with their values."""
    changes: list[tuple[str, dict[str, Any]]] = []
    if (after.host, after.answered_at) != (before.host, before.answered_at):
        values = {
            **_row(after.host),
            "connection": name,
            "answered_at": after.answered_at,
            "error": _error_of(after.host, before.host, error),
        }
        changes.append(("lanes/save_host", values))
    for source, endpoint in after.endpoints.items():
        if endpoint != before.endpoints.get(source):
            values = {
                **_row(endpoint.breaker),
                "connection": name,
                "source": source,
                "unanswered_at": endpoint.unanswered_at,
                "error": _error_of(endpoint.breaker, before.endpoint(source).breaker, error),
            }
            changes.append(("lanes/save_endpoint", values))
    return changes


def _error_of(after: Breaker, before: Breaker, error: str | None) -> str | None:
    """An error, as far as it is of this circuit: it has made it worse."""
    worse = after.in_a_row > before.in_a_row or after.holds > before.holds
    worse |= after.window.errors > 0 and after.window != before.window
    return error[:_MAX_ERROR_CHARS] if error and worse else None


def _log_change(name: str, before: Circuits, after: Circuits, error: str | None) -> None:
    why = f" ({error[:200]})" if error else ""
    if after.host.phase is not before.host.phase:
        log.warning("host of connection %s: %s, was %s%s", name, after.host.phase, before.host.phase, why)
    for source, endpoint in after.endpoints.items():
        phase, was = endpoint.breaker.phase, before.endpoint(source).breaker.phase
        if phase is not was:
            log.warning("source %s at connection %s: %s, was %s%s", source, name, phase, was, why)


def _hosts(rows: Iterable[Mapping[str, Any]]) -> dict[str, Host]:
    """Hosts by connection, of rows of `select_hosts`; a host without a record of its own is in order."""
    own: dict[str, Mapping[str, Any]] = {}
    endpoints: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["source"] is None:
            own[row["connection"]] = row
        else:
            endpoints.setdefault(row["connection"], []).append(row)
    return {
        name: _host(name, own.get(name), endpoints.get(name, [])) for name in own.keys() | endpoints.keys()
    }


def _host(name: str, own: Mapping[str, Any] | None, endpoints: list[Mapping[str, Any]]) -> Host:
    circuits = Circuits(
        host=Breaker() if own is None else _breaker(own),
        answered_at=None if own is None else own["answered_at"],
        endpoints={
            row["source"]: EndpointCircuit(breaker=_breaker(row), unanswered_at=row["unanswered_at"])
            for row in endpoints
        },
    )
    errors = {row["source"]: row["last_error"] for row in endpoints if row["last_error"] is not None}
    now = endpoints[0]["now"] if own is None else own["now"]
    if own is None:
        return Host(connection=name, circuits=circuits, now=now, endpoint_errors=errors)
    return Host(
        connection=name,
        circuits=circuits,
        now=now,
        error=own["last_error"],
        endpoint_errors=errors,
        paused_until=own["paused_until"],
        pause_reason=own["pause_reason"],
    )


def _breaker(row: Mapping[str, Any]) -> Breaker:
    held = row["held_until"] is not None
    return Breaker(
        phase=Phase.CLOSED if not held else Phase.HALF_OPEN if row["probing"] else Phase.OPEN,
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


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
