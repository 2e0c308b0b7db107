"""The merge pass: joins similar tasks that wait and did not see each other when they were admitted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collect_ops.admission.merging import merge_waiting
from collect_ops.broker.publisher import Publisher
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.publication import publication_of, publish
from collect_ops.lanes.rules import LaneRules
from collect_ops.sources.model import Source
from collect_ops.sources.stored import FORMAT, NewerDefinition, UnreadableDefinition, load_definition
from collect_ops.storage import connect, query
from collect_ops.tasks.lifecycle import TaskStatus

log = logging.getLogger(__name__)

#: Seconds between two passes, with something to spare: what waited within its window at one is still looked at.
LATE_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePass:
    """What a pass did: tasks merged into others, and the lanes of those that stay."""

    merged: int
    lanes: frozenset[str]


def run_once(backends: Backends, rules: LaneRules, *, actor: str) -> MergePass:
    """Join what two admissions at the same time have left apart. Safe to run twice and at once.

    Args:
        backends: Where the services are.
        rules: Lane rules.
        actor: For the task log.
    """
    with connect(backends.postgres_dsn, application_name="collect-ops merge") as connection:
        rows = connection.execute(query("delivery/select_mergeable"), {"format": FORMAT}).fetchall()
        if not rows:
            return MergePass(merged=0, lanes=frozenset())
        sources = _sources(rows)
        with connection.transaction():
            done = merge_waiting(connection, rules, sources, actor=actor, late_s=LATE_S)
        waiting = [row for row in done.survivors if row["status"] != TaskStatus.HELD]
        with Publisher(backends.amqp_url) as publisher:
            publish(connection, publisher, rules, [publication_of(row) for row in waiting])
    log.info("merge: %d tasks merged into %d others", len(done.into), len(done.survivors))
    return MergePass(merged=len(done.into), lanes=frozenset(row["lane"] for row in waiting))


def _sources(rows: Sequence[Mapping[str, Any]]) -> dict[bytes, Source]:
    """By merge key what their tasks were admitted with; tasks of one that is damaged are not merged."""
    sources: dict[bytes, Source] = {}
    for row in rows:
        try:
            source = load_definition(row["version"], row["format"], row["definition"])
        except (NewerDefinition, UnreadableDefinition) as error:
            log.warning("tasks of merge key %s are not merged: %s", bytes(row["merge_key"]).hex(), error)
        else:
            sources[bytes(row["merge_key"])] = source
    return sources
