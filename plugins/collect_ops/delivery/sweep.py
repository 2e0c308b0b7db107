"""The sweep: catches what wake-ups, publishers and processes lost; when something is due, and every two minutes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from collect_ops.admission.inbox import wake_inbox
from collect_ops.broker.publisher import Publisher
from collect_ops.broker.topology import ensure
from collect_ops.coordination.wakeups import Wakeups
from collect_ops.delivery import (
    ageing,
    dead_drain,
    dispatch,
    ended_runs,
    merging,
    outbox,
    redrive,
    repair,
    run_notes,
    table_events,
)
from collect_ops.delivery.dead_drain import Drained
from collect_ops.delivery.dispatch import Dispatched
from collect_ops.delivery.ended_runs import Removed
from collect_ops.delivery.outbox import OutboxRun
from collect_ops.delivery.repair import Repaired
from collect_ops.delivery.run_notes import Delivered
from collect_ops.delivery.table_events import Sent
from collect_ops.kernel.backends import Backends
from collect_ops.landing import asides, memory
from collect_ops.lanes.hosts import forget_quiet_endpoints
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import Runs
from collect_ops.lanes.waking import wake_waiting
from collect_ops.nodes.rules import placement_rules
from collect_ops.orchestrator.port import Reports
from collect_ops.storage import connect

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What the passes did, which lanes were woken, and whether the inbox was."""

    outbox: OutboxRun
    dispatched: Dispatched
    repaired: Repaired
    merged: int
    aged: int
    dead_letters: Drained
    woken: tuple[str, ...]
    inbox_woken: bool
    forgotten_pages: int = 0
    forgotten_endpoints: int = 0
    run_notes: Delivered = field(default_factory=Delivered)
    table_events: Sent = field(default_factory=Sent)
    dropped_asides: int = 0
    ended_runs: Removed = field(default_factory=Removed)

    def as_counts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "outbox": {**asdict(self.outbox), "lanes": sorted(self.outbox.lanes)},
            "dispatch": self.dispatched.as_counts(),
            "repair": {**asdict(self.repaired), "lanes": sorted(self.repaired.lanes)},
            "merged": self.merged,
            "aged": self.aged,
            "dead_letters": self.dead_letters.as_counts(),
            "woken": list(self.woken),
            "inbox_woken": self.inbox_woken,
            "forgotten_pages": self.forgotten_pages,
            "forgotten_endpoints": self.forgotten_endpoints,
            "run_notes": self.run_notes.as_counts(),
            "table_events": self.table_events.as_counts(),
            "dropped_asides": self.dropped_asides,
            "ended_runs": self.ended_runs.as_counts(),
        }


def sweep(
    backends: Backends,
    rules: LaneRules,
    runs: Runs,
    *,
    actor: str,
    open_reports: Callable[[], Reports] | None = None,
    logs: Path | None = None,
) -> Swept:
    """Every pass over what wake-ups, publishers and processes lost, and over what falls due by time.

    Args:
        backends: Where the services are.
        rules: Lane rules.
        runs: Airflow's runs.
        actor: Who sweeps, for the task log.
        open_reports: Opens the way to report to Airflow; None leaves run notes, table events and ended runs where they
            are.
        logs: Airflow's folder of logs on this machine, from which those of removed runs go; None leaves logs alone.

    Raises:
        ExceptionGroup: Some passes failed; the others were made, since each mends something else.
    """
    Wakeups(backends.redis_url).clear(dispatch.WAKE_NAME)
    failures: list[Exception] = []

    def attempt(act: Callable[[], T]) -> T | None:
        try:
            return act()
        except Exception as error:  # noqa: BLE001 - raised below, when the other passes are done
            log.error("a pass of the sweep failed: %s", error)
            failures.append(error)
            return None

    attempt(lambda: ensure(backends.amqp_url, rules.topology()))
    published = attempt(lambda: _publish(backends, rules))
    dispatched = attempt(lambda: dispatch.run_once(backends, rules, placement_rules(), runs, actor=actor))
    repaired = attempt(lambda: repair.run_once(backends, rules, runs, actor=actor))
    joined = attempt(lambda: merging.run_once(backends, rules, actor=actor))
    older = attempt(lambda: ageing.run_once(backends, rules))
    drained = attempt(lambda: dead_drain.run_once(backends, rules))
    attempt(lambda: redrive.continue_all(backends, rules, actor=actor))
    woken = attempt(lambda: wake_waiting(rules.lanes, backends, rules, runs))
    noted = sent = removed = None
    if open_reports is not None:
        noted = attempt(lambda: run_notes.run_once(backends, open_reports))
        sent = attempt(lambda: table_events.run_once(backends, open_reports))
        removed = attempt(lambda: ended_runs.run_once(backends, rules, open_reports, logs))
    forgotten = attempt(lambda: memory.prune(backends))
    forgotten_endpoints = attempt(lambda: _forget_endpoints(backends))
    dropped_asides = attempt(lambda: asides.run_once(backends))
    inbox_woken = attempt(lambda: wake_inbox(backends, rules, runs))
    if (
        failures
        or published is None
        or dispatched is None
        or repaired is None
        or drained is None
        or woken is None
    ):
        raise ExceptionGroup(f"{len(failures)} passes of the sweep failed", failures)
    return Swept(
        outbox=published,
        dispatched=dispatched,
        repaired=repaired,
        merged=joined.merged if joined else 0,
        aged=older.raised if older else 0,
        dead_letters=drained,
        woken=tuple(woken),
        inbox_woken=bool(inbox_woken),
        forgotten_pages=forgotten or 0,
        forgotten_endpoints=forgotten_endpoints or 0,
        run_notes=noted or Delivered(),
        table_events=sent or Sent(),
        dropped_asides=dropped_asides or 0,
        ended_runs=removed or Removed(),
    )


def _forget_endpoints(backends: Backends) -> int:
    with connect(backends.postgres_dsn, application_name="collect-ops prune") as connection:
        return forget_quiet_endpoints(connection)


def _publish(backends: Backends, rules: LaneRules) -> OutboxRun:
    with (
        connect(backends.postgres_dsn, application_name="collect-ops outbox") as connection,
        Publisher(backends.amqp_url) as publisher,
    ):
        return outbox.run_once(connection, publisher, rules)
