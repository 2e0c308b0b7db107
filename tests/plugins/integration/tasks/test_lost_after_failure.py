"""A process that dies is no failure, also when the attempt before it has failed."""

from __future__ import annotations

from collect_ops.execution.settle import settle
from collect_ops.storage import Connection, query
from tests.plugins.integration.world import World, source


def test_a_retry_whose_run_never_started_is_lost_and_not_failed(world: World, db: Connection) -> None:
    world.add(source())
    task_id = world.submit().task_id  # nobody serves it: the connection is refused
    world.run(world.claim().runs[0].run_id)
    failed = world.task(task_id)
    assert (failed["status"], failed["retry_count"]) == ("RETRYING", 1)
    assert failed["error"] is not None
    claimed = db.execute(
        query("lanes/claim_tasks"),
        {
            "task_ids": [task_id],
            "generations": [failed["generation"]],
            "run_ids": [None],
            "reserved": [1],
            "nodes": [""],
            "dag_id": "collect_normal",
            "actor": "test",
        },
    ).fetchall()
    assert [row["attempt"] for row in claimed] == [2]
    settled = settle(task_id, 2, world.backends, world.rules, actor="repair", run_over=True)
    assert settled is not None
    task = world.task(task_id)
    assert (task["status"], task["retry_count"], task["lost_count"]) == ("QUEUED", 1, 1), settled.reason
