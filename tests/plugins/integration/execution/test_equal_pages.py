"""Pages that are asked for again are no pages that come again; a shard whose cursor has expired begins anew, once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from collect_ops.sources.file_defaults import with_file_defaults
from collect_ops.sources.model import Source
from collect_ops.storage import connect
from tests.factories import source
from tests.plugins.integration.delivery.letters import letters_of, sent_again
from tests.plugins.integration.execution.checks import (
    DISPOSITIONS,
    assert_exact,
    claim_next,
    finish,
    landed,
    plan_groups,
    side_by_side,
    start,
    target,
)
from tests.plugins.integration.world import World
from tests.servers.paged import Failure, Recorded
from tests.servers.quirks import QuirkyServer

CURSOR: dict[str, Any] = {
    "paging": {"type": "cursor", "cursor": "next_cursor"},
    "total": {"type": "unknown"},
    "page_size": None,
}


def declared(path: str, **fields: Any) -> Source:
    fields = {"request": {"path": path}, "target": target("append"), **fields}
    return with_file_defaults(source(**fields))


@pytest.fixture
def server(world: World) -> Iterator[QuirkyServer]:
    with QuirkyServer(rows=45) as started:
        world.serve_from(started.base_url)
        yield started


def fingerprints(world: World) -> list[int]:
    return [row["n"] for row in world.rows("SELECT count(*)::int AS n FROM collect.page_fingerprint")]


def goes_on(server: QuirkyServer) -> Callable[[Recorded], bool]:
    """Matches the third page of the scroll that is under way."""
    return lambda request: request.query.get("cursor") == f"{server.scroll}-20"


def test_equal_readings_of_several_tasks_all_land(world: World, server: QuirkyServer) -> None:
    """What is refused is a page of the same task: a feed that has not changed since is no fault."""
    for keyed in (False, True):
        key = {"key": ["id"]} if keyed else {}
        world.add(declared("/offset", target={**target("append"), **key}))
        for _ in range(3):
            task = world.task(world.collect(force=True))
            assert (task["status"], task["reason"]) == ("COMPLETED", None)
    assert landed(world) == sorted(list(range(45)) * 6)
    assert fingerprints(world) == [0]


def test_a_page_that_is_tried_again_lands(world: World, server: QuirkyServer) -> None:
    world.add(declared("/offset", batch_size=50, page_size=10))
    server.fail_where(lambda request: request.query.get("offset") == "30", Failure(status=500))
    task_id, run_id = start(world)
    asyncio.run(side_by_side(world, run_id, plan_groups(world, run_id)))
    assert fingerprints(world) == [3]
    server.mend()
    assert finish(world, run_id, task_id) == "COMPLETED"
    assert_exact(world, 45)
    assert fingerprints(world) == [0]


def test_a_redrive_goes_on_behind_what_has_landed(world: World, server: QuirkyServer) -> None:
    world.add(declared("/offset", batch_size=50, page_size=10))
    server.fail_where(lambda request: request.query.get("offset") == "30", Failure(status=404))
    task_id = world.collect()
    assert world.task(task_id)["status"] == "DEAD"
    assert fingerprints(world) == [3], "a redrive goes on from there"
    server.mend()
    assert sent_again(world, ids=letters_of(world, [task_id])).done == 1
    world.run(claim_next(world))
    assert world.task(task_id)["status"] == "COMPLETED"
    assert_exact(world, 45)


def test_shards_that_start_over_forget_their_pages(world: World, server: QuirkyServer) -> None:
    fields = {"batch_size": 20, "page_size": 10, "target": target("replace")}
    world.add(declared("/offset", **fields))
    server.fail_where(lambda request: request.query.get("offset") == "30", Failure(status=404))
    task_id = world.collect()
    assert world.task(task_id)["status"] == "DEAD"
    server.mend()
    with connect(world.backends.postgres_dsn) as db:
        (aside,) = db.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'landing_aside'").fetchall()
        db.execute(f"DROP TABLE landing_aside.{aside['tablename']}")
    assert sent_again(world, ids=letters_of(world, [task_id])).done == 1
    world.run(claim_next(world))
    assert world.task(task_id)["status"] == "COMPLETED"
    assert_exact(world, 45)


def test_shards_by_values_may_have_the_same_few_rows(world: World, server: QuirkyServer) -> None:
    """Two values select the same rows: no parameter is ignored. Several equal pages of them say that one is."""
    request = {
        "path": "/select",
        "params": {"ids": {"type": "string"}, "region": {"type": "string"}},
        "query": {"ids": "{ids}", "region": "{region}"},
    }
    shards = {"by": "values", "param": "region", "values": ["north", "south"]}
    fields = {"request": request, "shards": shards, "total": {"type": "body", "path": "matching"}}
    fields["max_repeated_rows"] = None
    world.add(declared("/select", **fields, batch_size=50, page_size=10))
    task = world.task(world.collect(params={"ids": "3,4"}))
    assert (task["status"], landed(world)) == ("COMPLETED", [3, 3, 4, 4])
    task = world.task(world.collect(params={"ids": ",".join(map(str, range(25)))}))
    assert task["status"] == "DEAD"
    assert task["error"]["class"] == "EqualPage"
    assert "region" in task["reason"]


def expired(world: World, server: QuirkyServer, disposition: str) -> tuple[int, str]:
    """A task whose stream stopped behind its second page, and whose cursor expires before it goes on."""
    world.add(declared("/scroll", **CURSOR, target=target(disposition)))
    server.fail_where(goes_on(server), Failure(status=500))
    task_id, run_id = start(world, force=True)
    asyncio.run(side_by_side(world, run_id, plan_groups(world, run_id)))
    server.mend()
    server.expire()
    return task_id, run_id


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_a_shard_whose_cursor_has_expired_begins_anew(
    world: World, server: QuirkyServer, disposition: str
) -> None:
    task_id, run_id = expired(world, server, disposition)
    assert finish(world, run_id, task_id) == "COMPLETED"
    assert_exact(world, 45)
    task = world.task(task_id)
    assert task["result"]["restarts"] == 1
    assert (task["result"]["rows_fetched"], task["result"]["pages"]) == (45, 5)
    traces = world.rows("SELECT error FROM collect.trace WHERE response ? 'begins_anew'")
    assert [trace["error"]["class"] for trace in traces] == ["ResumeRefused"]


def test_it_begins_anew_once_only(world: World, server: QuirkyServer) -> None:
    task_id, run_id = expired(world, server, "append")
    # Begun anew, it stops at the same place, and its cursor expires again.
    server.fail_where(goes_on(server), Failure(status=500))
    world.finish(run_id)
    run_id = claim_next(world)
    asyncio.run(side_by_side(world, run_id, plan_groups(world, run_id)))
    server.mend()
    server.expire()
    assert finish(world, run_id, task_id) == "DEAD"
    task = world.task(task_id)
    assert (task["error"]["class"], task["result"]["restarts"]) == ("PageNotThere", 1)
    assert "404" in task["reason"]
    # Who redrives it gives it another chance.
    redrive(world, task_id)
    assert world.task(task_id)["status"] == "COMPLETED"
    assert_exact(world, 45)


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_a_redriven_shard_whose_cursor_has_expired_begins_anew(
    world: World, server: QuirkyServer, disposition: str
) -> None:
    world.add(declared("/scroll", **CURSOR, target=target(disposition)))
    server.fail_where(goes_on(server), Failure(status=404))
    task_id = world.collect(force=True)
    assert world.task(task_id)["status"] == "DEAD"
    server.mend()
    server.expire()
    redrive(world, task_id)
    task = world.task(task_id)
    assert (task["status"], task["result"]["restarts"]) == ("COMPLETED", 1)
    assert_exact(world, 45)


def redrive(world: World, task_id: int) -> None:
    assert sent_again(world, ids=letters_of(world, [task_id])).done == 1
    world.run(claim_next(world))
