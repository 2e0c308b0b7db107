"""What a crash left over is found and brought on; what lives is left alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import redis

from collect_ops.broker.consumer import Consumer
from collect_ops.broker.publisher import Publisher
from collect_ops.delivery import outbox, repair
from collect_ops.delivery.repair import Repaired
from collect_ops.lanes.runs import RunState
from collect_ops.nodes.rules import placement_rules
from collect_ops.storage import Connection
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

Serve = Callable[..., PagedServer]


@pytest.fixture(autouse=True)
def declared(world: World, serve: Serve) -> None:
    world.add(source())
    world.serve_from(serve(rows=120).base_url)


def run_repair(world: World) -> Repaired:
    return repair.run_once(world.backends, world.rules, world.runs, actor="repair")


def age(db: Connection, seconds: int = 3600) -> None:
    """Everything happened so many seconds earlier."""
    for table, columns in (("task", ("progress_at", "queued_at")), ("shard", ("progress_at",))):
        for column in columns:
            db.execute(
                f"UPDATE collect.{table} SET {column} = {column} - make_interval(secs => %s)", (seconds,)
            )
    db.execute("UPDATE collect.shard_group SET opened_at = opened_at - make_interval(secs => %s)", (seconds,))


def finish(world: World) -> str:
    """Run what there is until nothing is claimed any more; the task's end."""
    for _ in range(5):
        if not world.claim_and_run():
            break
    return str(world.rows("SELECT status FROM collect.task")[0]["status"])


def test_a_claimed_task_without_a_run_gets_it(world: World, db: Connection) -> None:
    world.submit()
    run = world.claim().runs[0]
    world.runs.started.clear()
    world.runs.states.clear()
    age(db, 60)
    done = run_repair(world)
    assert (done.started, done.settled) == (1, 0)
    assert world.runs.started == {run.run_id: run.conf}
    world.run(run.run_id)
    assert world.task(1)["status"] == "COMPLETED"


def test_a_run_that_ended_and_settled_nothing_is_lost_and_runs_again(world: World, db: Connection) -> None:
    admission = world.submit()
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    world.runs.states[run_id] = RunState.ENDED
    age(db, 60)
    done = run_repair(world)
    assert done.settled == 1
    task = world.task(admission.task_id)
    assert (task["status"], task["generation"], task["lost_count"], task["retry_count"]) == (
        "QUEUED",
        2,
        1,
        0,
    )
    assert world.rows("SELECT count(*) AS n FROM collect.shard_group WHERE status = 'OPEN'")[0]["n"] == 0
    assert finish(world) == "COMPLETED"
    assert world.rows("SELECT count(*) AS n FROM landing.things")[0]["n"] == 120


def test_live_work_is_left_alone_even_after_a_flush(world: World, db: Connection) -> None:
    admission = world.submit()
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    client = redis.Redis.from_url(world.backends.redis_url)
    client.flushdb()
    client.close()
    before = world.task(admission.task_id)
    assert run_repair(world).settled == 0
    age(db, 120)
    assert run_repair(world) == replace(run_repair(world), settled=0, started=0)
    assert world.task(admission.task_id)["attempt"] == before["attempt"]
    assert world.task(admission.task_id)["status"] == "DISPATCHED"


def test_live_work_under_load_is_left_alone_by_every_pass_though_redis_is_flushed(
    world: World, db: Connection, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes without end, that take every task under way for a quiet one, and a flush before each of them."""
    monkeypatch.setattr(repair, "QUIET_S", 0.0)
    monkeypatch.setattr(repair, "GRACE_S", 0.0)
    world.serve_from(serve(rows=1000).base_url)
    world.add(source(limits={"requests_per_s": 10}))
    tasks = [world.submit(params={"day": str(number)}).task_id for number in range(4)]
    runs = [run.run_id for run in world.claim().runs]
    passes: list[Repaired] = []
    with ThreadPoolExecutor(4) as pool, redis.Redis.from_url(world.backends.redis_url) as client:
        running = [pool.submit(world.run, run_id) for run_id in runs]
        while not all(future.done() for future in running):
            client.flushdb()
            passes.append(run_repair(world))
        for future in running:
            future.result()
    assert len(passes) > 10
    assert {(done.started, done.republished) for done in passes} == {(0, 0)}
    rows = world.rows("SELECT id, status, attempt, lost_count, retry_count FROM collect.task ORDER BY id")
    assert [tuple(row.values()) for row in rows] == [(id_, "COMPLETED", 1, 0, 0) for id_ in tasks]
    assert world.rows("SELECT count(*) AS n FROM landing.things")[0]["n"] == 1000


def test_a_run_that_hangs_is_taken_from_and_fenced_off(world: World, db: Connection) -> None:
    admission = world.submit()
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    age(db, int(placement_rules().dispatch.hung_after_s) + 60)
    assert run_repair(world).settled == 1
    assert world.task(admission.task_id)["status"] == "QUEUED"
    late = asyncio.run(world.group(run_id, 0))
    assert late.skipped is not None
    assert finish(world) == "COMPLETED"


def test_a_claimed_task_whose_run_waits_is_not_hung(world: World, db: Connection) -> None:
    admission = world.submit()
    world.claim()
    age(db, int(placement_rules().dispatch.hung_after_s) * 20)
    assert run_repair(world).settled == 0
    assert world.task(admission.task_id)["status"] == "CLAIMED"


def test_shards_that_are_all_final_are_settled(world: World, db: Connection) -> None:
    admission = world.submit()
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    db.execute("UPDATE collect.shard SET status = 'DONE', rows_fetched = span_size")
    age(db, 60)
    assert run_repair(world).settled == 1
    assert world.task(admission.task_id)["status"] == "COMPLETED"


def test_a_waiting_task_whose_message_expired_is_published_again(world: World, db: Connection) -> None:
    admission = world.submit()
    with Consumer(world.backends.amqp_url) as consumer:
        consumer.ack([delivery.tag for delivery in consumer.take(world.rules.queue("normal"), 10)])
    age(db, world.rules.lanes["normal"].message_ttl_s + 60)
    done = run_repair(world)
    assert (done.republished, done.lanes) == (1, {"normal"})
    assert world.task(admission.task_id)["generation"] == 2
    assert run_repair(world).republished == 0
    assert finish(world) == "COMPLETED"


def test_a_retry_that_never_came_back_is_published_again(world: World, db: Connection) -> None:
    world.submit()
    world.claim()
    db.execute(
        "UPDATE collect.task SET status = 'RETRYING', due_at = now() - interval '2 minutes', "
        "queued_at = now() - interval '3 minutes', generation = 2"
    )
    assert run_repair(world).republished == 1
    assert world.task(1)["generation"] == 3
    assert finish(world) == "COMPLETED"


def test_groups_of_no_task_give_their_slots_back(world: World, db: Connection) -> None:
    world.submit()
    run_id = world.claim().runs[0].run_id
    world.plan(run_id)
    db.execute("UPDATE collect.task SET status = 'CANCELLED'")
    age(db, 60)
    assert run_repair(world).closed_groups >= 1
    assert world.rows("SELECT count(*) AS n FROM collect.shard_group WHERE status = 'OPEN'")[0]["n"] == 0


def test_two_passes_at_once_do_it_once(world: World, db: Connection) -> None:
    for number in range(5):
        world.submit(params={"day": str(number)})
    runs = [run.run_id for run in world.claim().runs]
    for run_id in runs:
        world.plan(run_id)
        world.runs.states[run_id] = RunState.ENDED
    age(db, 60)
    with ThreadPoolExecutor(4) as pool:
        settled = sum(done.settled for done in pool.map(lambda _: run_repair(world), range(4)))
    assert settled == len(runs)
    counts = world.rows("SELECT DISTINCT lost_count FROM collect.task WHERE attempt > 0")
    assert [row["lost_count"] for row in counts] == [1]


def test_an_attempt_is_not_lost_for_ever(world: World, db: Connection) -> None:
    admission = world.submit()
    for _ in range(20):
        claimed = world.claim()
        if not claimed.runs:
            break
        world.plan(claimed.runs[0].run_id)
        world.finish(claimed.runs[0].run_id)
        # Do not wait for the delay: as if it had passed.
        db.execute(
            "UPDATE collect.task SET due_at = NULL, generation = generation + 1 WHERE status = 'QUEUED'"
        )
        with Publisher(world.backends.amqp_url) as publisher:
            outbox.run_once(db, publisher, world.rules, older_than_s=0)
    task = world.task(admission.task_id)
    assert task["status"] == "DEAD"
    assert "10 times" in task["reason"]


def test_a_dead_letter_reaches_its_queue_once(world: World, db: Connection) -> None:
    world.add(source("wrong", request={"path": "/html"}, total={"type": "unknown"}))
    task_id = world.collect("wrong")
    with Publisher(world.backends.amqp_url) as publisher:
        assert outbox.run_once(db, publisher, world.rules).dead_letters == 1
        assert outbox.run_once(db, publisher, world.rules).dead_letters == 0
    with Consumer(world.backends.amqp_url) as consumer:
        (dead,) = consumer.take("collect.dead", 10)
    assert json.loads(dead.body)["task_id"] == task_id
    assert dead.headers["retry-count"] == 0
    assert dead.headers["failed-time"] > 1_700_000_000
    assert "JSON" in dead.headers["error-message"] or "html" in dead.headers["error-message"]
