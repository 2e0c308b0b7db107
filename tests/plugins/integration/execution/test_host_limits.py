"""Hosts under real groups: limits that processes share, pauses, quotas, a host that dies in the middle of a task."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import redis

from collect_ops.coordination import keys
from collect_ops.delivery import repair
from collect_ops.lanes.why import why
from collect_ops.storage import Connection, Jsonb
from tests.plugins.integration.execution import killed_group
from tests.plugins.integration.execution.checks import (
    assert_exact,
    committed,
    finish,
    plan_groups,
    publish_overdue,
    side_by_side,
    start,
    target,
    while_running,
)
from tests.plugins.integration.execution.own_redis import OwnRedis
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source
from tests.servers.paged import Failure, PagedServer, pages_only

Serve = Callable[..., PagedServer]


def released(world: World) -> int:
    return repair.run_once(world.backends, world.rules, world.runs, actor="test").released


def held_time_passes(world: World) -> None:
    """Whatever holds a host has passed."""
    world.rows(
        "UPDATE collect.host SET held_until = held_until - interval '2 hours', "
        "paused_until = paused_until - interval '2 days' RETURNING connection"
    )
    world.rows(
        "UPDATE collect.endpoint SET held_until = held_until - interval '2 hours' RETURNING connection"
    )
    world.rows("UPDATE collect.host_quota SET day = day - 1 RETURNING connection")


def go_on(world: World, task_id: int, rounds: int = 4) -> str:
    """Release and run until the task has ended; returns how."""
    for _ in range(rounds):
        if world.task(task_id)["finished_at"] is not None:
            break
        released(world)
        publish_overdue(world)
        world.claim_and_run()
    return str(world.task(task_id)["status"])


def pages(server: PagedServer, limit: int = 50) -> list[float]:
    """When each page was asked for."""
    pages = filter(pages_only(), server.asked("/offset"))
    return [request.at for request in pages if request.query.get("limit") == str(limit)]


def test_two_groups_in_two_processes_share_a_rate(world: World, serve: Serve) -> None:
    rate = 10.0
    server = serve(rows=1000)
    world.add(source(target=target("append"), limits={"concurrency": 4, "requests_per_s": rate}))
    world.serve_from(server.base_url)
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    assert len(groups) == 2
    processes = [killed_group.start(killed_group.work_of(world, run_id, number)) for number in groups]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    world.finish(run_id)
    assert world.task(task_id)["status"] == "COMPLETED"
    assert_exact(world, 1000)
    at = sorted(pages(server))
    assert len(at) == 20
    assert at[-1] - at[0] >= 19 / rate * 0.95, "together no faster than the rate"
    assert server.most_under_way <= 4


def test_two_tasks_together_keep_to_a_host_s_concurrency(world: World, serve: Serve) -> None:
    server = serve(rows=200)
    world.add(source(target=target("append"), limits={"concurrency": 2}))
    world.serve_from(server.base_url)
    first, first_run = start(world, params={"day": "a"})
    second, second_run = start(world, params={"day": "b"})
    groups = [(run, number) for run in (first_run, second_run) for number in plan_groups(world, run)]

    async def run_all() -> None:
        await asyncio.gather(*(world.group(run, number) for run, number in groups))

    server.most_under_way = 0
    asyncio.run(run_all())
    for run in (first_run, second_run):
        world.finish(run)
    assert {world.task(one)["status"] for one in (first, second)} == {"COMPLETED"}
    assert server.most_under_way <= 2


def test_an_answer_of_429_slows_the_other_process(world: World, serve: Serve) -> None:
    server = serve(rows=1000)
    world.add(
        source(
            target=target("append"),
            limits={"concurrency": 4, "requests_per_s": 40},
            retries={"http_attempts": 3, "http_max_backoff_s": 5},
        )
    )
    world.serve_from(server.base_url)
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    processes = [killed_group.start(killed_group.work_of(world, run_id, number)) for number in groups]
    until(lambda: len(pages(server)) >= 6, "both are at work")
    server.fail_next("/offset", Failure(status=429, headers={"Retry-After": "2"}))
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    world.finish(run_id)
    assert world.task(task_id)["status"] == "COMPLETED"
    assert world.task(task_id)["retry_count"] == 0
    assert_exact(world, 1000)
    longest = max(b - a for a, b in pairwise(sorted(pages(server))))
    assert longest >= 1.7, "nobody has asked meanwhile"


def test_a_header_that_says_nothing_is_left_pauses_the_host(
    world: World, serve: Serve, db: Connection
) -> None:
    """Longer than a request waits: the attempt ends, and goes on when the window begins anew."""
    server = serve(rows=400)
    headers = {"RateLimit": '"hour";r=0;t=3000', "Content-Type": "application/json"}
    world.add(source(target=target("append"), limits={"concurrency": 1}))
    world.serve_from(server.base_url)
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    server.fail_next("/offset", Failure(status=200, headers=headers, body=b'{"rows": [], "total": 400}'))
    asyncio.run(side_by_side(world, run_id, groups))
    world.finish(run_id)
    task = world.task(task_id)
    assert (task["status"], task["retry_count"], task["lost_count"]) == ("HELD", 0, 0)
    assert "it has no request left" in task["reason"]
    told = " ".join(why(db, world.rules, task_id).sentences)
    assert "the host of connection things_api is paused (it has no request left for 3000 s)" in told
    assert released(world) == 0
    asked = len(server.requests)
    late = world.submit(params={"day": "late"})
    world.claim()
    assert world.task(late.task_id)["status"] == "HELD"
    assert len(server.requests) == asked
    client = redis.Redis.from_url(world.backends.redis_url)
    client.flushdb()  # the pause in Redis is over, too
    client.close()
    held_time_passes(world)
    # The page that was empty ended its shard: what is compared is what became of the task.
    assert go_on(world, task_id) in ("COMPLETED", "PARTIAL")
    assert go_on(world, late.task_id) == "COMPLETED"


@pytest.mark.parametrize("status", [0, 500])
def test_a_host_that_dies_in_the_middle_defers_its_task(world: World, serve: Serve, status: int) -> None:
    server = serve(rows=2000)
    world.add(source(target=target("merge"), limits={"concurrency": 4}, retries={"http_attempts": 2}))
    world.serve_from(server.base_url)
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    died = threading.Event()
    server.fail_where(
        lambda _: died.is_set(), Failure(reset_after=20) if status == 0 else Failure(status=status)
    )

    def die() -> None:
        committed(world, 600)
        died.set()

    asyncio.run(while_running(side_by_side(world, run_id, groups), die))
    world.finish(run_id)
    task = world.task(task_id)
    assert (task["status"], task["retry_count"], task["lost_count"]) == ("HELD", 0, 0)
    assert "circuit of source things at connection things_api is open" in task["reason"]
    asked = len(server.requests)
    assert released(world) == 0
    done = world.rows("SELECT count(*) AS n FROM collect.shard WHERE status = 'DONE'")[0]["n"]
    assert 6 <= done < 20
    died.clear()
    held_time_passes(world)
    assert len(server.requests) == asked, "nobody asks a host that is held"
    assert go_on(world, task_id) == "COMPLETED"
    task = world.task(task_id)
    assert (task["retry_count"], task["lost_count"], task["attempt"]) == (0, 0, 2)
    assert_exact(world, 2000)
    for circuits in ("host", "endpoint"):
        assert world.rows(f"SELECT held_until FROM collect.{circuits}") == [{"held_until": None}]


def test_a_request_under_way_at_a_host_that_is_held_is_cut_off(world: World, serve: Serve) -> None:
    """A worker does not wait out a time-out at a host that others know to be dead."""
    server = serve(rows=400)
    world.add(source(target=target("append"), limits={"concurrency": 4}))
    world.serve_from(server.base_url)
    task_id, run_id = start(world)
    (first, *_) = groups = plan_groups(world, run_id)
    holds = [server.hold_where(lambda request: request.query.get("limit") == "50") for _ in range(4)]

    def another_opens_it() -> None:
        for held in holds:
            held.wait()
        world.rows(
            "INSERT INTO collect.host (connection, holds, since, held_until, last_error) "
            "VALUES ('things_api', 1, now(), now() + interval '1 hour', 'dead') RETURNING connection"
        )

    began = time.monotonic()
    results = asyncio.run(while_running(side_by_side(world, run_id, groups), another_opens_it))
    assert time.monotonic() - began < 15, "not the thirty seconds of timeouts.read_s"
    assert sum(result.deferred for result in results) == 4
    assert first == groups[0]
    world.finish(run_id)
    assert world.task(task_id)["status"] == "HELD"
    for held in holds:
        held.release()
    held_time_passes(world)
    assert go_on(world, task_id) == "COMPLETED"
    assert_exact(world, 400)


def test_a_killed_probe_is_followed_by_another(world: World, serve: Serve) -> None:
    """The process that was to find out dies: the sweep lets the next one through when its time has passed."""
    server = serve(rows=10)
    world.add(source(target=target("append")))
    world.rows(
        "INSERT INTO collect.host (connection, holds, since, held_until) "
        "VALUES ('things_api', 1, now(), now() - interval '1 s') RETURNING connection"
    )
    world.serve_from(server.base_url)
    killed, other = world.submit(params={"day": "a"}), world.submit(params={"day": "b"})
    claimed = world.claim()
    assert (claimed.claimed, claimed.held) == (1, 1)
    # It is killed: nobody runs what was claimed.
    assert released(world) == 0
    world.rows("UPDATE collect.host SET held_until = now() RETURNING connection")
    assert released(world) == 1
    world.claim_and_run()
    assert world.task(other.task_id)["status"] == "COMPLETED"
    assert world.task(killed.task_id)["status"] == "CLAIMED"


def test_a_quota_is_exact_though_groups_are_killed(world: World, serve: Serve, db: Connection) -> None:
    quota = 30
    server = serve(rows=2000)
    world.add(source(target=target("append"), limits={"concurrency": 4, "daily_quota": quota}))
    world.serve_from(server.base_url)
    task_id, run_id = start(world)
    groups = plan_groups(world, run_id)
    victim = killed_group.start(killed_group.work_of(world, run_id, groups[0]))
    until(lambda: len(pages(server)) >= 4, "it is at work")
    victim.kill()
    victim.join(10)
    asyncio.run(side_by_side(world, run_id, groups))
    assert len(server.requests) <= quota
    world.finish(run_id)
    assert len(server.requests) >= quota - 4, "a killed process loses a block, blocks are small near the end"
    task = world.task(task_id)
    assert (task["status"], task["retry_count"], task["lost_count"]) == ("HELD", 0, 0)
    assert f"its quota of {quota} requests a day is used up" in task["reason"]
    assert "00:00:00 UTC" in task["reason"]
    assert "it goes on at" in " ".join(why(db, world.rules, task_id).sentences)
    client = redis.Redis.from_url(world.backends.redis_url)
    client.flushdb()
    client.close()
    asked = len(server.requests)
    released(world)
    world.claim_and_run()
    assert len(server.requests) == asked, "a flush gives nobody a request more"
    for day in range(4):
        held_time_passes(world)
        before = len(server.requests)
        if go_on(world, task_id, rounds=1) == "COMPLETED":
            break
        assert len(server.requests) - before <= quota, day
    assert world.task(task_id)["status"] == "COMPLETED"
    assert world.task(task_id)["retry_count"] == 0
    assert_exact(world, 2000)


def test_redis_flushed_and_killed_in_the_middle_costs_no_rows(
    world: World, serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The groups go on with their own share of the limits, and say so once."""
    with OwnRedis(tmp_path) as owned:
        world.backends = replace(world.backends, redis_url=owned.url)
        server = serve(rows=1500)
        limits = {"concurrency": 4, "requests_per_s": 50, "daily_quota": 1000}
        world.add(source(target=target("append"), limits=limits))
        world.serve_from(server.base_url)
        task_id, run_id = start(world)
        groups = plan_groups(world, run_id)

        def strike() -> None:
            committed(world, 200)
            client = redis.Redis.from_url(owned.url)
            client.flushall()
            client.close()
            committed(world, 500)
            owned.kill()

        asyncio.run(while_running(side_by_side(world, run_id, groups), strike))
        owned.start()
        assert finish(world, run_id, task_id) == "COMPLETED"
    assert_exact(world, 1500)
    told = [record for record in caplog.records if "keeps to its own share" in record.getMessage()]
    assert len(told) == 2, "once a group"
    at = sorted(pages(server))
    # A flush, and Redis that is away, forget the times that were given out: of as many requests as are sent at once.
    forgotten = 2 * limits["concurrency"] + len(groups)
    assert at[-1] - at[0] >= (len(at) - 1 - forgotten) / limits["requests_per_s"]


def test_what_was_put_back_in_an_earlier_attempt_excuses_no_later_loss(world: World, serve: Serve) -> None:
    server = serve(rows=400)
    world.add(source(target=target("append"), limits={"concurrency": 4}))
    world.serve_from(server.base_url)
    task_id, run_id = start(world)
    plan_groups(world, run_id)
    world.rows(
        "UPDATE collect.shard SET error = %s RETURNING task_id",
        Jsonb({"message": "host was held", "deferred": True}),
    )
    world.finish(run_id)
    assert (world.task(task_id)["status"], world.task(task_id)["lost_count"]) == ("QUEUED", 0), (
        "it was put back"
    )
    again = world.claim().runs[0].run_id
    world.plan(again)
    world.finish(again)  # its groups were killed
    task = world.task(task_id)
    assert (task["status"], task["lost_count"]) == ("QUEUED", 1)
    assert "shards unfinished" in task["reason"]


def test_a_moment_where_seconds_should_stand_is_read_as_one(world: World, serve: Serve) -> None:
    server = serve(rows=100)
    world.add(source(target=target("append")))
    world.serve_from(server.base_url)
    server.fail_next("/offset", Failure(status=429, headers={"Retry-After": f"{time.time() + 900:.0f}"}))
    _, run_id = start(world)
    plan_groups(world, run_id)
    world.finish(run_id)
    (pause,) = world.rows("SELECT paused_until - now() AS left FROM collect.host")
    assert pause["left"].total_seconds() == pytest.approx(900, abs=60)


def test_a_host_that_asks_for_years_is_asked_again_after_a_day(world: World, serve: Serve) -> None:
    server = serve(rows=100)
    world.add(source(target=target("append")))
    world.serve_from(server.base_url)
    server.fail_next("/offset", Failure(status=429, headers={"Retry-After": "999999999"}))
    _, run_id = start(world)
    plan_groups(world, run_id)
    world.finish(run_id)
    (pause,) = world.rows("SELECT paused_until - now() AS left FROM collect.host")
    assert pause["left"].total_seconds() == pytest.approx(86_400, abs=60)
    with redis.Redis.from_url(world.backends.redis_url) as client:
        hold_us = int(client.hget(keys.limiter("things_api")[0], "hold") or 0)  # type: ignore[arg-type]
        assert hold_us / 1e6 - time.time() == pytest.approx(86_400, abs=60)
