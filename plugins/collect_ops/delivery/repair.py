"""The repair pass: what a crash left over is found and brought on (DESIGN guarantees 3 and 8).

It decides by `progress_at` in database time and by the Airflow run's state, never by a missing Redis key. Every repair
is a conditional update that names the attempt; a repair that comes late moves nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from collect_ops.broker.management import depths_with_unacked
from collect_ops.broker.publisher import Publisher
from collect_ops.execution.settle import settle
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.claim import run_conf
from collect_ops.lanes.held import release_held
from collect_ops.lanes.publication import publication_of, publish
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import Runs, RunState, RunsUnavailable, collect_dag_id
from collect_ops.nodes.rules import placement_rules
from collect_ops.storage import Connection, connect, query
from collect_ops.tasks.lifecycle import TaskStatus

log = logging.getLogger(__name__)

#: Seconds without progress after which a task whose run has ended, or was never there, is repaired.
QUIET_S = 30.0
#: Seconds after which a waiting task without a message is published again.
GRACE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What a pass found and did.

    Args:
        republished: Waiting tasks whose message was gone.
        started: Claimed tasks whose run was started again.
        settled: Tasks whose attempt was settled here, lost ones included.
        released: Held tasks that may run now.
        closed_groups: Shard groups of no task under way.
        lanes: Lanes that got work.
    """

    republished: int
    started: int
    settled: int
    released: int
    closed_groups: int
    lanes: frozenset[str]


def run_once(backends: Backends, rules: LaneRules, runs: Runs, *, actor: str) -> Repaired:
    """Find and repair what crashes left over. Safe to run twice and at the same time.

    Args:
        backends: Where the services are.
        rules: Lane rules.
        runs: Airflow's runs.
        actor: Who repairs, for the task log.

    Raises:
        ExceptionGroup: Some tasks could not be repaired; everything else was done.
    """
    lanes: set[str] = set()
    started = settled = 0
    failures: list[Exception] = []
    with connect(backends.postgres_dsn, application_name="collect-ops repair") as connection:
        for row in connection.execute(query("delivery/select_stalled"), {"older_than_s": QUIET_S}).fetchall():
            try:
                did = _repair_task(connection, row, backends, rules, runs, actor, lanes)
            except Exception as error:
                # One task that cannot be repaired must not keep the others waiting; it is raised at the end.
                log.exception("task %s could not be repaired", row["id"])
                failures.append(error)
                continue
            started += did == "started"
            settled += did == "settled"
        publications = [*_overdue(connection, backends, rules, actor), *_released(connection, rules, actor)]
        with Publisher(backends.amqp_url) as publisher:
            publish(connection, publisher, rules, [publication_of(row) for row in publications])
        lanes |= {row["lane"] for row in publications}
        closed = connection.execute(query("delivery/close_orphaned_groups"), {"grace_s": QUIET_S}).fetchall()
        _end_orphaned_runs(closed, runs)
    released = sum(1 for row in publications if row.get("released"))
    done = Repaired(
        republished=len(publications) - released,
        started=started,
        settled=settled,
        released=released,
        closed_groups=len(closed),
        lanes=frozenset(lanes),
    )
    log.info("repair: %s", done)
    if failures:
        raise ExceptionGroup(f"{len(failures)} tasks could not be repaired", failures)
    return done


def _repair_task(
    connection: Connection,
    row: dict[str, Any],
    backends: Backends,
    rules: LaneRules,
    runs: Runs,
    actor: str,
    lanes: set[str],
) -> str | None:
    """Repair one quiet task; returns what was done, None when it was left alone."""
    final = (
        row["shards_total"] is not None and row["open_shards"] == 0 and row["status"] != TaskStatus.CLAIMED
    )
    try:
        state = runs.state(row["dag_id"], row["run_id"])
        if not final and state is RunState.MISSING and row["status"] == TaskStatus.CLAIMED:
            runs.start(row["dag_id"], row["run_id"], _conf(connection, row, backends))
            log.warning("task %s was claimed and had no run: %s started", row["id"], row["run_id"])
            return "started"
    except RunsUnavailable as error:
        log.error("task %s not repaired, Airflow did not answer: %s", row["id"], error)
        return None
    # A run that has not started (its DAG is paused, its pool is full) waits; only what has started can hang. The rule's
    # time is longer than any page may take (a request's time-out and its retries): slow is not taken for hung.
    hung_after_s = placement_rules().dispatch.hung_after_s
    hung = row["run_stalled_s"] > hung_after_s and row["status"] != TaskStatus.CLAIMED
    if not final and state is RunState.ACTIVE and not hung:
        return None
    outcome = settle(
        row["id"], row["attempt"], backends, rules, actor=actor, run_over=hung or state is not RunState.ACTIVE
    )
    if outcome is None:
        return None
    if hung and state is RunState.ACTIVE:
        try:
            runs.end(row["dag_id"], row["run_id"])
        except RunsUnavailable as error:
            log.error("run %s not ended, its groups are closed: %s", row["run_id"], error)
    log.warning(
        "task %s attempt %s made no progress for %.0f s, its run is %s: now %s",
        row["id"], row["attempt"], row["stalled_s"], state, outcome.status,
    )  # fmt: skip
    lanes |= outcome.lanes
    return "settled"


def _end_orphaned_runs(closed: Sequence[Mapping[str, Any]], runs: Runs) -> None:
    """What a run has queued at a node that does not start it holds slots of its lane, though nobody waits for it."""
    unsent = {(collect_dag_id(group["lane"]), group["run_id"]) for group in closed if group["unsent"]}
    for dag_id, run_id in sorted(unsent):
        try:
            if runs.state(dag_id, run_id) is RunState.ACTIVE:
                runs.end(dag_id, run_id)
        except RunsUnavailable as error:
            log.error("run %s of no task not ended: %s", run_id, error)


def _conf(connection: Connection, row: dict[str, Any], backends: Backends) -> dict[str, Any]:
    members = connection.execute(query("delivery/select_run_tasks"), {"run_id": row["run_id"]}).fetchall()
    priority = max((member["priority"] for member in members), default=row["priority"])
    nodes = members[0]["nodes"] if members and backends.node_queues else ()
    sources = {member["source"] for member in members}
    attempts = [(member["id"], member["attempt"]) for member in members]
    return run_conf(attempts, priority, row["lane"], nodes, sources)


def _overdue(
    connection: Connection, backends: Backends, rules: LaneRules, actor: str
) -> list[dict[str, Any]]:
    messages = depths(backends)
    found: list[dict[str, Any]] = []
    for lane, rule in rules.lanes.items():
        values = {
            "lane": lane,
            "ttl_s": rule.message_ttl_s,
            "grace_s": GRACE_S,
            # An unknown depth counts as not empty: then the message's TTL is what we wait for.
            "queue_empty": messages is not None and messages.get(rules.queue(lane)) == 0,
            "strict": rules.strict_priorities,
            "actor": actor,
        }
        found.extend(connection.execute(query("delivery/republish_overdue"), values).fetchall())
    if found:
        log.warning("%d waiting tasks had no message: published as their next generation", len(found))
    return found


def depths(backends: Backends) -> dict[str, int] | None:
    """Messages of each queue, unacked included; None when the management API does not tell."""
    if backends.rabbitmq_api_url is None:
        return None
    vhost = unquote(urlsplit(backends.amqp_url).path.removeprefix("/")) or "/"
    return depths_with_unacked(backends.rabbitmq_api_url, vhost)


def _released(connection: Connection, rules: LaneRules, actor: str) -> list[dict[str, Any]]:
    return [{**row, "released": True} for row in release_held(connection, rules.host, actor=actor)]
