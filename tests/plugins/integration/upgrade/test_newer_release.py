"""A process that meets what only a newer release can read hands it back: nothing counted, nothing dead or lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from collect_ops.delivery import merging, repair
from collect_ops.delivery.intervene import cancel
from collect_ops.delivery.priorities import aged, emergency_promote
from collect_ops.lanes.why import why
from collect_ops.sources.stored import FORMAT
from collect_ops.storage import connect
from tests.factories import list_source
from tests.plugins.integration.delivery.letters import kill, letters_of, sent_again
from tests.plugins.integration.execution.checks import age, assert_exact, landed, plan_groups, start, target
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

NEWER = FORMAT + 1


@pytest.fixture(autouse=True)
def server(world: World, serve: Callable[..., PagedServer]) -> PagedServer:
    server = serve(rows=200)
    world.add(source(limits={"concurrency": 2}))
    world.serve_from(server.base_url)
    return server


def make_newer(world: World, format_: int = NEWER) -> None:
    """As if a newer release had admitted what there is."""
    world.rows("UPDATE collect.source_version SET format = %s RETURNING hash", format_)


def sweep(world: World) -> None:
    with connect(world.backends.postgres_dsn) as db:
        age(db, 300)
    repair.run_once(world.backends, world.rules, world.runs, actor="test")


def assert_handed_back(world: World, task_id: int) -> None:
    """It waits, with its reason, and nothing was counted; no pass of this release lets it go."""
    for _ in range(2):
        task = world.task(task_id)
        assert (task["status"], task["retry_count"], task["lost_count"]) == ("HELD", 0, 0), task["reason"]
        assert f"format {NEWER}" in task["reason"]
        sweep(world)
    assert not world.rows("SELECT 1 AS x FROM collect.dead_letter")
    assert world.claim().claimed == 0


def assert_goes_on(world: World, task_id: int, rows: int = 200) -> None:
    """A process that can read it goes on with it."""
    make_newer(world, 1)
    sweep(world)
    world.claim_and_run()
    assert world.task(task_id)["status"] == "COMPLETED"
    assert_exact(world, rows)


def test_a_claim_holds_it(world: World) -> None:
    task_id = world.submit().task_id
    make_newer(world)
    assert (world.claim().held, world.runs.started) == (1, {})
    assert_handed_back(world, task_id)
    with connect(world.backends.postgres_dsn) as db:
        sentences = why(db, world.rules, task_id).sentences
    assert f"format {NEWER}" in sentences[0]
    assert "newer release" in sentences[1]
    assert not any("the sweep lets it go" in each for each in sentences)
    assert_goes_on(world, task_id)


def reasons(world: World, task_id: int) -> tuple[str, ...]:
    with connect(world.backends.postgres_dsn) as db:
        return why(db, world.rules, task_id, world.backends).sentences


def assert_told(sentences: tuple[str, ...]) -> None:
    assert f"format {NEWER}" in sentences[0]
    assert "newer release" in sentences[0]
    assert not any("next claim takes it" in each for each in sentences)


def test_why_tells_it_of_a_queued_task(world: World) -> None:
    task_id = world.submit().task_id
    make_newer(world)
    assert_told(reasons(world, task_id))
    make_newer(world, FORMAT)
    assert not any("newer release" in each for each in reasons(world, task_id))


@pytest.mark.parametrize("due_in_s", [-1, 3600])
def test_why_tells_it_of_a_retrying_task(world: World, due_in_s: int) -> None:
    task_id, _ = start(world)
    world.rows(
        "UPDATE collect.task SET status = 'RETRYING', due_at = now() + make_interval(secs => %s), run_id = NULL,"
        ' error = \'{"message": "answered 503"}\', confirmed_generation = generation RETURNING id',
        due_in_s,
    )
    make_newer(world)
    assert_told(reasons(world, task_id))


def test_why_tells_it_of_a_claimed_task_and_of_one_under_way(world: World) -> None:
    task_id, run_id = start(world)
    make_newer(world)
    assert_told(reasons(world, task_id))
    make_newer(world, FORMAT)
    plan_groups(world, run_id)
    make_newer(world)
    assert_told(reasons(world, task_id))


def test_a_claim_leaves_others_alone(world: World) -> None:
    world.submit()
    make_newer(world)
    world.add(source("others", target=target("merge", "others")))
    other = world.submit("others").task_id
    claimed = world.claim()
    assert (claimed.held, claimed.claimed) == (1, 1)
    world.run(claimed.runs[0].run_id)
    assert world.task(other)["status"] == "COMPLETED"


def test_planning_hands_it_back(world: World) -> None:
    task_id, run_id = start(world)
    make_newer(world)
    assert plan_groups(world, run_id) == []
    world.finish(run_id)
    assert_handed_back(world, task_id)
    assert_goes_on(world, task_id)


def test_a_group_hands_it_back_and_its_node_is_avoided(world: World) -> None:
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    make_newer(world)
    for group in groups:
        result = asyncio.run(world.group(run_id, group, node="old"))
        assert (result.done, result.failed) == (0, 0)
    make_newer(world, 1)  # who settles can read it
    world.finish(run_id)
    task = world.task(task_id)
    assert (task["status"], task["retry_count"], task["lost_count"]) == ("HELD", 0, 0)
    assert task["refused_nodes"] == ["old"]
    assert_goes_on(world, task_id)


def test_a_task_that_shares_a_group_is_collected(world: World) -> None:
    """Half of the shards have landed on a newer process; the other half is handed back."""
    task_id, run_id = start(world)
    first, second = plan_groups(world, run_id)
    asyncio.run(world.group(run_id, first))
    assert world.task(task_id)["status"] in ("RUNNING", "COMPLETED")
    make_newer(world)
    asyncio.run(world.group(run_id, second, node="old"))
    if world.task(task_id)["status"] == "RUNNING":
        world.finish(run_id)
        assert_handed_back(world, task_id)
        assert_goes_on(world, task_id)


def test_settling_hands_it_back(world: World) -> None:
    task_id, run_id = start(world)
    plan_groups(world, run_id)
    make_newer(world)
    world.finish(run_id)
    assert_handed_back(world, task_id)
    assert_goes_on(world, task_id)


def test_the_repair_pass_hands_it_back(world: World) -> None:
    task_id, run_id = start(world)
    plan_groups(world, run_id)
    make_newer(world)
    world.runs.end("", run_id)  # without its last task
    sweep(world)
    assert_handed_back(world, task_id)
    assert_goes_on(world, task_id)


def test_a_redrive_sends_it(world: World) -> None:
    task_id = world.submit().task_id
    kill(world, [task_id], "answered 404")
    make_newer(world)
    assert sent_again(world, ids=letters_of(world, [task_id])).done == 1
    assert world.task(task_id)["status"] == "QUEUED"
    world.rows("DELETE FROM collect.dead_letter RETURNING id")
    world.claim()
    assert_handed_back(world, task_id)
    assert_goes_on(world, task_id)


def test_merging_leaves_it_alone(world: World) -> None:
    world.add(list_source(merge_window_seconds=600))
    ids = [world.submit(params={"ids": text}).task_id for text in ("1,2", "2,3", "9")]
    survivor = ids[0]
    assert [world.task(each)["status"] for each in ids] == ["QUEUED", "MERGED", "MERGED"]
    make_newer(world)
    assert merging.run_once(world.backends, world.rules, actor="test").merged == 0
    # One caller less: it goes on asking for what it asked for.
    cancel([ids[2]], world.backends, world.rules, actor="test", reason="not needed")
    assert world.task(survivor)["params"]["ids"] == "1,2,3,9"
    make_newer(world, 1)
    world.claim_and_run()
    assert [world.task(each)["status"] for each in ids] == ["COMPLETED", "COMPLETED", "CANCELLED"]
    assert landed(world) == [1, 2, 3, 9]


def test_its_priority_stays(world: World) -> None:
    task_id = world.submit().task_id
    before = world.task(task_id)["priority"]
    world.rows("UPDATE collect.task SET aged_from = now() - interval '9 days' RETURNING id")
    make_newer(world)
    done = emergency_promote([task_id], world.backends, world.rules, actor="test", reason="now")
    assert (done.moved, done.left) == ((), (task_id,))
    with connect(world.backends.postgres_dsn) as db:
        assert aged(db, world.rules, older_than_s=1, limit=10) == []
    assert world.task(task_id)["priority"] == before


def test_it_can_be_cancelled(world: World) -> None:
    world.add(source(target=target("replace")))
    task_id, run_id = start(world)
    plan_groups(world, run_id)
    make_newer(world)
    world.rows(
        "UPDATE collect.source_version SET declared = jsonb_set(declared::jsonb, '{target,brand_new}', '1')::json"
        " RETURNING hash"
    )
    done = cancel([task_id], world.backends, world.rules, actor="test", reason="not needed")
    assert done.moved == (task_id,)
    assert not world.rows("SELECT 1 AS x FROM pg_tables WHERE schemaname = 'landing_aside'")


def test_a_field_that_nobody_knows_is_handed_back(world: World) -> None:
    """Its author forgot the format: no reason to end the task."""
    world.add(source(description="unknown field"))
    task_id, run_id = start(world)
    world.rows(
        "UPDATE collect.source_version SET declared = jsonb_set(declared::jsonb, '{brand_new}', '1')::json"
        " RETURNING hash"
    )
    assert plan_groups(world, run_id) == []
    world.finish(run_id)
    task = world.task(task_id)
    assert (task["status"], task["retry_count"], task["lost_count"]) == ("HELD", 0, 0)
    assert "brand_new" in task["reason"]


def test_a_damaged_one_ends_with_its_reason(world: World) -> None:
    world.add(source(description="damaged"))
    task_id, run_id = start(world)
    world.rows(
        "UPDATE collect.source_version SET declared = jsonb_set(declared::jsonb, '{batch_size}', '\"x\"')::json"
        " RETURNING hash"
    )
    plan_groups(world, run_id)
    world.finish(run_id)
    task = world.task(task_id)
    assert (task["status"], task["retry_count"]) == ("DEAD", 0)
    assert "batch_size" in task["reason"]


def test_tables_stand_in_declared_order(world: World) -> None:
    columns = {"name": "text", "id": "bigint", "at": "timestamptz", "even": "boolean"}
    declared = {name: {"type": kind} for name, kind in columns.items()}
    world.add(source(target={"table": "ordered", "columns": declared}))
    world.collect()
    found = world.rows(
        "SELECT column_name AS name FROM information_schema.columns WHERE table_schema = 'landing'"
        " AND table_name = 'ordered' AND column_name NOT LIKE '\\_%%' ORDER BY ordinal_position"
    )
    assert [each["name"] for each in found if each["name"] in columns] == list(columns)
