"""Attempts: what fails is tried again and nothing else, from where it stopped, as long and as late as it should."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.plugins.integration.delivery.letters import letters_of, sent_again
from tests.plugins.integration.execution.checks import (
    DISPOSITIONS,
    assert_exact,
    claim_next,
    finish,
    landed,
    offset_of,
    open_things,
    plan_groups,
    side_by_side,
    start,
    target,
)
from tests.plugins.integration.world import World, source
from tests.servers.paged import Failure, PagedServer, Recorded, pages_only

Serve = Callable[..., PagedServer]
PERMANENT = Failure(status=404)
TRANSIENT = Failure(status=500)


def retries(**changes: Any) -> dict[str, Any]:
    return {"http_attempts": 1, "max_retries": 3, "base_s": 0.2, **changes}


def in_shard(*numbers: int) -> Callable[[Recorded], bool]:
    """Matches requests of these shards of 100 rows."""
    return pages_only(lambda request: offset_of(request) // 100 in numbers)


def run_until_settled(world: World, task_id: int, run_id: str) -> None:
    """Plan, run and end one attempt."""
    asyncio.run(side_by_side(world, run_id, plan_groups(world, run_id)))
    world.finish(run_id)


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_only_shards_that_are_not_done_run_again(world: World, serve: Serve, disposition: str) -> None:
    server = serve(rows=500)
    world.add(source(target=target(disposition)))
    world.serve_from(server.base_url)
    server.fail_where(in_shard(1, 3), TRANSIENT)
    task_id = world.collect()
    task = world.task(task_id)
    assert (task["status"], task["generation"], task["retry_count"]) == ("RETRYING", 2, 1)
    assert (task["result"]["done"], task["result"]["failed"]) == (3, 2)
    assert task["reason"].startswith("2 of 5 shards failed; shard 1: ")
    assert "500" in task["reason"]
    assert open_things(world) == 0, "no slot is held while it waits"

    server.mend()
    server.requests.clear()
    world.run(claim_next(world))
    assert world.task(task_id)["status"] == "COMPLETED"
    assert sorted(map(offset_of, server.requests)) == [100, 150, 300, 350]
    assert_exact(world, 500)


@pytest.mark.parametrize(
    ("path", "paging"),
    [
        ("/cursor", {"type": "cursor", "cursor": "next_cursor", "limit_param": "limit"}),
        ("/next", {"type": "next_url", "next_url": "next", "limit_param": "limit"}),
    ],
)
@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_a_stream_goes_on_after_its_last_committed_page(
    world: World, serve: Serve, path: str, paging: dict[str, Any], disposition: str
) -> None:
    server = serve(rows=200)
    declared: dict[str, Any] = {"request": {"path": path}, "paging": paging, "page_size": 20}
    world.add(source(target=target(disposition), total={"type": "unknown"}, **declared))
    world.serve_from(server.base_url)
    starts = {"/cursor": "cursor", "/next": "start"}[path]
    server.fail_where(lambda request: request.query.get(starts, "").endswith("100"), TRANSIENT)
    task_id = world.collect()
    assert world.task(task_id)["status"] == "RETRYING"
    assert world.rows("SELECT pages, rows_fetched FROM collect.shard") == [{"pages": 5, "rows_fetched": 100}]

    server.mend()
    server.requests.clear()
    world.run(claim_next(world))
    assert world.task(task_id)["status"] == "COMPLETED"
    asked = [request.query[starts].removeprefix("from-") for request in server.requests]
    assert asked == ["100", "120", "140", "160", "180"]
    assert world.task(task_id)["result"]["rows_fetched"] == 200
    assert_exact(world, 200)


def test_retries_have_an_end(world: World, serve: Serve) -> None:
    server = serve(rows=300)
    world.add(source(retries=retries(max_retries=2), target=target("append")))
    world.serve_from(server.base_url)
    server.fail_where(in_shard(2), TRANSIENT)
    task_id, run_id = start(world)
    asyncio.run(side_by_side(world, run_id, plan_groups(world, run_id)))
    assert finish(world, run_id, task_id) == "DEAD"
    task = world.task(task_id)
    assert (task["attempt"], task["retry_count"], task["lost_count"]) == (3, 2, 0)
    assert (task["result"]["done"], task["result"]["failed"], task["result"]["rows_landed"]) == (2, 1, 200)
    assert "1 of 3 shards failed; shard 2" in task["reason"]
    assert task["error"]["class"] == "ServerFailed"
    assert "answered 500" in task["error"]["message"]
    assert "Traceback" in task["error"]["stack"]
    letter = world.rows("SELECT * FROM collect.dead_letter")
    assert [(each["task_id"], each["retry_count"], each["error_message"]) for each in letter] == [
        (task_id, 2, task["reason"])
    ]
    assert landed(world) == list(range(200))
    assert open_things(world) == 0


def test_what_cannot_succeed_is_not_tried_again(world: World, serve: Serve) -> None:
    server = serve(rows=300)
    world.add(source())
    world.serve_from(server.base_url)
    server.fail_where(in_shard(0), TRANSIENT)
    server.fail_where(in_shard(2), PERMANENT)
    task = world.task(world.collect())
    assert (task["status"], task["attempt"], task["retry_count"]) == ("DEAD", 1, 0)
    assert world.rows("SELECT retry_count FROM collect.dead_letter") == [{"retry_count": 0}]


def asked_shards(server: PagedServer) -> set[int]:
    """The shards of 100 rows that pages were asked of."""
    pages = filter(pages_only(), server.requests)
    return {offset_of(request) // 100 for request in pages}


def test_the_rest_is_not_asked_for_when_more_failed_for_good_than_may(world: World, serve: Serve) -> None:
    """Nothing of the others lands after that, whatever group holds them; a redrive makes it exact."""
    server = serve(rows=1000)
    world.add(source(limits={"concurrency": 2}))
    world.serve_from(server.base_url)
    task_id, run_id = start(world)
    first, second = plan_groups(world, run_id)
    server.fail_where(in_shard(1), PERMANENT)
    held = server.hold_where(in_shard(5))

    async def both() -> None:
        other = asyncio.ensure_future(world.group(run_id, second))
        await asyncio.to_thread(held.wait)
        await world.group(run_id, first)
        assert world.task(task_id)["status"] == "DEAD", "it does not wait for the other group"
        held.release()
        assert (await other).done == 0

    asyncio.run(both())
    world.finish(run_id)
    task = world.task(task_id)
    assert (task["attempt"], task["result"]["done"], task["result"]["failed"]) == (1, 1, 1)
    assert "shard 1" in task["reason"]
    assert "8 shards were not asked for" in task["reason"]
    assert asked_shards(server) == {0, 1, 5}
    assert landed(world) == list(range(100))
    assert open_things(world) == 0
    server.mend()
    assert sent_again(world, ids=letters_of(world, [task_id])).done == 1
    world.run(claim_next(world))
    assert world.task(task_id)["status"] == "COMPLETED"
    assert_exact(world, 1000)


def test_an_address_that_is_not_there_ends_the_task(world: World, serve: Serve) -> None:
    """Shards that differ by page alone: 404 in shard after shard is no PARTIAL, however many may fail."""
    server = serve(rows=1000)
    world.add(source(limits={"concurrency": 1}, max_failed_shards=10))
    world.serve_from(server.base_url)
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    server.fail_where(lambda _: True, PERMANENT)
    asyncio.run(side_by_side(world, run_id, groups))
    world.finish(run_id)
    task = world.task(task_id)
    assert (task["status"], task["attempt"], task["result"]["failed"]) == ("DEAD", 1, 3)
    assert asked_shards(server) == {0, 1, 2}


def by_value(**fields: Any) -> Any:
    """A source whose shards ask for one id each."""
    return source(
        request={"path": "/select", "params": {"ids": {"type": "string"}}, "query": {"ids": "{ids}"}},
        paging={"type": "none"},
        page_size=None,
        total={"type": "unknown"},
        shards={"by": "values", "param": "ids", "values": [str(n) for n in range(8)]},
        limits={"concurrency": 1},
        **fields,
    )


@pytest.mark.parametrize(("allowed", "failing", "status", "asked"), [
    (5, range(5), "PARTIAL", 8),
    (5, range(8), "DEAD", 6),
    (0, [2], "DEAD", 3),
])  # fmt: skip
def test_shards_that_ask_for_different_things_are_all_asked_as_long_as_enough_may_fail(
    world: World, serve: Serve, allowed: int, failing: Sequence[int], status: str, asked: int
) -> None:
    server = serve(rows=8)
    world.add(by_value(max_failed_shards=allowed))
    world.serve_from(server.base_url)
    server.fail_where(lambda request: int(request.query["ids"]) in failing, PERMANENT)
    task = world.task(world.collect())
    assert task["status"] == status
    assert len({request.query["ids"] for request in server.requests}) == asked
    assert landed(world) == [n for n in range(asked) if n not in failing]


@pytest.mark.parametrize(("failure", "attempts"), [(PERMANENT, 1), (TRANSIENT, 2)])
def test_failed_shards_within_what_the_source_allows(
    world: World, serve: Serve, failure: Failure, attempts: int
) -> None:
    server = serve(rows=300)
    world.add(source(max_failed_shards=1, retries=retries(max_retries=1)))
    world.serve_from(server.base_url)
    server.fail_where(in_shard(1), failure)
    task_id, run_id = start(world)
    run_until_settled(world, task_id, run_id)
    assert finish(world, run_id, task_id) == "PARTIAL"
    task = world.task(task_id)
    assert task["attempt"] == attempts
    assert "1 of 3 shards failed; shard 1" in task["reason"]
    assert world.rows("SELECT 1 FROM collect.dead_letter") == []
    assert landed(world) == [*range(100), *range(200, 300)]


def test_retry_after_is_the_delay(world: World, serve: Serve) -> None:
    """At the request for the total, and at a page: longer than our own delay, it wins."""
    busy = Failure(status=429, headers={"Retry-After": "70"})
    server = serve(rows=300)
    world.add(source("planned"), source("run", connection="other_api"))  # a pause is a host's
    world.serve_from(server.base_url)
    server.fail_next("/offset", busy)
    planned = world.collect("planned")
    server.fail_where(in_shard(1), busy)
    run = world.collect("run")
    for task_id in (planned, run):
        task = world.rows(
            "SELECT status, reason, extract(EPOCH FROM due_at - progress_at) AS delay_s "
            "FROM collect.task WHERE id = %s",
            task_id,
        )[0]
        assert task["status"] == "RETRYING"
        assert 69 < task["delay_s"] < 71
        assert "asks to wait 70 s" in task["reason"]


def test_planning_that_fails_is_tried_again(world: World, serve: Serve) -> None:
    server = serve(rows=120)
    world.add(source())
    world.serve_from(server.base_url)
    server.fail_next("/offset", TRANSIENT)
    task_id = world.collect()
    task = world.task(task_id)
    assert (task["status"], task["retry_count"], task["shards_total"]) == ("RETRYING", 1, None)
    assert task["reason"].startswith("planning failed: ")
    world.run(claim_next(world))
    task = world.task(task_id)
    assert (task["status"], task["reason"], task["error"]) == ("COMPLETED", None, None)
    assert_exact(world, 120)


def test_a_total_that_changes_between_attempts_changes_no_shard_and_is_told(
    world: World, serve: Serve
) -> None:
    # Shards are stored once, with the total they were cut from: else a resumed one would cover other rows.
    server = serve(rows=300)
    world.add(source(target=target("append")))
    world.serve_from(server.base_url)
    server.fail_where(in_shard(1), TRANSIENT)
    task_id = world.collect()
    server.mend()
    server.rows = 500
    world.run(claim_next(world))
    task = world.task(task_id)
    assert (task["status"], task["shards_total"], task["total_rows"]) == ("PARTIAL", 3, 300)
    assert "500" in task["reason"]
    assert landed(world) == list(range(300))


def test_an_empty_source_is_complete(world: World, serve: Serve) -> None:
    world.add(source())
    world.serve_from(serve(rows=0).base_url)
    task = world.task(world.collect())
    assert (task["status"], task["total_rows"], task["result"]["rows_landed"]) == ("COMPLETED", 0, 0)
    assert open_things(world) == 0
