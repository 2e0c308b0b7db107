"""Shedding: waiting tasks that a source says may be dropped are cancelled, down to what a rule keeps."""

from __future__ import annotations

from collect_ops.delivery.cancelling import cancel_callers
from collect_ops.storage import Connection, query

#: Tasks cancelled in one transaction.
BATCH = 1000
#: Batches of one evaluation at most; the next one goes on.
MAX_BATCHES = 20


def shed(
    connection: Connection, source: str, *, rule: str, below_priority: int, keep: int, reason: str, actor: str
) -> int:
    """Cancel waiting tasks of a source, lowest priority and oldest first; returns how many.

    Only tasks that were admitted as sheddable, have never begun and carry nobody else's work. Each batch and its count
    in the journal commit together, so a crash loses none and counts none twice.

    Args:
        connection: In autocommit.
        source: The source.
        rule: The rule that sheds, for the journal and the task log.
        below_priority: Only tasks of a lower priority.
        keep: Such tasks that stay.
        reason: Why, for people.
        actor: Who sheds, for the task log.
    """
    total = 0
    wanted = {"source": source, "below_priority": below_priority, "keep": keep, "batch": BATCH}
    for _ in range(MAX_BATCHES):
        with connection.transaction():
            rows = connection.execute(query("delivery/lock_sheddable"), wanted).fetchall()
            done = cancel_callers(
                connection, [row["id"] for row in rows], actor=actor, reason=f"shed by rule {rule}: {reason}"
            )
            values = {"rule": rule, "source": source, "cancelled": len(done.rows)}
            connection.execute(query("delivery/record_shed"), values)
        total += len(done.rows)
        if len(rows) < BATCH:
            break
    return total
