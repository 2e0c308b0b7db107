"""Claims place their runs on nodes, when nodes have queues of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from collect_ops.coordination import keys
from collect_ops.delivery import dispatch
from collect_ops.lanes.capacity import room
from collect_ops.lanes.why import why
from collect_ops.nodes.rules import placement_rules
from collect_ops.storage import Connection
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

Serve = Callable[..., PagedServer]


@pytest.fixture(autouse=True)
def distributed(world: World, serve: Serve) -> Iterator[None]:
    """Airflow's executor has a queue for each node."""
    world.add(source())
    world.serve_from(serve(rows=400).base_url)
    world.backends = replace(world.backends, node_queues=True)
    with redis.Redis.from_url(world.backends.redis_url) as client:
        client.set(keys.NODES_WITNESS, int(client.time()[0]) - 3600)  # type: ignore[index]
        yield


@pytest.fixture
def node(db: Connection, world: World) -> Callable[..., None]:
    """A node as its heartbeats made it, its liveness key included."""

    def make(node_id: str, *, alive: bool = True, **columns: Any) -> None:
        values = {
            "labels": "{}", "kinds": ["http"], "slots": 8, "cpu_percent": 10, "memory_percent": 10,
            "disk_percent": 10, "status": "ACTIVE", **columns,
        }  # fmt: skip
        values["labels"] = json.dumps(columns.get("labels", {}))
        db.execute(
            """
            INSERT INTO collect.node (
                id, machine, boot_id, started_at, seq, name, address, version, labels, kinds, slots, cpu_percent,
                memory_percent, memory_bytes, disk_percent, disk_free_bytes, load_1, workers_bytes, groups, status)
            VALUES (%(id)s, 'm', 'b', now(), 1, %(id)s, '10.0.0.1', '1', %(labels)s, %(kinds)s, %(slots)s,
                %(cpu_percent)s, %(memory_percent)s, 1, %(disk_percent)s, 1, 0, 1, 0, %(status)s)
            """,
            {"id": node_id, **values},
        )
        if alive:
            with redis.Redis.from_url(world.backends.redis_url) as client:
                client.set(keys.node(node_id), "m b", px=60_000)

    return make


def placed(world: World, run_id: str) -> list[str | None]:
    rows = world.rows(
        "SELECT placed_node FROM collect.shard_group WHERE run_id = %s ORDER BY map_index", run_id
    )
    return [row["placed_node"] for row in rows]


def test_a_run_says_where_its_groups_go(world: World, node: Callable[..., None], db: Connection) -> None:
    node("a", cpu_percent=30)
    node("b")
    task = world.submit().task_id
    run = world.claim().runs[0]
    assert run.conf["nodes"] == ["b", "a"]
    world.plan(run.run_id)
    assert placed(world, run.run_id) == ["b", "a"]
    row = world.task(task)
    assert (row["status"], row["nodes"], row["reason"]) == ("DISPATCHED", ["b", "a"], "dispatched to b, a")
    assert row["dispatched_at"] is not None
    trace = world.rows("SELECT response FROM collect.trace WHERE stage = 'place'")
    assert trace[0]["response"] == {"nodes": ["b", "a"], "scores": {"b": 10.0, "a": 20.0}, "refusals": {}}
    told = why(db, world.rules, task, world.backends).sentences
    assert "it was placed on b, a; scores, the lowest wins: b 10, a 20" in told


def test_what_is_placed_counts_before_anybody_measures_it(world: World, node: Callable[..., None]) -> None:
    for name in ("a", "b", "c"):
        node(name)
    for number in range(3):
        world.submit(params={"day": str(number)})
    first = [node_id for run in world.claim().runs for node_id in run.conf["nodes"]]
    assert sorted(first) == ["a", "a", "b", "b", "c", "c"]


def test_without_nodes_or_with_one_executor_only_airflow_decides(
    world: World, node: Callable[..., None]
) -> None:
    world.submit()
    assert "nodes" not in world.claim().runs[0].conf, "no node has ever said that it lives"
    node("a")
    world.backends = replace(world.backends, node_queues=False)
    task = world.submit(params={"day": "2"}).task_id
    assert "nodes" not in world.claim().runs[0].conf
    assert len(world.task(task)["nodes"]) == 1, "it is known where it runs"


def test_a_task_that_no_node_fits_waits_and_says_why_and_holds_nobody_up(
    world: World, node: Callable[..., None], db: Connection
) -> None:
    world.add(source("far", placement={"require": {"region": "eu"}}))
    node("a", labels={"region": "us"})
    far = world.submit("far", priority=7).task_id
    near = world.submit(priority=4).task_id
    claimed = world.claim()
    assert (claimed.claimed, claimed.held) == (1, 1)
    assert world.task(near)["status"] == "CLAIMED"
    row = world.task(far)
    assert (row["status"], row["held_for"]) == ("HELD", "node")
    assert row["reason"] == "no node can take it: a has region=us, region=eu is required"
    assert (
        "held: no node can take it: a has region=us" in why(db, world.rules, far, world.backends).sentences[0]
    )

    def sweep() -> dispatch.Dispatched:
        return dispatch.run_once(world.backends, world.rules, placement_rules(), world.runs, actor="sweep")

    assert sweep().released == 0
    node("b", labels={"region": "eu"})
    assert sweep().released == 1
    assert world.claim().runs[0].conf["nodes"] == ["b", "b"]


def test_nothing_is_claimed_while_no_node_takes_anything(
    world: World, node: Callable[..., None], db: Connection
) -> None:
    node("a", status="LOST", alive=False)
    node("b", memory_percent=85)
    node("c", cpu_percent=85)
    task = world.submit().task_id
    assert room(db, "normal", world.rules, world.backends) == 0
    assert world.claim().claimed == 0
    assert world.task(task)["status"] == "QUEUED", "it stays in its queue, in its order"
    told = why(db, world.rules, task, world.backends).sentences
    assert (
        "no node takes more work now: no node can take it: c cpu_percent is 85, the limit 80; a is LOST; "
        "b memory_percent is 85, the limit 80"
    ) in told
    urgent = world.submit(params={"day": "2"}, priority=9).task_id
    assert world.claim("urgent").runs[0].conf["nodes"] == ["c", "c"], (
        "it presses: busy is better than waiting"
    )
    assert world.task(urgent)["status"] == "CLAIMED"
    db.execute("UPDATE collect.node SET status = 'ACTIVE' WHERE id = 'a'")
    with redis.Redis.from_url(world.backends.redis_url) as client:
        client.set(keys.node("a"), "m b", px=60_000)
    assert world.claim().runs[0].conf["nodes"] == ["a", "a"], "all nodes lost and one back again"


def test_a_silent_node_gets_nothing_before_it_is_called_lost(world: World, node: Callable[..., None]) -> None:
    node("a", alive=False)
    node("b", cpu_percent=60)
    node("c", cpu_percent=70)
    world.submit()
    assert set(world.claim().runs[0].conf["nodes"]) == {"b", "c"}


def test_redis_that_has_lost_its_keys_makes_nobody_silent(world: World, node: Callable[..., None]) -> None:
    node("a")
    node("b")
    with redis.Redis.from_url(world.backends.redis_url) as client:
        client.flushdb()
    world.submit()
    assert sorted(world.claim().runs[0].conf["nodes"]) == ["a", "b"]


def test_slots_of_nodes_bound_what_a_lane_claims(
    world: World, node: Callable[..., None], db: Connection
) -> None:
    node("a", slots=2)
    for number in range(3):
        world.submit(params={"day": str(number)})
    assert room(db, "normal", world.rules, world.backends) == 2
    claimed = world.claim()
    assert claimed.claimed <= 2
    for run in claimed.runs:
        world.plan(run.run_id)
    assert room(db, "normal", world.rules, world.backends) == 0
    assert world.claim().claimed == 0


def test_what_has_waited_long_presses_past_what_has_not(
    world: World, node: Callable[..., None], db: Connection
) -> None:
    node("a", cpu_percent=100)
    old, young = world.submit(priority=4).task_id, world.submit(priority=7, params={"day": "2"}).task_id
    assert room(db, "normal", world.rules, world.backends) == 0
    db.execute("UPDATE collect.task SET aged_from = now() - interval '61 s' WHERE id = %s", (old,))
    assert room(db, "normal", world.rules, world.backends) > 0
    assert world.claim().claimed == 1
    assert [world.task(each)["status"] for each in (old, young)] == ["CLAIMED", "QUEUED"]
