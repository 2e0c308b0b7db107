"""Small tasks share a run: one that waits for its turn in it is not hung, and a task that streams for long is not
small."""

from __future__ import annotations

from collections.abc import Callable

from collect_ops.delivery import repair
from collect_ops.nodes.rules import placement_rules
from collect_ops.storage import Connection
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

Serve = Callable[..., PagedServer]


def test_a_task_waiting_for_its_turn_is_left_alone(world: World, serve: Serve, db: Connection) -> None:
    world.add(source())
    world.serve_from(serve(rows=60).base_url)
    world.collect(params={"day": "first"})
    tasks = [world.submit(params={"day": f"day {number}"}).task_id for number in range(3)]
    run_id = world.claim().runs[0].run_id
    assert run_id.startswith("claim-")
    world.plan(run_id)
    # The first has just landed a page; the others have waited for more than the time after which a run is hung.
    db.execute(
        "UPDATE collect.task SET progress_at = now() - make_interval(secs => %s)",
        (placement_rules().dispatch.hung_after_s + 60,),
    )
    db.execute(
        "UPDATE collect.shard SET status = 'RUNNING', progress_at = now() WHERE task_id = %s", (tasks[0],)
    )
    assert repair.run_once(world.backends, world.rules, world.runs, actor="test").settled == 0
    assert {world.task(task_id)["lost_count"] for task_id in tasks} == {0}
    db.execute(
        "UPDATE collect.shard SET progress_at = now() - make_interval(secs => %s)",
        (placement_rules().dispatch.hung_after_s + 60,),
    )
    assert repair.run_once(world.backends, world.rules, world.runs, actor="test").settled == 3


def test_a_source_whose_one_shard_takes_long_is_not_small(world: World, serve: Serve, db: Connection) -> None:
    world.add(source())
    world.serve_from(serve(rows=60).base_url)
    first = world.collect(params={"day": "first"})
    db.execute(
        "UPDATE collect.task SET result = jsonb_set(result, '{seconds,fetch}', '600') WHERE id = %s", (first,)
    )
    for number in range(3):
        world.submit(params={"day": f"day {number}"})
    assert [len(run.conf["tasks"]) for run in world.claim().runs] == [1, 1, 1]
