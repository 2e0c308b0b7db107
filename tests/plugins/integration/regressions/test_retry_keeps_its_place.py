"""A retry that waits in a busy lane's queue is published again once, not every minute: that would move it to the end
of the queue for ever, and fill the queue with stale messages."""

from __future__ import annotations

from collect_ops.storage import Connection, query
from tests.plugins.integration.world import World, source


def test_a_due_retry_behind_a_backlog(world: World, db: Connection) -> None:
    world.add(source())
    task_id = world.submit().task_id
    world.claim()
    db.execute(
        "UPDATE collect.task SET status = 'RETRYING', generation = 2, queued_at = now() - interval '5 minutes', "
        "due_at = now() - interval '4 minutes' WHERE id = %s",
        (task_id,),
    )

    def overdue(*, queue_empty: bool) -> list[int]:
        values = {"lane": "normal", "ttl_s": 7200, "grace_s": 60, "queue_empty": queue_empty, "strict": True}
        rows = db.execute(query("delivery/republish_overdue"), {**values, "actor": "test"}).fetchall()
        db.execute(  # five minutes later
            "UPDATE collect.task SET queued_at = queued_at - interval '5 minutes', "
            "due_at = due_at - interval '5 minutes'"
        )
        return [row["generation"] for row in rows]

    assert overdue(queue_empty=False) == [3]
    assert overdue(queue_empty=False) == []
    assert overdue(queue_empty=True) == [4]
    assert overdue(queue_empty=False) == []
    db.execute(
        "UPDATE collect.task SET due_at = due_at - interval '3 hours', queued_at = queued_at - interval '3 hours'"
    )
    assert overdue(queue_empty=False) == [5]
