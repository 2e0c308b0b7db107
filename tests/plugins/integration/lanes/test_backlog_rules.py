"""The backlog's rules on real services: sampled, acted on, undone, journalled, whatever dies in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from collect_ops.lanes.backlog import actions_taken, history, measure
from collect_ops.lanes.backlog_actions import BacklogRun, run_once
from collect_ops.lanes.backlog_rules import BacklogRules
from collect_ops.lanes.brakes import AdmissionSlowed
from collect_ops.lanes.capacity import effective, room
from collect_ops.lanes.runs import RunsUnavailable
from collect_ops.storage import Connection
from tests.factories import source
from tests.plugins.integration.world import World


class RecordedPools:
    """Airflow's pools: a port of ours; the real ones are set in the tests of the running stack."""

    def __init__(self) -> None:
        self.slots: dict[str, int] = {}
        self.away = False

    def set_slots(self, pool: str, slots: int) -> None:
        if self.away:
            raise RunsUnavailable("Airflow is away")
        self.slots[pool] = slots


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source(sheddable=True), source("kept"))


@pytest.fixture
def pools() -> RecordedPools:
    return RecordedPools()


def rules(scope: dict[str, str], **actions: Any) -> BacklogRules:
    return BacklogRules.model_validate(
        {
            "rules": [
                {
                    "name": "deep",
                    "scope": scope,
                    "when": {"depth_above": 5},
                    "clear": {"depth_below": 2},
                    "actions": actions,
                }
            ]
        }
    )


def evaluate(world: World, wanted: BacklogRules, pools: RecordedPools) -> BacklogRun:
    return run_once(
        world.backends,
        world.rules,
        wanted,
        pools,
        sheddable=lambda name: world.find(name).sheddable,
        actor="test",
    )


def fill(world: World, count: int, name: str = "things", **fields: Any) -> list[int]:
    batch = [world.submission(name, params={"day": f"{name} {n}"}, **fields) for n in range(count)]
    return [answer.task_id for answer in world.service().admit_all(batch)]


def drain(world: World) -> None:
    world.rows(
        "UPDATE collect.task SET status = 'CANCELLED', finished_at = now() WHERE status = 'QUEUED' RETURNING id"
    )


def test_what_waits_is_measured_and_sampled_once_a_minute(
    world: World, db: Connection, pools: RecordedPools
) -> None:
    fill(world, 3)
    fill(world, 2, "kept", priority=1)
    found = measure(db, world.rules)
    assert {name: load.depth for name, load in found.lanes.items()} == {"urgent": 0, "normal": 3, "bulk": 2}
    assert found.sources["things"].arrivals == (3, 3, 3)
    assert found.sources["kept"].oldest_s > 0
    nothing = BacklogRules()
    assert evaluate(world, nothing, pools).sampled > 0
    assert evaluate(world, nothing, pools).sampled == 0, "there is one of this minute"
    assert history(db).lanes["normal"] == [3]
    assert history(db).sources["kept"] == [2]


def test_a_pool_is_widened_first_and_narrowed_last(
    world: World, db: Connection, pools: RecordedPools
) -> None:
    widen = rules({"lane": "bulk"}, widen_pool={"slots_step": 2, "max_slots": 4})
    fill(world, 8, priority=1)
    pools.away = True
    begun = evaluate(world, widen, pools)
    assert begun.begun == ("deep:bulk:widen_pool",)
    assert begun.problems == {"bulk": "Airflow is away"}
    assert effective(db, "bulk", world.rules).slots == 2, "claims use what Airflow has"
    (action,) = actions_taken(db)
    assert (action["applied_at"], action["problem"]) == (None, "Airflow is away")
    pools.away = False
    evaluate(world, widen, pools)
    assert pools.slots == {"collect_bulk": 4}
    assert effective(db, "bulk", world.rules).slots == room(db, "bulk", world.rules, world.backends) == 4
    assert len(world.claim("bulk").runs) == 4
    drain(world)
    pools.away = True
    for _ in range(2):
        evaluate(world, widen, pools)
    assert effective(db, "bulk", world.rules).slots == 2, "claims first"
    assert pools.slots == {"collect_bulk": 4}
    pools.away = False
    evaluate(world, widen, pools)
    assert pools.slots == {"collect_bulk": 2}
    (action,) = actions_taken(db)
    assert action["value_before"] == {"slots": 2}
    assert action["value_after"] == {"slots": 4}
    assert action["undone_at"] is not None
    assert "backlog is gone" in action["undo_reason"]


def test_runs_carry_more_while_the_backlog_is_there(
    world: World, db: Connection, pools: RecordedPools
) -> None:
    scale = rules({"lane": "any"}, scale_groups={"factor": 2, "max": 200})
    fill(world, 8)
    for _ in range(2):
        evaluate(world, scale, pools)
    lane = effective(db, "normal", world.rules)
    assert (lane.groups_per_task, lane.pack) == (1, 100)
    assert effective(db, "urgent", world.rules).pack == 50
    drain(world)
    for _ in range(2):
        evaluate(world, scale, pools)
    assert effective(db, "normal", world.rules).pack == 50


def test_a_slowed_source_refuses_with_a_time_and_is_let_go(world: World, pools: RecordedPools) -> None:
    slow = rules({"source": "things"}, slow_admission={"retry_after_s": 30})
    fill(world, 8)
    for _ in range(2):
        evaluate(world, slow, pools)
    known = world.submission(params={"day": "things 1"})
    with pytest.raises(AdmissionSlowed) as refused:
        world.service().admit(known)
    assert (refused.value.retry_after_s, refused.value.status) == (30, 429)
    assert "rule deep: depth 8 above 5" in str(refused.value)
    answers = world.service().admit_batch(
        [
            world.submission(params={"day": "urgent"}, priority=9),
            world.submission("kept", params={"day": "other"}),
            world.submission(params={"day": "late"}),
        ]
    )
    assert [isinstance(answer, AdmissionSlowed) for answer in answers] == [False, False, True]
    drain(world)
    for _ in range(2):
        evaluate(world, slow, pools)
    assert world.service().admit(world.submission(params={"day": "later"})).known is False


def test_a_rate_lets_some_through(world: World, pools: RecordedPools) -> None:
    slow = rules({"source": "things"}, slow_admission={"retry_after_s": 30, "per_s": 2})
    fill(world, 8)
    for _ in range(2):
        evaluate(world, slow, pools)
    world.rows(
        "UPDATE collect.brake SET filled_at = now() - interval '1 second', tokens = 0 RETURNING source"
    )
    answers = world.service().admit_batch([world.submission(params={"day": f"late {n}"}) for n in range(20)])
    passed = [answer for answer in answers if not isinstance(answer, AdmissionSlowed)]
    assert 1 <= len(passed) <= 3


def test_only_what_is_declared_sheddable_is_shed_lowest_first(world: World, pools: RecordedPools) -> None:
    shed = rules({"source": "any"}, shed={"below_priority": 3, "keep": 2})
    low = fill(world, 6, priority=1)
    (urgent,) = [world.submit(params={"day": "keep me"}, priority=5).task_id]
    other = fill(world, 8, "kept", priority=1)
    for _ in range(2):
        evaluate(world, shed, pools)
    gone = world.rows("SELECT id, reason FROM collect.task WHERE status = 'CANCELLED' ORDER BY id")
    assert [row["id"] for row in gone] == low[:4], "the oldest of them"
    assert all(row["reason"].startswith("shed by rule deep: depth 7 above 5") for row in gone)
    assert {world.task(task_id)["status"] for task_id in [urgent, *other]} == {"QUEUED"}


def test_evaluations_at_once_act_once(world: World, db: Connection, pools: RecordedPools) -> None:
    scale = rules({"lane": "normal"}, scale_groups={"factor": 2, "max": 200})
    fill(world, 8)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: evaluate(world, scale, pools), range(4)))
    assert sum(len(each.begun) for each in done) == 1
    assert len(actions_taken(db)) == 1


def test_an_evaluation_that_died_after_airflow_was_told_is_made_good(
    world: World, db: Connection, pools: RecordedPools
) -> None:
    widen = rules({"lane": "bulk"}, widen_pool={"slots_step": 2, "max_slots": 4})
    fill(world, 8, priority=1)
    for _ in range(2):
        evaluate(world, widen, pools)
    # As if it had died between the REST call and its record.
    db.execute("UPDATE collect.lane_setting SET slots = NULL, pool_dirty = true WHERE lane = 'bulk'")
    evaluate(world, widen, pools)
    assert effective(db, "bulk", world.rules).slots == 4
    assert len(actions_taken(db)) == 1
