"""Ageing: what waits long becomes more urgent, so that nothing starves."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from collect_ops.delivery.priorities import aged, tell
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.priority import priority_rules
from collect_ops.lanes.rules import LaneRules
from collect_ops.storage import connect, query

log = logging.getLogger(__name__)

#: Tasks looked at in one transaction, and in a pass: the rest waits for the next one.
BATCH, MOST = 5000, 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Aged:
    """What a pass did: tasks raised, and the lanes that got work."""

    raised: int
    lanes: frozenset[str]


def run_once(backends: Backends, rules: LaneRules) -> Aged:
    """Evaluate the priorities of what has waited long anew. Safe to run twice and at once.

    Args:
        backends: Where the services are.
        rules: Lane rules.
    """
    raised = 0
    lanes: set[str] = set()
    with connect(backends.postgres_dsn, application_name="collect-ops ageing") as connection:
        row = connection.execute(query("delivery/select_least_ageing")).fetchone()
        own = row["least_s"] if row else None
        first_after_s = priority_rules().ageing.first_after_s
        older_than_s = first_after_s if own is None else min(first_after_s, own)
        for _ in range(MOST // BATCH):
            changed = aged(connection, rules, older_than_s=older_than_s, limit=BATCH)
            raised += len(changed)
            lanes |= {row["lane"] for row in tell(connection, changed, backends, rules)}
            if len(changed) < BATCH:
                break
    if raised:
        log.info("ageing: %d tasks raised", raised)
    return Aged(raised=raised, lanes=frozenset(lanes))
