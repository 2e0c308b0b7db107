"""Similar tasks that wait become one; every caller gets the outcome and its own rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from collect_ops.admission.model import Admission
from collect_ops.broker.publisher import Publisher
from collect_ops.delivery import merging, outbox
from collect_ops.delivery.intervene import cancel
from collect_ops.storage import Connection
from collect_ops.tasks.lifecycle import TaskStatus
from collect_ops.tasks.waiting import TaskEnds
from tests.factories import list_source, range_source
from tests.plugins.integration.world import World
from tests.servers.paged import Failure, PagedServer

SOON = datetime(2031, 1, 1, tzinfo=UTC)


@pytest.fixture
def server(world: World, serve: Callable[..., PagedServer]) -> PagedServer:
    world.add(list_source())
    started = serve(rows=1000)
    world.serve_from(started.base_url)
    return started


def ids(first: int, last: int) -> str:
    return ",".join(map(str, range(first, last + 1)))


def admit(world: World, *wanted: str, **fields: Any) -> list[Admission]:
    answers = world.service().admit_batch([world.submission(params={"ids": one}, **fields) for one in wanted])
    assert all(isinstance(answer, Admission) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Admission)]


def statuses(world: World, *answers: Admission) -> list[str]:
    return [world.task(answer.task_id)["status"] for answer in answers]


def end_of(world: World, answer: Admission) -> tuple[str, int]:
    async def wait() -> tuple[str, int]:
        end = await asyncio.wait_for(TaskEnds(world.backends.postgres_dsn).wait(answer.task_id), 10)
        return end.status, end.rows_landed

    return asyncio.run(wait())


def test_a_batch_becomes_one_task_and_each_caller_gets_its_rows(world: World, server: PagedServer) -> None:
    first, second, third = admit(world, ids(1, 10), ids(8, 20), "500,7000")
    assert [first.merged_into, second.merged_into, third.merged_into] == [None, *[first.task_id] * 2]
    assert second.sentence() == f"task {second.task_id} admitted, merged into task {first.task_id}"
    world.claim_and_run()
    assert statuses(world, first, second, third) == ["COMPLETED"] * 3
    assert len({one.query["ids"] for one in server.asked("/select")}) == 1, "counted and fetched as one"
    assert [end_of(world, one) for one in (first, second, third)] == [
        ("COMPLETED", 10),
        ("COMPLETED", 13),  # three of them were asked for by both, and count for both
        ("COMPLETED", 1),  # there is no row 7000
    ]
    survivor = world.task(first.task_id)
    assert survivor["merged_task_ids"] == [second.task_id, third.task_id]
    assert survivor["result"]["rows_landed"] == 21
    assert survivor["result"]["shares"] == {str(second.task_id): 13, str(third.task_id): 1}
    assert world.task(second.task_id)["result"]["collected_by"] == first.task_id
    assert len(world.rows("SELECT * FROM landing.things")) == 21


def test_what_comes_later_joins_what_waits(world: World, server: PagedServer) -> None:
    (first,) = admit(world, "1,2", priority=4, deadline=SOON + timedelta(days=1))
    (second,) = admit(world, "3", priority=9, deadline=SOON)
    assert second.merged_into == first.task_id
    row = world.task(first.task_id)
    assert (row["params"]["ids"], row["own_params"]["ids"]) == ("1,2,3", "1,2")
    assert (row["priority"], row["lane"], row["generation"]) == (9, "urgent", 2)
    assert row["deadline"] == SOON
    assert world.claim("normal").stale == 1, "the message of the first generation"
    world.claim_and_run("urgent")
    assert [end_of(world, one) for one in (first, second)] == [("COMPLETED", 2), ("COMPLETED", 1)]


def test_ranges_that_touch_are_collected_once(world: World, serve: Callable[..., PagedServer]) -> None:
    server = serve(rows=1000)
    world.add(range_source())
    world.serve_from(server.base_url)
    spans = [(1, 10), (11, 20), (15, 40), (60, 70)]
    answers = world.service().admit_batch(
        [world.submission(params={"first": first, "last": last}) for first, last in spans]
    )
    world.claim_and_run()
    asked = [(one.query["first"], one.query["last"]) for one in server.asked("/select")]
    assert set(asked) == {("1", "40"), ("60", "70")}
    ends = [end_of(world, answer) for answer in answers if isinstance(answer, Admission)]
    assert ends == [("COMPLETED", 10), ("COMPLETED", 10), ("COMPLETED", 26), ("COMPLETED", 11)]


def test_what_was_claimed_is_left_alone(world: World, server: PagedServer) -> None:
    (first,) = admit(world, "1")
    world.claim()
    (second,) = admit(world, "2")
    assert second.merged_into is None
    assert statuses(world, first, second) == ["CLAIMED", "QUEUED"]


def test_a_window_that_has_passed_is_closed(world: World, server: PagedServer) -> None:
    admit(world, "1")
    world.rows("UPDATE collect.task SET created_at = now() - interval '61 seconds' RETURNING id")
    (second,) = admit(world, "2")
    assert second.merged_into is None


def test_a_merged_task_holds_its_dedup_key(world: World, server: PagedServer) -> None:
    _, second = admit(world, "1", "2")
    (again,) = admit(world, "2")
    assert (again.duplicate_of, again.status) == (second.task_id, "MERGED")
    world.claim_and_run()
    (again,) = admit(world, "2")
    assert (again.duplicate_of, again.status) == (second.task_id, "COMPLETED")


def test_survivors_merge_with_each_other_and_take_their_own_along(
    world: World, serve: Callable[..., PagedServer]
) -> None:
    world.add(range_source())
    world.serve_from(serve(rows=1000).base_url)

    def admit_range(first: int, last: int) -> Admission:
        return world.submit(params={"first": first, "last": last})

    low, low_more, high, high_more = (admit_range(*span) for span in ((1, 5), (6, 9), (20, 25), (26, 29)))
    assert [low_more.merged_into, high.merged_into, high_more.merged_into] == [
        low.task_id,
        None,
        high.task_id,
    ]
    bridge = admit_range(10, 19)
    assert bridge.merged_into == low.task_id
    merged = world.rows(
        "SELECT id, merged_into, params FROM collect.task WHERE status = 'MERGED' ORDER BY id"
    )
    assert {row["merged_into"] for row in merged} == {low.task_id}
    assert next(row for row in merged if row["id"] == high.task_id)["params"] == {"first": 20, "last": 25}
    world.claim_and_run()
    ends = [end_of(world, one) for one in (low, low_more, high, high_more, bridge)]
    assert ends == [("COMPLETED", rows) for rows in (5, 4, 6, 4, 10)]


def test_one_caller_cancels_and_the_others_get_their_rows(world: World, server: PagedServer) -> None:
    first, second, third = admit(world, "1,2", "3,4", "5,6")
    done = cancel([second.task_id], world.backends, world.rules, actor="test", reason="enough")
    assert (done.moved, done.withdrawn) == ((second.task_id,), ())
    assert world.task(first.task_id)["params"]["ids"] == "1,2,5,6", "nobody wants 3 and 4 any more"
    world.claim_and_run()
    assert statuses(world, first, second, third) == ["COMPLETED", "CANCELLED", "COMPLETED"]
    assert len(world.rows("SELECT * FROM landing.things")) == 4


def test_the_survivors_own_caller_cancels_and_the_work_goes_on(world: World, server: PagedServer) -> None:
    first, second = admit(world, "1,2", "2,3")
    done = cancel([first.task_id], world.backends, world.rules, actor="test", reason="enough")
    assert (done.moved, done.withdrawn) == ((first.task_id,), (first.task_id,))
    assert world.task(first.task_id)["params"]["ids"] == "2,3"
    log = world.rows("SELECT reason, actor FROM collect.task_log WHERE task_id = %s", first.task_id)
    assert log[-1] == {"reason": "enough", "actor": "test"}
    world.claim_and_run()
    assert statuses(world, first, second) == ["CANCELLED", "COMPLETED"]
    assert end_of(world, second) == ("COMPLETED", 2)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_work_stops_when_no_caller_is_left(world: World, server: PagedServer, order: tuple[int, ...]) -> None:
    answers = admit(world, "1", "2", "3")
    for index in order:
        assert world.task(answers[0].task_id)["status"] != "CANCELLED"
        cancel([answers[index].task_id], world.backends, world.rules, actor="test", reason="enough")
    assert statuses(world, *answers) == ["CANCELLED"] * 3
    assert world.claim().claimed == 0


def test_all_callers_at_once(world: World, server: PagedServer) -> None:
    answers = admit(world, "1", "2", "3")
    named = [answer.task_id for answer in answers]
    assert cancel(named, world.backends, world.rules, actor="test", reason="enough").moved == tuple(named)
    assert statuses(world, *answers) == ["CANCELLED"] * 3


def test_a_running_survivor_is_withdrawn_and_lands_for_the_others(world: World, server: PagedServer) -> None:
    first, second = admit(world, "1,2", "3")
    held = server.hold_where(lambda request: request.path == "/select")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(world.claim_and_run)
        held.wait()
        cancel([first.task_id], world.backends, world.rules, actor="test", reason="enough")
        held.release()
        running.result(20)
    assert statuses(world, first, second) == ["CANCELLED", "COMPLETED"]


def test_a_survivor_that_dies_takes_the_others_along_and_frees_all_keys(
    world: World, server: PagedServer
) -> None:
    first, second = admit(world, "1", "2")
    server.fail_next("/select", *[Failure(status=404)] * 5)
    world.claim_and_run()
    assert statuses(world, first, second) == ["DEAD", "DEAD"]
    reason = world.task(second.task_id)["reason"]
    assert reason.startswith(f"collected by task {first.task_id}: ")
    assert "404" in reason
    server.mend()
    again = admit(world, "1", "2")
    assert all(one.duplicate_of is None for one in again)


def test_a_retry_keeps_the_others_waiting(world: World, server: PagedServer) -> None:
    first, second = admit(world, "1", "2")
    server.fail_next("/select", Failure(status=503))
    world.claim_and_run()
    assert statuses(world, first, second) == ["RETRYING", "MERGED"]


def test_racing_submitters_lose_nobody(world: World, server: PagedServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: admit(world, str(number))[0], range(40)))
    merging.run_once(world.backends, world.rules, actor="test")
    waiting = world.rows("SELECT id, params FROM collect.task WHERE status = 'QUEUED'")
    asked = [one for row in waiting for one in row["params"]["ids"].split(",")]
    assert sorted(asked, key=int) == [str(number) for number in range(40)]
    assert len(waiting) < 40
    while world.claim_and_run():
        pass
    assert {end_of(world, answer) for answer in answers} == {("COMPLETED", 1)}


def test_the_pass_joins_what_an_admission_could_not_see(
    world: World, server: PagedServer, db: Connection
) -> None:
    (first,) = admit(world, "1")
    with db.transaction():  # a claim or another admission has the first one in hand
        db.execute("SELECT FROM collect.task FOR UPDATE")
        (second,) = admit(world, "2")
    assert statuses(world, first, second) == ["QUEUED", "QUEUED"]
    done = merging.run_once(world.backends, world.rules, actor="test")
    assert (done.merged, done.lanes) == (1, {"normal"})
    assert merging.run_once(world.backends, world.rules, actor="test").merged == 0
    world.claim_and_run()
    assert [end_of(world, one) for one in (first, second)] == [("COMPLETED", 1)] * 2


def test_a_broker_that_is_away_loses_no_merge(world: World, server: PagedServer, db: Connection) -> None:
    away = replace(world.backends, amqp_url="amqp://guest:guest@127.0.0.1:1/none")
    answers = world.service(away).admit_batch([world.submission(params={"ids": one}) for one in ("1", "2")])
    assert [one.status for one in answers if isinstance(one, Admission)] == [
        TaskStatus.QUEUED,
        TaskStatus.MERGED,
    ]
    with Publisher(world.backends.amqp_url) as publisher:
        assert outbox.run_once(db, publisher, world.rules, older_than_s=0).confirmed == 1
    world.claim_and_run()
    assert [end_of(world, one) for one in answers if isinstance(one, Admission)] == [("COMPLETED", 1)] * 2


def test_a_dry_run_tells_all_of_it_and_changes_nothing(world: World, server: PagedServer) -> None:
    (waiting,) = admit(world, "1,2")
    before = world.rows("SELECT * FROM collect.task")
    batch = [
        world.submission(params={"ids": "1,2"}),
        world.submission(params={"ids": "3"}, priority=9),
        world.submission(params={"ids": "3"}),
        world.submission(params={"ids": "5"}, priority=11),
        world.submission(params={"ids": "6", "region": "north"}, request_id="r6"),
        world.submission(params={"ids": "7", "region": "north"}),
    ]
    answers = world.service().preview(batch)
    told = [str(answer) if isinstance(answer, Exception) else answer.sentence() for answer in answers]
    assert told[0].startswith(f"would be refused as a duplicate of task {waiting.task_id}, now QUEUED")
    assert told[1] == f"would be merged into task {waiting.task_id}, now QUEUED, at priority 9, lane urgent"
    assert told[2] == f"would be refused as a duplicate of submission {batch[1].request_id}"
    assert "priority" in told[3]
    assert told[4] == "would be admitted at priority 5, lane normal"
    assert told[5] == "would be merged into submission r6, at priority 5, lane normal"
    assert world.rows("SELECT * FROM collect.task") == before
    (third,) = admit(world, "3")
    assert third.known is False
