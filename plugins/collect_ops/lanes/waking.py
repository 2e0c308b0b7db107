"""Waking the lanes that can use it: those with both a message and room."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from collect_ops.broker.connection import BrokerRefused, BrokerUnavailable
from collect_ops.broker.consumer import Consumer, QueueMissing
from collect_ops.coordination.wakeups import Wakeups
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.capacity import room
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import Runs, wake
from collect_ops.storage import Connection, DatabaseUnavailable, connect, errors

log = logging.getLogger(__name__)


def wake_waiting(lanes: Iterable[str], backends: Backends, rules: LaneRules, runs: Runs) -> list[str]:
    """Wake those of some lanes that have both a message and room; returns which were woken.

    A lane run costs about a second of a core, so none is started for nothing. What goes wrong here is logged and left
    to the queue's watcher and the sweep: the work is in the broker.
    """
    asked = sorted(set(lanes))
    if not asked:
        return []
    try:
        with Consumer(backends.amqp_url) as consumer:
            waiting = [lane for lane in asked if consumer.depth(rules.queue(lane)) > 0]
        if not waiting:
            return []
        with connect(backends.postgres_dsn, application_name="collect-ops wake") as connection:
            ready = with_room(connection, waiting, rules, backends)
    except (
        BrokerUnavailable,
        BrokerRefused,
        QueueMissing,
        DatabaseUnavailable,
        errors.OperationalError,
    ) as error:
        log.warning("lanes %s not woken, the sweep will: %s", asked, error)
        return []
    return wake(ready, runs, Wakeups(backends.redis_url))


def with_room(
    connection: Connection, lanes: Iterable[str], rules: LaneRules, backends: Backends
) -> list[str]:
    """Those of some lanes that may start a shard group now."""
    return [lane for lane in sorted(set(lanes)) if room(connection, lane, rules, backends) > 0]
