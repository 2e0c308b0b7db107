"""The engine on real services: what lands, what resumes, what is fenced off."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
import redis

from collect_ops.delivery.intervene import cancel
from collect_ops.storage import connect
from tests.plugins.integration.world import World, source
from tests.servers.paged import Failure, PagedServer

Serve = Callable[..., PagedServer]


def landed(world: World, table: str = "things") -> list[int]:
    """The ids that landed, each as often as it is there."""
    return sorted(row["id"] for row in world.rows(f"SELECT id FROM landing.{table}"))


def open_things(world: World) -> int:
    """Shard groups that hold a slot, and leases."""
    groups = world.rows("SELECT count(*) AS n FROM collect.shard_group WHERE status = 'OPEN'")[0]["n"]
    client = redis.Redis.from_url(world.backends.redis_url)
    leases = len(list(client.scan_iter("collect:lease:*")))
    client.close()
    return groups + leases


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


@pytest.mark.parametrize("disposition", ["append", "merge", "replace"])
def test_collecting_twice_leaves_what_the_disposition_says(
    world: World, serve: Serve, disposition: str
) -> None:
    server = serve(rows=230)
    key = {"key": ["id"]} if disposition == "merge" else {}
    target = {"table": "things", "disposition": disposition, "columns": {"id": {"type": "bigint"}}, **key}
    world.add(source(target=target))
    world.serve_from(server.base_url)
    world.collect()
    server.rows = 250
    world.collect(force=True)
    once = list(range(250))
    assert landed(world) == (sorted([*range(230), *once]) if disposition == "append" else once)


def test_a_failed_shard_alone_runs_again_and_resumes(world: World, serve: Serve) -> None:
    server = serve(rows=300)
    world.add(source(batch_size=300, page_size=50, limits={"concurrency": 1}))
    world.serve_from(server.base_url)
    admission = world.submit()
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    fail_after(server, len(server.asked("/offset")) + 3)
    asyncio.run(world.group(run_id, 0))
    world.finish(run_id)
    task = world.task(admission.task_id)
    assert task["status"] == "RETRYING", task["reason"]
    assert (task["generation"], task["retry_count"]) == (2, 1)
    assert task["due_at"] is not None
    progress = world.rows("SELECT rows_fetched FROM collect.shard")[0]["rows_fetched"]
    assert 0 < progress < 300
    server.requests.clear()
    world.run(asyncio.run(until_claimed(world)))
    assert world.task(admission.task_id)["status"] == "COMPLETED"
    assert landed(world) == list(range(300))
    assert min(int(request.query["offset"]) for request in server.asked("/offset")) == progress


def wait_until_running(world: World) -> None:
    """Return when a shard has been taken."""
    deadline = time.monotonic() + 20
    while not world.rows("SELECT 1 FROM collect.shard WHERE status = 'RUNNING'"):
        assert time.monotonic() < deadline, "no shard was taken within 20 s"
        time.sleep(0.05)


def fail_after(server: PagedServer, requests: int) -> None:
    """The request after so many fails, once."""

    def watch() -> None:
        while len(server.asked("/offset")) < requests:
            time.sleep(0.001)
        server.fail_next("/offset", Failure(status=503))

    threading.Thread(target=watch, daemon=True).start()


async def until_claimed(world: World) -> str:
    """The retry's message comes back through its rung of the ladder."""
    for _ in range(100):
        claimed = world.claim()
        if claimed.runs:
            return claimed.runs[0].run_id
        await asyncio.sleep(0.1)
    raise AssertionError("the retry did not come back to its lane within 10 s")


def test_a_permanent_error_is_dead_at_once(world: World, serve: Serve) -> None:
    server = serve(rows=100)
    world.add(source(request={"path": "/html"}, total={"type": "unknown"}))
    world.serve_from(server.base_url)
    task = world.task(world.collect())
    assert task["status"] == "DEAD"
    assert "not JSON" in task["reason"] or "text/html" in task["reason"], task["reason"]
    letters = world.rows("SELECT error_message, retry_count FROM collect.dead_letter")
    assert len(letters) == 1
    assert letters[0]["retry_count"] == 0


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


def test_a_holder_that_slept_is_fenced_off(world: World, serve: Serve) -> None:
    """Its lease expires while its page is under way; another run takes the shard, finishes it, and the sleeper's page,
    which arrives afterwards, does not land."""
    server = serve(rows=50)
    world.add(source(batch_size=50, page_size=50))
    world.serve_from(server.base_url)
    admission = world.submit()
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    server.fail_next(
        "/offset", Failure(delay_s=2.5, status=200, body=b'{"rows": [{"id": 666}], "total": 50}')
    )

    async def both() -> tuple[object, object]:
        sleeper = asyncio.create_task(world.group(run_id, 0, lease_s=0.6, wait_s=0.2))
        await asyncio.to_thread(wait_until_running, world)
        redis.Redis.from_url(world.backends.redis_url).flushdb()
        second = await world.group(run_id, 0, lease_s=30, wait_s=0.2)
        return await sleeper, second

    sleeper, second = asyncio.run(both())
    assert second.done == 1  # type: ignore[attr-defined]
    assert sleeper.done == 0  # type: ignore[attr-defined]
    assert sleeper.fenced == 1  # type: ignore[attr-defined]
    world.finish(run_id)
    assert world.task(admission.task_id)["status"] == "COMPLETED"
    assert landed(world) == list(range(50))
    assert open_things(world) == 0


def test_nothing_lands_after_cancel(world: World, serve: Serve) -> None:
    server = serve(rows=100)
    world.add(source(batch_size=100, page_size=50, limits={"concurrency": 1}))
    world.serve_from(server.base_url)
    admission = world.submit()
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    server.fail_next("/offset", Failure(delay_s=1.5, status=200, body=b'{"rows": [{"id": 1}], "total": 100}'))

    async def cancel_in_flight() -> None:
        running = asyncio.create_task(world.group(run_id, 0))
        await asyncio.to_thread(wait_until_running, world)
        done = await asyncio.to_thread(
            cancel, [admission.task_id], world.backends, world.rules, actor="test", reason="enough"
        )
        assert done.moved == (admission.task_id,)
        result = await running
        assert result.fenced == 1

    asyncio.run(cancel_in_flight())
    world.finish(run_id)
    task = world.task(admission.task_id)
    assert (task["status"], task["reason"]) == ("CANCELLED", "enough")
    assert landed(world) == []
    assert open_things(world) == 0


def test_the_same_group_twice_at_once_lands_every_row_once(world: World, serve: Serve) -> None:
    """What a scheduler's crash can do: a group starts again beside its surviving process."""
    server = serve(rows=600)
    target = {"table": "things", "disposition": "append", "columns": {"id": {"type": "bigint"}}}
    world.add(source(target=target))
    world.serve_from(server.base_url)
    admission = world.submit()
    run_id = world.claim().runs[0].run_id
    groups = [ref.group_no for ref in world.plan(run_id).groups]

    async def twice() -> None:
        await asyncio.gather(*(world.group(run_id, number) for number in (*groups, *groups)))

    asyncio.run(twice())
    world.finish(run_id)
    assert world.task(admission.task_id)["status"] == "COMPLETED"
    assert landed(world) == list(range(600))
    assert open_things(world) == 0


def test_a_database_that_drops_its_connections_is_waited_for(world: World, serve: Serve) -> None:
    server = serve(rows=1000)
    world.add(source())
    world.serve_from(server.base_url)
    admission = world.submit()
    run_id = world.claim().runs[0].run_id
    groups = [ref.group_no for ref in world.plan(run_id).groups]

    async def with_drops() -> None:
        running = [asyncio.create_task(world.group(run_id, number)) for number in groups]
        for _ in range(3):
            await asyncio.sleep(0.1)
            with connect(world.backends.postgres_dsn, application_name="test killer") as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name LIKE %s",
                    (f"collect-ops {run_id}/%",),
                )
        await asyncio.gather(*running)

    asyncio.run(with_drops())
    world.finish(run_id)
    assert world.task(admission.task_id)["status"] == "COMPLETED"
    assert landed(world) == list(range(1000))


def test_without_redis_the_work_goes_on(world: World, serve: Serve) -> None:
    from dataclasses import replace

    server = serve(rows=200)
    world.add(source())
    world.serve_from(server.base_url)
    world.backends = replace(world.backends, redis_url="redis://127.0.0.1:1/0")
    task_id = world.collect()
    assert world.task(task_id)["status"] == "COMPLETED"
    assert landed(world) == list(range(200))


def test_too_many_bad_rows_fail_even_on_the_last_page(world: World, serve: Serve) -> None:
    server = serve(rows=20)
    target = {"table": "things", "disposition": "append", "columns": {"name": {"type": "integer"}}}
    world.add(source(target=target, max_bad_rows=5))
    world.serve_from(server.base_url)
    task = world.task(world.collect())
    assert task["status"] == "DEAD"
    assert "max_bad_rows is 5" in task["reason"]
    assert world.rows("SELECT count(*) AS n FROM collect.bad_row")[0]["n"] == 20


def test_bad_rows_are_kept_and_do_not_fail_the_shard(world: World, serve: Serve) -> None:
    server = serve(rows=20)
    target = {"table": "things", "disposition": "append", "columns": {"name": {"type": "integer"}}}
    world.add(source(target=target))
    world.serve_from(server.base_url)
    task = world.task(world.collect())
    assert task["status"] == "COMPLETED"
    assert task["result"]["bad_rows"] == 20
    kept = world.rows("SELECT reason, row_text FROM collect.bad_row ORDER BY ordinal LIMIT 1")[0]
    assert "name" in kept["reason"]
    assert "row 0" in kept["row_text"]


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
