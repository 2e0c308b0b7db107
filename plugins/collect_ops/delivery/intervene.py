"""What people do to tasks: cancelling (DESIGN guarantee 9); priorities are in `priorities`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from collect_ops.broker.publisher import Publisher
from collect_ops.delivery.cancelling import cancel_callers
from collect_ops.kernel.backends import Backends
from collect_ops.landing.asides import drop_ended_asides
from collect_ops.lanes.held import release_held
from collect_ops.lanes.publication import publication_of, publish
from collect_ops.lanes.rules import LaneRules
from collect_ops.storage import connect, query

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervened:
    """What an intervention did.

    Args:
        moved: Tasks that were changed.
        left: Tasks that stay as they are: unknown, ended, or (for a priority) under way.
        lanes: Lanes that got work or room.
        withdrawn: Of the moved ones those whose work goes on for tasks that were merged into them.
        landed: Rows that cancelled tasks had landed, by task; they stay.
    """

    moved: tuple[int, ...]
    left: tuple[int, ...]
    lanes: frozenset[str]
    withdrawn: tuple[int, ...] = ()
    landed: Mapping[int, int] = field(default_factory=dict)


def cancel(
    task_ids: Sequence[int], backends: Backends, rules: LaneRules, *, actor: str, reason: str
) -> Intervened:
    """Cancel tasks: nothing of them lands after this returns; what had landed stays.

    Of merged work only the caller who cancels is taken out (`withdrawn`, when the work is its own and goes on for
    others); the work stops when no caller is left.

    Args:
        task_ids: The tasks.
        backends: Where the services are.
        rules: Lane rules.
        actor: Who cancels, for the task log.
        reason: Why, for people.
    """
    with connect(backends.postgres_dsn, application_name="collect-ops cancel") as connection:
        with connection.transaction():
            done = cancel_callers(connection, task_ids, actor=actor, reason=reason)
        rows = done.rows
        named_rows = {"task_ids": [row["id"] for row in rows]}
        landed = connection.execute(query("delivery/sum_landed_rows"), named_rows).fetchall()
        drop_ended_asides(connection, named_rows["task_ids"])
        released = []
        for source in sorted({row["source"] for row in rows}):
            released += release_held(connection, rules.host, source=source, actor=actor)
        with Publisher(backends.amqp_url) as publisher:
            publish(connection, publisher, rules, [publication_of(row) for row in released])
    named = set(task_ids)
    moved = tuple(sorted({*(row["id"] for row in rows if row["id"] in named), *done.withdrawn}))
    log.info("%s cancelled %d of %d tasks: %s", actor, len(moved), len(task_ids), reason)
    lanes = frozenset(row["lane"] for row in (*rows, *released))
    return Intervened(
        moved=moved,
        left=_left(task_ids, moved),
        lanes=lanes,
        withdrawn=done.withdrawn,
        landed={row["task_id"]: row["rows_landed"] for row in landed},
    )


def _left(asked: Sequence[int], moved: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(set(asked) - set(moved)))
