"""kill -9 of a claim: its messages come again, and no task is claimed twice or forgotten (DESIGN guarantee 4)."""

from __future__ import annotations

import pytest

from collect_ops.broker.consumer import Consumer
from collect_ops.delivery import repair
from collect_ops.storage import Connection
from tests.plugins.integration.lanes.killed_claim import Moment, claim_and_die
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source

TASKS = 3


@pytest.mark.parametrize("moment", list(Moment))
def test_a_killed_claim_claims_nothing_twice(world: World, db: Connection, moment: Moment) -> None:
    world.add(source())
    ids = [world.submit(params={"day": str(number)}).task_id for number in range(TASKS)]
    claim_and_die(world.backends, moment)
    queue = world.rules.queue("normal")
    back = 0 if moment is Moment.FIRST_RUN else TASKS
    with Consumer(world.backends.amqp_url) as consumer:
        until(lambda: consumer.depth(queue) == back, "the broker has back what the process had not acked")

    claimed = world.claim()
    committed = moment is not Moment.MESSAGES_TAKEN
    assert claimed.claimed == (0 if committed else TASKS)
    assert claimed.stale == (TASKS if moment is Moment.COMMITTED else 0)
    assert {(world.task(i)["status"], world.task(i)["attempt"]) for i in ids} == {("CLAIMED", 1)}

    db.execute("UPDATE collect.task SET progress_at = progress_at - interval '1 minute'")
    repaired = repair.run_once(world.backends, world.rules, world.runs, actor="repair")
    assert repaired.started == (TASKS if committed else 0)
    assert sorted(world.runs.started) == sorted(f"things-{task_id}-attempt-1" for task_id in ids)
    assert all(world.runs.started[f"things-{i}-attempt-1"]["tasks"][0]["task_id"] == i for i in ids)
    moves = db.execute("SELECT count(*) AS n FROM collect.task_log WHERE to_status = 'CLAIMED'").fetchone()
    assert moves is not None
    assert moves["n"] == TASKS
