"""Groups that their node did not start, and groups that fell silent: taken back, placed elsewhere, rows exact."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from collect_ops.coordination import keys
from collect_ops.delivery import dispatch, repair
from collect_ops.delivery.dispatch import Attention, Dispatched
from collect_ops.execution.group import GroupResult
from collect_ops.lanes.runs import RunState
from collect_ops.nodes.draining import UnknownNode, drain, resume, wait_until_empty
from collect_ops.nodes.rules import DispatchRule, FailureRule, PlacementRules
from collect_ops.policies import celery_worker
from collect_ops.storage import Connection, connect
from tests.plugins.integration.execution.checks import freeze
from tests.plugins.integration.lanes.test_placing import node
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

__all__ = ["node"]

Serve = Callable[..., PagedServer]
MakeNode = Callable[..., None]
RULES = PlacementRules(
    dispatch=DispatchRule(start_within_s=30, lost_after_s=30, retry_s=30),
    failures=FailureRule(failures=2, hold_s=30),
)


@pytest.fixture(autouse=True)
def distributed(world: World, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(dispatch, "SETTLED_S", 0.0)
    world.add(source())
    world.serve_from(serve(rows=400).base_url)
    world.backends = replace(world.backends, node_queues=True)
    with redis.Redis.from_url(world.backends.redis_url) as client:
        client.set(keys.NODES_WITNESS, int(client.time()[0]) - 3600)  # type: ignore[index]
        yield


def sweep(world: World) -> Dispatched:
    return dispatch.run_once(world.backends, world.rules, RULES, world.runs, actor="sweep")


def look(world: World) -> Attention:
    with connect(world.backends.postgres_dsn) as connection:
        return dispatch.look(connection, world.backends, RULES)


def age(db: Connection, seconds: float) -> None:
    """So much time passes, for shard groups and what waits."""
    for column in ("opened_at", "started_at", "alive_at", "doubted_at"):
        db.execute(
            f"UPDATE collect.shard_group SET {column} = {column} - make_interval(secs => %s)", (seconds,)
        )
    db.execute("UPDATE collect.task SET due_at = due_at - make_interval(secs => %s)", (seconds,))
    db.execute("UPDATE collect.node SET held_until = held_until - make_interval(secs => %s)", (seconds,))


def planned(world: World, lane: str = "normal") -> str:
    """Claim and plan one run, whose groups Airflow hands out; returns it."""
    run = world.claim(lane).runs[0]
    groups = world.plan(run.run_id).groups
    world.runs.groups[run.run_id] = dict.fromkeys(range(len(groups)), "queued")
    return run.run_id


def take_back(world: World, db: Connection) -> Dispatched:
    """Two looks at groups that nobody starts: doubt, then the verdict."""
    age(db, 11)
    assert sweep(world).doubted > 0
    age(db, 21)
    return sweep(world)


def rows(world: World) -> int:
    return int(world.rows("SELECT count(*) AS n FROM landing.things")[0]["n"])


def test_what_a_node_does_not_start_goes_to_another_and_counts_as_no_failure(
    world: World, db: Connection, node: MakeNode
) -> None:
    node("a")
    node("b", cpu_percent=70)
    world.add(source(limits={"concurrency": 1}))
    task = world.submit().task_id
    run_id = planned(world)
    assert world.task(task)["nodes"][0] == "a"
    done = take_back(world, db)
    assert (done.not_started, done.failed) == (1, 0)
    row = world.task(task)
    assert (row["status"], row["refused_nodes"], row["lost_count"], row["retry_count"]) == (
        "QUEUED",
        ["a"],
        0,
        0,
    )
    assert row["reason"].startswith("node a did not start shard group")
    assert row["reason"].endswith("it is placed elsewhere")
    assert world.runs.states[run_id] is RunState.ENDED, "its queued groups free their slots"
    assert asyncio.run(world.group(run_id, 0)).skipped, "the worker comes back and finds nothing to do"
    again = planned(world)
    assert world.runs.started[again]["nodes"] == ["b", "b"]
    world.run_planned(again)
    row = world.task(task)
    assert (row["status"], row["attempt"], row["refused_nodes"]) == ("COMPLETED", 2, [])
    assert rows(world) == 400
    assert sweep(world) == Dispatched()


def test_what_waits_for_airflow_is_left_alone(world: World, db: Connection, node: MakeNode) -> None:
    node("a")
    world.submit()
    run_id = planned(world)
    world.runs.groups[run_id] = {}  # scheduled: its pool is full
    age(db, 500)
    assert sweep(world) == Dispatched()
    age(db, 500)
    assert sweep(world) == Dispatched()
    seen = look(world)
    assert (seen.lost, len(seen.unstarted) > 0) == (frozenset(), True), (
        "the watcher cannot know; the pass does"
    )


def test_when_no_node_takes_it_dispatch_has_failed_and_is_tried_again(
    world: World, db: Connection, node: MakeNode
) -> None:
    node("a")
    node("b")
    world.add(source(limits={"concurrency": 1}))
    task = world.submit().task_id
    for _ in range(2):
        planned(world)
        done = take_back(world, db)
    row = world.task(task)
    assert (row["status"], row["dispatch_failures"], done.failed) == ("DISPATCH_FAILED", 1, 1)
    assert "did not start shard group" in row["reason"]
    assert "no node can take it: a did not take it; b did not take it" in row["reason"]
    event = world.rows("SELECT kind, severity, subject, message FROM collect.event")
    assert [(e["kind"], e["severity"], e["subject"]) for e in event] == [
        ("dispatch_failed", "error", f"task {task}")
    ]
    assert sweep(world).requeued == 0
    age(db, 31)
    assert sweep(world).requeued == 1
    assert world.task(task)["status"] == "QUEUED"
    world.run(world.claim().runs[0].run_id)
    row = world.task(task)
    assert (row["status"], row["dispatch_failures"], row["retry_count"]) == ("COMPLETED", 0, 0)


def test_a_node_that_takes_nothing_is_held_back_for_a_time_that_grows_and_tried_again(
    world: World, db: Connection, node: MakeNode
) -> None:
    node("a")
    node("b", cpu_percent=75)
    world.add(source(limits={"concurrency": 1}))

    def fail(day: str) -> dict[str, Any]:
        world.submit(params={"day": day})
        run_id = planned(world)
        assert world.runs.started[run_id]["nodes"][0] == "a"
        take_back(world, db)
        world.run(world.claim().runs[0].run_id)  # elsewhere
        return world.rows(
            "SELECT *, extract(EPOCH FROM held_until - now()) AS left_s FROM collect.node WHERE id = 'a'"
        )[0]

    assert fail("1")["held_until"] is None
    held = fail("2")
    assert (held["holds"], float(held["left_s"])) == (1, pytest.approx(30, abs=5))
    events = world.rows("SELECT subject FROM collect.event WHERE kind = 'node_held_back'")
    assert [event["subject"] for event in events] == ["node a"]
    world.submit(params={"day": "3"})
    assert set(world.claim().runs[0].conf["nodes"]) == {"b"}
    age(db, 31)
    held = fail("4")
    assert (held["holds"], float(held["left_s"])) == (2, pytest.approx(60, abs=5)), (
        "one more failure after a hold holds again"
    )
    age(db, 61)
    world.submit(params={"day": "5"})
    run_id = planned(world)
    assert world.runs.started[run_id]["nodes"][0] == "a"
    world.run_planned(run_id, on="a")
    row = world.rows("SELECT holds, dispatch_failures, held_until FROM collect.node WHERE id = 'a'")[0]
    assert tuple(row.values()) == (0, 0, None), "it has taken one: forgotten"


def test_what_was_sent_to_a_node_that_is_lost_is_placed_elsewhere_at_once(
    world: World, db: Connection, node: MakeNode
) -> None:
    node("a")
    node("b", cpu_percent=70)
    world.add(source(limits={"concurrency": 1}))
    task = world.submit().task_id
    planned(world)
    db.execute("UPDATE collect.node SET status = 'LOST' WHERE id = 'a'")
    age(db, 11)
    assert sweep(world).not_started == 1
    assert "node a is gone" in world.task(task)["reason"]


def test_a_group_that_falls_silent_is_lost_and_its_shards_run_elsewhere_with_the_rows_exact(
    world: World, db: Connection, node: MakeNode, serve: Serve
) -> None:
    node("a")
    node("b", cpu_percent=70)
    world.add(source(limits={"concurrency": 1, "requests_per_s": 2}))
    task = world.submit().task_id
    run_id = planned(world)
    worker = _worker(world, run_id)
    try:
        freeze(world, worker.pid, rows=50)
        age(db, 21)
        assert look(world) == Attention(), "doubted first"
        age(db, 11)
        assert look(world) == Attention(lost=frozenset({f"{run_id}/0"}))
        done = sweep(world)
        assert done.lost == 1
        row = world.task(task)
        assert (row["status"], row["lost_count"], row["refused_nodes"]) == ("QUEUED", 1, ["a"])
        assert "on node a has been silent for" in row["reason"]
        world.add(source())
        again = world.claim().runs[0]
        assert set(again.conf["nodes"]) == {"b"}
        os.kill(worker.pid, signal.SIGCONT)
        world.run(again.run_id)
        worker.wait(timeout=60)
    finally:
        worker.kill()
        worker.wait()
    row = world.task(task)
    assert (row["status"], row["attempt"], row["retry_count"]) == ("COMPLETED", 2, 0)
    assert rows(world) == 400
    assert row["result"]["rows_landed"] >= 400


def test_a_process_that_lives_and_gets_nothing_done_is_taken_from_and_fenced_off(
    world: World, db: Connection, node: MakeNode, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node's heartbeats come, it says that it lives: only its work does not move."""
    monkeypatch.setattr("collect_ops.execution.group.ALIVE_EVERY_S", 0.2)
    node("a")
    node("b", cpu_percent=70)
    server = serve(rows=400)
    world.serve_from(server.base_url)
    world.add(source(limits={"concurrency": 1}))
    task = world.submit().task_id
    run_id = planned(world)
    stuck = server.hold_where(lambda request: request.query.get("offset") == "150")

    async def hung() -> GroupResult:
        running = asyncio.create_task(world.group(run_id, 0, node="a"))
        await asyncio.to_thread(stuck.wait)
        await asyncio.to_thread(_until, lambda: rows(world) == 150)
        await asyncio.to_thread(_taken_from_it)
        stuck.release()
        return await running

    def _taken_from_it() -> None:
        past = int(RULES.dispatch.hung_after_s) + 60
        for table in ("task", "shard"):
            db.execute(
                f"UPDATE collect.{table} SET progress_at = progress_at - make_interval(secs => %s)", (past,)
            )
        with redis.Redis.from_url(world.backends.redis_url) as client:
            for lease in client.scan_iter(f"{keys.PREFIX}:lease:*"):
                client.delete(lease)  # it has not been renewed: nothing has progressed
            client.delete(*keys.limiter("things_api"))  # nor has its place at the host
        assert look(world) == Attention(), "it lives"
        assert repair.run_once(world.backends, world.rules, world.runs, actor="sweep").settled == 1
        assert world.runs.states[run_id] is RunState.ENDED
        again = planned(world)
        world.run_planned(again, on="b")

    late = asyncio.run(hung())
    assert (late.rows, late.fenced) == (150, 1), "what came after it was taken away did not land"
    row = world.task(task)
    assert (row["status"], row["attempt"], row["lost_count"], row["retry_count"]) == ("COMPLETED", 2, 1, 0)
    assert rows(world) == row["result"]["rows_fetched"] == 400
    told = world.rows("SELECT reason FROM collect.task_log WHERE to_status = 'QUEUED' AND attempt = 1")
    assert "the attempt was lost" in told[0]["reason"]


def test_a_group_that_lives_is_never_taken_for_silent(world: World, db: Connection, node: MakeNode) -> None:
    node("a")
    world.submit()
    run_id = planned(world)
    db.execute("UPDATE collect.shard_group SET started_at = now(), alive_at = now(), node = 'a'")
    age(db, 25)
    assert sweep(world).doubted == 2
    db.execute(
        "UPDATE collect.shard_group SET alive_at = now(), doubted_at = NULL WHERE run_id = %s", (run_id,)
    )
    age(db, 15)
    assert sweep(world) == Dispatched()


def _worker(world: World, run_id: str) -> subprocess.Popen[bytes]:
    """A process that runs a group, as a node's worker does."""
    code = (
        "import asyncio, sys\n"
        "from collect_ops.collectors.endpoint import Endpoint\n"
        "from collect_ops.execution.group import run_group\n"
        "from collect_ops.kernel.backends import Backends\n"
        "from collect_ops.lanes.rules import lane_rules\n"
        "endpoint = Endpoint(base_url=sys.argv[2], allow_private_networks=True)\n"
        "asyncio.run(run_group(sys.argv[1], 0, Backends(postgres_dsn=sys.argv[3], redis_url=sys.argv[4],\n"
        "    amqp_url=sys.argv[5]), lane_rules(), lambda _: endpoint, node='a', actor='worker'))\n"
    )
    own = world.backends
    arguments = [run_id, world.endpoint.base_url, own.postgres_dsn, own.redis_url, own.amqp_url]
    return subprocess.Popen([sys.executable, "-c", code, *arguments])


def _until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.1)


def test_a_node_that_drains_finishes_its_page_and_hands_back_the_rest(
    world: World, db: Connection, node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collect_ops.execution.group.ALIVE_EVERY_S", 0.2)
    node("a")
    node("b", cpu_percent=70)
    world.add(source(limits={"concurrency": 1, "requests_per_s": 5}))
    task = world.submit().task_id
    run_id = planned(world)

    async def drained() -> GroupResult:
        running = asyncio.create_task(world.group(run_id, 0, node="a"))
        await asyncio.to_thread(_until, lambda: rows(world) >= 50)
        await asyncio.to_thread(drain, world.backends, "a", within_s=30)
        return await running

    result = asyncio.run(drained())
    assert result.handed_back > 0
    assert 0 < result.rows < 400
    assert wait_until_empty(world.backends, "a", timeout_s=0) == 0
    world.finish(run_id)
    row = world.task(task)
    assert (row["status"], row["lost_count"], row["retry_count"]) == ("QUEUED", 0, 0), "nothing was lost"
    assert row["reason"] == "a has handed back what was not done; it is placed elsewhere"
    again = planned(world)
    assert set(world.runs.started[again]["nodes"]) == {"b"}
    world.run_planned(again, on="b")
    row = world.task(task)
    assert (row["status"], rows(world), row["result"]["rows_fetched"]) == ("COMPLETED", 400, 400)
    resume(world.backends, "a")
    world.submit(params={"day": "2"})
    assert "a" in world.claim().runs[0].conf["nodes"]
    with pytest.raises(UnknownNode, match="there is no node 'nobody'"):
        drain(world.backends, "nobody", within_s=1)


def test_a_worker_that_is_asked_to_end_has_its_groups_hand_back(
    world: World, db: Connection, node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Celery's SIGTERM calls. The node stays as it is: another worker may be started there at once."""
    monkeypatch.setattr("collect_ops.execution.group.ALIVE_EVERY_S", 0.2)
    monkeypatch.setenv("COLLECT_NODE_ID", "a")
    for name, value in (
        ("POSTGRES_DSN", "postgres_dsn"),
        ("REDIS_URL", "redis_url"),
        ("AMQP_URL", "amqp_url"),
    ):
        monkeypatch.setenv(f"COLLECT_{name}", getattr(world.backends, value))
    node("a")
    node("b", cpu_percent=70)
    world.add(source(limits={"concurrency": 1, "requests_per_s": 5}))
    task = world.submit().task_id
    run_id = planned(world)

    async def ended() -> GroupResult:
        running = asyncio.create_task(world.group(run_id, 0, node="a"))
        await asyncio.to_thread(_until, lambda: rows(world) >= 50)
        assert celery_worker.hand_back(how="Cold") is None
        asking = celery_worker.hand_back(sig="SIGTERM", how="Warm")
        assert asking is not None
        asking.join(10)
        return await running

    result = asyncio.run(ended())
    assert result.handed_back > 0
    world.finish(run_id)
    row = world.task(task)
    assert (row["status"], row["lost_count"], row["retry_count"]) == ("QUEUED", 0, 0), "nothing was lost"
    assert row["refused_nodes"] == ["a"]
    again = planned(world)
    assert set(world.runs.started[again]["nodes"]) == {"b"}
    world.run_planned(again, on="b")
    assert (world.task(task)["status"], rows(world)) == ("COMPLETED", 400)
    world.submit(params={"day": "2"})
    assert "a" in world.claim().runs[0].conf["nodes"]


def test_a_run_whose_tasks_are_settled_does_not_keep_a_slot_for_a_group_that_nobody_starts(
    world: World, db: Connection, node: MakeNode
) -> None:
    """Others have stolen all of its shards; what waits at the dead node holds a slot of the lane."""
    node("a")
    world.submit()
    run_id = planned(world)
    db.execute("UPDATE collect.shard SET group_no = 1 WHERE run_id = %s", (run_id,))
    asyncio.run(world.group(run_id, 1, node="a"))
    assert world.rows("SELECT status FROM collect.task") == [{"status": "COMPLETED"}]
    assert world.runs.states[run_id] is RunState.ACTIVE
    age(db, 11)
    sweep(world)
    age(db, 21)
    assert sweep(world).not_started == 1
    assert world.runs.states[run_id] is RunState.ENDED
    assert world.rows("SELECT FROM collect.shard_group WHERE status = 'OPEN'") == []


def test_the_repair_ends_what_waits_at_a_node_for_nobody(
    world: World, db: Connection, node: MakeNode
) -> None:
    """Its task was cancelled."""
    node("a")
    task = world.submit().task_id
    run_id = planned(world)
    db.execute("UPDATE collect.task SET status = 'CANCELLED', finished_at = now() WHERE id = %s", (task,))
    age(db, 31)
    assert repair.run_once(world.backends, world.rules, world.runs, actor="sweep").closed_groups == 2
    assert world.runs.states[run_id] is RunState.ENDED


def test_one_task_that_cannot_be_settled_does_not_keep_the_others_of_its_run(
    world: World, db: Connection, node: MakeNode, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    node("a")
    node("b", cpu_percent=70)
    world.serve_from(serve(rows=60).base_url)
    world.collect(params={"day": "first"})
    tasks = [world.submit(params={"day": str(number)}).task_id for number in range(3)]
    run_id = planned(world)
    assert len(world.attempts(run_id)) == 3, "small tasks share a run"
    settle = dispatch.settle

    def stuck(task_id: int, *arguments: Any, **options: Any) -> Any:
        if task_id == tasks[1]:
            raise TimeoutError("a lock")
        return settle(task_id, *arguments, **options)

    monkeypatch.setattr(dispatch, "settle", stuck)
    age(db, 11)
    assert sweep(world).doubted == 1
    age(db, 21)
    with pytest.raises(ExceptionGroup, match="could not be taken back"):
        sweep(world)
    assert [world.task(task)["status"] for task in tasks] == ["QUEUED", "DISPATCHED", "QUEUED"]
    assert world.runs.states[run_id] is RunState.ENDED, "the repair finds the one that is left by this"
    db.execute("UPDATE collect.task SET progress_at = now() - interval '1 min'")
    db.execute("UPDATE collect.shard SET progress_at = now() - interval '1 min'")
    repair.run_once(world.backends, world.rules, world.runs, actor="sweep")
    assert world.task(tasks[1])["status"] == "QUEUED"


def test_a_plan_that_dies_after_a_drain_counts(world: World, db: Connection, node: MakeNode) -> None:
    """What was handed back in the attempt before says nothing of this one."""
    node("a")
    world.add(source(limits={"concurrency": 1}))
    task = world.submit().task_id
    run_id = planned(world)
    db.execute("UPDATE collect.shard_group SET handed_back = true, node = 'a'")
    world.finish(run_id)
    assert "has handed back" in world.task(task)["reason"]
    again = world.claim().runs[0].run_id
    world.finish(again)
    row = world.task(task)
    assert (row["status"], row["lost_count"]) == ("QUEUED", 1)
    assert "before planning ended" in row["reason"]


def test_a_task_that_nobody_takes_for_weeks_is_tried_again_all_the_same(
    world: World, db: Connection, node: MakeNode
) -> None:
    node("a")
    task = world.submit().task_id
    planned(world)
    db.execute("UPDATE collect.task SET dispatch_failures = 5000")
    db.execute("UPDATE collect.node SET holds = 5000, dispatch_failures = 5000")
    assert take_back(world, db).failed == 1
    assert world.task(task)["status"] == "DISPATCH_FAILED"
    (held,) = world.rows("SELECT held_until - now() AS left FROM collect.node")
    assert held["left"].total_seconds() == pytest.approx(RULES.failures.max_hold_s, abs=5)


def test_a_drained_node_is_empty_only_when_nothing_is_on_its_way(
    world: World, db: Connection, node: MakeNode
) -> None:
    node("a")
    world.submit()
    run_id = world.claim().runs[0].run_id
    assert wait_until_empty(world.backends, "a", timeout_s=0) == 1, "claimed for it"
    world.plan(run_id)
    assert wait_until_empty(world.backends, "a", timeout_s=0) == 2, "sent to it"
    db.execute("UPDATE collect.shard_group SET status = 'CLOSED'")
    assert wait_until_empty(world.backends, "a", timeout_s=0) == 0
