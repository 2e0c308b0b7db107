"""The engine on real services: what lands, what is counted, what a task's end says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
import pytest

from tests.plugins.integration.execution.checks import DISPOSITIONS, asks_for, landed, open_things, target
from tests.plugins.integration.world import World, source
from tests.servers.paged import Failure, PagedServer

Serve = Callable[..., PagedServer]
UNFIT = {"table": "things", "disposition": "append", "columns": {"name": {"type": "integer"}}}


def test_a_task_is_sharded_and_lands_exactly(world: World, serve: Serve) -> None:
    server = serve(rows=430)
    world.add(source())
    world.serve_from(server.base_url)
    task_id = world.collect()
    task = world.task(task_id)
    assert task["status"] == "COMPLETED"
    assert task["shards_total"] == 5
    assert task["total_rows"] == 430
    assert landed(world) == list(range(430))
    assert task["result"]["rows_landed"] == 430
    assert open_things(world) == 0


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_collecting_twice_leaves_what_the_disposition_says(
    world: World, serve: Serve, disposition: str
) -> None:
    server = serve(rows=230)
    world.add(source(target=target(disposition)))
    world.serve_from(server.base_url)
    world.collect()
    server.rows = 250
    world.collect(force=True)
    once = list(range(250))
    assert landed(world) == (sorted([*range(230), *once]) if disposition == "append" else once)


def test_rows_that_do_not_add_up_are_partial_and_say_both(world: World, serve: Serve) -> None:
    server = serve(rows=120)
    world.add(source(total={"type": "request", "path": "/count", "value": "count"}))
    world.serve_from(server.base_url)
    world.submit()
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    server.rows = 110
    for group in world.rows("SELECT group_no FROM collect.shard_group WHERE run_id = %s", run_id):
        asyncio.run(world.group(run_id, group["group_no"]))
    world.finish(run_id)
    task = world.rows("SELECT status, reason FROM collect.task")[0]
    assert task["status"] == "PARTIAL"
    assert "120" in task["reason"]
    assert "110" in task["reason"]


def test_a_stream_that_does_not_add_up_is_partial_and_says_both(world: World, serve: Serve) -> None:
    server = serve(rows=120)
    cursor = {"type": "cursor", "cursor": "next_cursor", "limit_param": "limit"}
    world.add(source(request={"path": "/cursor"}, paging=cursor))
    world.serve_from(server.base_url)
    server.fail_where(
        lambda request: request.query.get("cursor") == "from-100",
        Failure(status=200, body=b'{"rows": [{"id": 100}], "total": 120}'),
    )
    task = world.task(world.collect())
    assert (task["status"], task["reason"]) == ("PARTIAL", "the source named 120 rows, 101 were fetched")
    assert landed(world) == list(range(101))
    assert open_things(world) == 0


def test_bad_rows_are_counted_a_shard(world: World, serve: Serve) -> None:
    """As declared: a shard with more of them fails, several shards with fewer do not."""
    server = serve(rows=300)
    columns = {"id": {"type": "bigint"}, "n": {"type": "integer", "path": "name"}}
    bad = {**target("append"), "columns": columns}

    def nine_bad(offset: int) -> bytes:
        rows = [{"id": offset + i, "name": "x" if i < 9 else "1"} for i in range(50)]
        return orjson.dumps({"rows": rows, "total": 300})

    for offset in range(0, 300, 50):
        even = offset % 100 == 0
        body = nine_bad(offset) if even else orjson.dumps({"rows": [{"id": offset}] * 50, "total": 300})
        server.fail_where(asks_for(offset), Failure(status=200, body=body))
    world.add(source(target=bad, max_bad_rows=10), source("strict", target=bad, max_bad_rows=8))
    world.serve_from(server.base_url)
    task = world.task(world.collect())
    assert (task["status"], task["result"]["bad_rows"]) == ("COMPLETED", 27)
    strict = world.task(world.collect("strict", force=True))
    assert strict["status"] == "DEAD"
    # What fails for good ends the task; shards that had not begun by then are not asked for.
    assert 1 <= strict["result"]["failed"] <= 3


def test_too_many_bad_rows_fail_even_on_the_last_page(world: World, serve: Serve) -> None:
    server = serve(rows=20)
    world.add(source(target=UNFIT, max_bad_rows=5))
    world.serve_from(server.base_url)
    task = world.task(world.collect())
    assert task["status"] == "DEAD"
    assert "max_bad_rows is 5" in task["reason"]
    assert world.rows("SELECT count(*) AS n FROM collect.bad_row")[0]["n"] == 20


def test_bad_rows_are_kept_and_do_not_fail_the_shard(world: World, serve: Serve) -> None:
    """As many as its source allows. A source that has none that fits has another shape than it declares."""
    server = serve(rows=20)
    some = {**UNFIT, "columns": {"name": {"type": "varchar(5)"}}}  # "row 9" fits, "row 10" does not
    world.add(source(target=some), source("misfits", target={**UNFIT, "table": "misfits"}))
    world.serve_from(server.base_url)
    task = world.task(world.collect())
    assert task["status"] == "COMPLETED"
    assert (task["result"]["bad_rows"], task["result"]["rows_landed"]) == (10, 10)
    kept = world.rows("SELECT reason, row_text FROM collect.bad_row ORDER BY ordinal LIMIT 1")[0]
    assert "name" in kept["reason"]
    assert "row 10" in kept["row_text"]

    misfit = world.task(world.collect("misfits"))
    assert misfit["status"] == "DEAD"
    assert misfit["result"]["bad_rows"] == 20
    assert "row 0" in misfit["reason"]


def test_small_tasks_share_a_run_and_settle_each(world: World, serve: Serve) -> None:
    server = serve(rows=60)
    world.add(source())
    world.serve_from(server.base_url)
    world.collect(params={"day": "first"})
    tasks = [world.submit(params={"day": f"day {number}"}).task_id for number in range(20)]
    claimed = world.claim()
    assert len(claimed.runs) == 1
    assert claimed.runs[0].run_id.startswith("claim-")
    world.run(claimed.runs[0].run_id)
    assert {world.task(task_id)["status"] for task_id in tasks} == {"COMPLETED"}
    assert len(world.rows("SELECT 1 FROM collect.shard_group WHERE run_id LIKE 'claim-%%'")) == 1
    assert open_things(world) == 0
