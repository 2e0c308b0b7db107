"""Nodes from their agents to the registry: real Redis, RabbitMQ and PostgreSQL."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from collect_ops.broker.consumer import Consumer
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.coordination import keys
from collect_ops.coordination.liveness import AgentSuperseded, Liveness, NodeIdTaken
from collect_ops.delivery.dead_drain import run_once as drain_dead
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.nodes.agent import Agent, NodeIdentity
from collect_ops.nodes.draining import drain
from collect_ops.nodes.registry import Ingested, Names, run_once
from collect_ops.nodes.rules import HeartbeatRule, PlacementRules
from collect_ops.storage import Connection
from tests.plugins.integration.broker.link import wait_until
from tests.plugins.integration.world import World

#: Sixty times as fast as shipped.
RULES = PlacementRules(heartbeat=HeartbeatRule(every_s=0.9, suspect_s=2.1, alive_s=3.0))


@pytest.fixture
def names(world: World) -> Names:
    return Names(queue=world.rules.broker.heartbeats, dead_exchange=world.rules.broker.dead_queue)


@pytest.fixture
def client(world: World) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(world.backends.redis_url) as found:
        # As if the registry had looked long ago.
        found.set(keys.NODES_WITNESS, int(found.time()[0]) - 3600)  # type: ignore[index]
        yield found


def ingest(world: World, names: Names, rules: PlacementRules = RULES) -> Ingested:
    return run_once(world.backends, rules, names)


def agent(world: World, node_id: str = "n1", **fields: Any) -> Agent:
    node = NodeIdentity(node_id=node_id, name=f"host-{node_id}", version="1", slots=4, **fields)
    return Agent(node, world.backends, RULES, exchange=world.rules.broker.heartbeats)


def body(**fields: Any) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    return {
        "schema": 1, "node_id": "n1", "machine": "m1", "boot_id": "b1", "started_at": now, "seq": 1, "sent_at": now,
        "name": "host", "address": "10.0.0.1", "version": "1", "slots": 4, "cpu_percent": 10.0,
        "memory_percent": 20.0, "memory_bytes": 1, "disk_percent": 30.0, "disk_free_bytes": 1, "load_1": 0.5,
        "received_bytes_per_s": 1.0, "sent_bytes_per_s": 1.0, "workers_bytes": 1, "groups": 0, **fields,
    }  # fmt: skip


def send(world: World, *bodies: dict[str, Any] | bytes) -> None:
    messages = [
        OutgoingMessage(
            exchange=world.rules.broker.heartbeats,
            routing_key="n",
            body=each if isinstance(each, bytes) else json.dumps(each).encode(),
        )
        for each in bodies
    ]
    with Publisher(world.backends.amqp_url) as publisher:
        assert len(publisher.publish(messages).confirmed) == len(bodies)


def node(world: World, node_id: str = "n1") -> dict[str, Any]:
    return world.rows("SELECT * FROM collect.node WHERE id = %s", node_id)[0]


def test_an_agent_is_registered_lost_and_found(world: World, names: Names, client: redis.Redis) -> None:
    running = agent(world, labels={"region": "eu"})
    with Publisher(world.backends.amqp_url) as publisher:
        heartbeat, published = running.beat(publisher)
        assert published
        assert heartbeat.clock_skew_s is not None
        assert abs(heartbeat.clock_skew_s) < 1
        running.beat(publisher)
        done = ingest(world, names)
        assert (done.heartbeats, done.nodes, done.refused, done.moved) == (2, 1, 0, [])
        row = node(world)
        assert (row["status"], row["seq"], row["slots"], row["labels"]) == ("ACTIVE", 2, 4, {"region": "eu"})
        assert 0 < row["memory_percent"] < 100
        assert world.rows("SELECT count(*) AS n FROM collect.node_sample")[0]["n"] == 2
        time.sleep(2.25)
        assert [(m.from_status, m.to_status) for m in ingest(world, names).moved] == [("ACTIVE", "SUSPECT")]
        time.sleep(1.5)
        [lost] = ingest(world, names).moved
        assert (lost.to_status, lost.reason) == ("LOST", "it has not renewed its liveness key for 3 s")
        running.beat(publisher)
        assert [m.to_status for m in ingest(world, names).moved] == ["ACTIVE"]
        running.draining = True
        running.beat(publisher)
        assert [m.to_status for m in ingest(world, names).moved] == ["DRAINING"]
        running.leave(publisher)
        assert [m.to_status for m in ingest(world, names).moved] == ["LEFT"]
    assert client.get(keys.node("n1")) is None
    log = [row["to_status"] for row in world.rows("SELECT to_status FROM collect.node_log ORDER BY id")]
    assert log == ["SUSPECT", "LOST", "ACTIVE", "DRAINING", "LEFT"]


def test_nobody_is_lost_to_a_flush(world: World, names: Names, client: redis.Redis) -> None:
    running = agent(world)
    with Publisher(world.backends.amqp_url) as publisher:
        running.beat(publisher)
        ingest(world, names)
        client.flushdb()
        assert [m.to_status for m in ingest(world, names).moved] == ["SUSPECT"]
        running.beat(publisher)
        assert [m.to_status for m in ingest(world, names).moved] == ["ACTIVE"]
        client.flushdb()
        # Long after a flush a missing key says again what it says.
        ingest(world, names)
        client.set(keys.NODES_WITNESS, int(client.time()[0]) - 60)  # type: ignore[index]
        time.sleep(1.5)
        assert [m.to_status for m in ingest(world, names).moved] == ["LOST"]


def test_a_late_ingest_makes_nobody_lost(world: World, names: Names, client: redis.Redis) -> None:
    """The keys are renewed, and heartbeats wait unread for longer than a node may be silent."""
    stopping = threading.Event()
    thread = threading.Thread(target=agent(world).run, args=(stopping,))
    thread.start()
    try:
        wait_until(lambda: bool(client.get(keys.node("n1"))))
        ingest(world, names)
        time.sleep(RULES.heartbeat.alive_s + 1)
        done = ingest(world, names)
        assert done.moved == []
        assert done.heartbeats >= 2, "as many as it sent meanwhile"
        assert node(world)["status"] == "ACTIVE"
    finally:
        stopping.set()
        thread.join()


def test_only_the_newest_counts(world: World, names: Names, client: redis.Redis) -> None:
    patient = PlacementRules()  # an agent that is silent gives way to another start of it
    old, new = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    beats = [
        body(boot_id=boot, started_at=started.isoformat(), seq=seq, groups=seq)
        for boot, started in (("b1", old), ("b2", new))
        for seq in range(1, 11)
    ]
    random.Random(3).shuffle(beats)
    for first in range(0, 20, 7):
        send(world, *beats[first : first + 7])
        ingest(world, names, patient)
    row = node(world)
    assert (row["boot_id"], row["seq"], row["groups"]) == ("b2", 10, 10)
    send(world, *beats)
    assert ingest(world, names, patient).nodes == 0, "what comes again changes nothing"
    assert world.rows("SELECT count(*) AS n FROM collect.node_sample")[0]["n"] == 20


def test_a_clock_that_was_set_back_keeps_nobody_out_for_ever(
    world: World, names: Names, db: Connection, client: redis.Redis
) -> None:
    now = datetime.now(UTC)
    send(world, body(boot_id="b1", started_at=(now + timedelta(days=365)).isoformat(), seq=9))
    ingest(world, names)
    again = body(boot_id="b2", started_at=now.isoformat(), seq=1)
    send(world, again)
    ingest(world, names)
    assert node(world)["boot_id"] == "b1", "an older start, while the other may live"
    db.execute("UPDATE collect.node SET heartbeat_at = heartbeat_at - interval '1 minute'")
    send(world, {**again, "seq": 2})
    ingest(world, names)
    assert node(world)["boot_id"] == "b2"


def test_a_node_that_claims_anothers_id_is_refused_at_both_ends(
    world: World, names: Names, client: redis.Redis
) -> None:
    mine, theirs = agent(world, machine="m1"), agent(world, machine="m2")
    with Publisher(world.backends.amqp_url) as publisher:
        mine.beat(publisher)
        with pytest.raises(NodeIdTaken, match="node id n1 belongs to a node that lives on another machine"):
            theirs.beat(publisher)
        # One that does not ask: its heartbeats are dead letters, with the reason.
        send(world, body(machine="m2", name="intruder", started_at="2099-01-01T00:00:00Z"))
        done = ingest(world, names)
    assert (done.heartbeats, done.refused) == (1, 1)
    assert node(world)["name"] == "host-n1"
    drain_dead(world.backends, world.rules)
    [letter] = world.rows("SELECT error_message FROM collect.dead_letter")
    assert "node_id: belongs to host-n1 at" in letter["error_message"]
    assert "intruder needs another one" in letter["error_message"]


def test_a_second_agent_of_a_node_takes_over_and_the_first_ends(world: World, client: redis.Redis) -> None:
    first, second = agent(world), agent(world)
    with Publisher(world.backends.amqp_url) as publisher:
        first.beat(publisher)
        second.beat(publisher)
        with pytest.raises(AgentSuperseded):
            first.beat(publisher)
        first.leave(publisher)
        assert client.get(keys.node("n1")) is not None, "its goodbye does not touch the other's key"


MALFORMED: list[tuple[dict[str, Any] | bytes, str]] = [
    (b"", "no JSON"),
    (b"\xff\xfe", "no JSON"),
    (b"[]", "must be a JSON object"),
    (b"[" * 100_000, "at most"),
    (b"[" * 60_000, "no JSON"),
    (b'{"schema": 2}', "schema: must be 1"),
    (b'{"schema": 1, "seq": NaN}', "no number"),
    (body(node_id="A b"), "node_id"),
    (body(node_id=None), "node_id"),
    (body(name="a\0b"), "without NUL"),
    (body(labels={"a": "\ud800"}), "without NUL"),
    (body(cpu_percent=101), "cpu_percent"),
    (body(load_1=1e300), "load_1"),
    (body(seq=2**63), "seq"),
    (body(sent_at="yesterday"), "sent_at"),
    (body(sent_at="2026-01-01T00:00:00"), "sent_at"),
    (body(surprise=1), "surprise"),
]


def test_malformed_heartbeats_are_dead_letters_and_the_others_are_taken_in(
    world: World, names: Names, client: redis.Redis
) -> None:
    for place, (bad, _) in enumerate(MALFORMED):
        send(world, bad, body(seq=place + 1))
    done = ingest(world, names)
    assert (done.heartbeats, done.refused) == (len(MALFORMED), len(MALFORMED))
    with Consumer(world.backends.amqp_url) as consumer:
        assert consumer.depth(names.queue) == 0
    drain_dead(world.backends, world.rules)
    told = [row["error_message"] for row in world.rows("SELECT error_message FROM collect.dead_letter")]
    assert len(told) == len(MALFORMED)
    for _, problem in MALFORMED:
        assert any(problem in message for message in told), problem


def test_heartbeats_from_the_future_decide_nothing(world: World, names: Names, client: redis.Redis) -> None:
    far = "9999-12-31T23:59:59Z"
    send(world, body(sent_at=far, seq=1), body(sent_at="0001-01-01T00:00:00Z", seq=2, clock_skew_s=2.5e11))
    assert ingest(world, names).heartbeats == 2
    row = node(world)
    assert (row["seq"], row["clock_skew_s"]) == (2, 2.5e11)
    ages = world.rows("SELECT now() - at < interval '2 hours' AS recent FROM collect.node_sample")
    assert [each["recent"] for each in ages] == [True, True]


def test_flapping_is_damped(world: World, names: Names, client: redis.Redis, db: Connection) -> None:
    running = agent(world)
    with Publisher(world.backends.amqp_url) as publisher:
        running.beat(publisher)
        others = [agent(world, f"other{number}") for number in range(2)]
        ingest(world, names)
        for _ in range(3):
            for other in others:
                other.beat(publisher)
            client.delete(keys.node("n1"))
            assert [m.to_status for m in ingest(world, names).moved][-1:] == ["LOST"]
            running.beat(publisher)
            [back] = [m for m in ingest(world, names).moved if m.node_id == "n1"]
        assert (back.to_status, "lost 3 times" in back.reason) == ("SUSPECT", True)
        db.execute("UPDATE collect.node SET back_at = now() - interval '301 seconds'")
        running.beat(publisher)
        assert ("n1", "ACTIVE") in [(m.node_id, m.to_status) for m in ingest(world, names).moved]


def test_nobody_is_lost_because_redis_was_not_reachable(
    world: World, names: Names, client: redis.Redis
) -> None:
    """Frozen, or cut off, for longer than a key lives: it was not started anew, and the witness is there."""
    agents = [agent(world, f"n{number}") for number in range(3)]
    with Publisher(world.backends.amqp_url) as publisher:
        for each in agents:
            each.beat(publisher)
        ingest(world, names)
        client.delete(*(keys.node(f"n{number}") for number in range(3)))  # as if their time had passed
        ingest(world, names)
        assert [node(world, f"n{number}")["status"] for number in range(3)] == ["SUSPECT"] * 3
        time.sleep(1.5)
        for each in agents[:2]:
            each.beat(publisher)
        moved = {m.node_id: m.to_status for m in ingest(world, names).moved}
    assert moved == {"n0": "ACTIVE", "n1": "ACTIVE", "n2": "LOST"}


def test_an_id_that_changes_hands_within_a_block(world: World, names: Names, client: redis.Redis) -> None:
    send(world, body(machine="m1"))
    ingest(world, names)
    send(world, body(machine="m1", seq=2, leaving=True), body(machine="m2", boot_id="b2", name="new"))
    done = ingest(world, names)
    assert (done.heartbeats, done.refused) == (2, 0)
    assert (node(world)["machine"], node(world)["name"]) == ("m2", "new")


def test_an_agent_that_could_not_renew_at_first_takes_over_all_the_same(
    world: World, client: redis.Redis
) -> None:
    before, after = agent(world), agent(world)
    with Publisher(world.backends.amqp_url) as publisher:
        before.beat(publisher)  # and is killed
        there = after._liveness
        after._liveness = Liveness("redis://127.0.0.1:9/0", 1.0)
        assert after.beat(publisher)[0].clock_skew_s is None
        after._liveness = there
        after.beat(publisher)
        with pytest.raises(AgentSuperseded):
            before.beat(publisher)


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"slots": 20_000}, "slots"), ({"labels": {"": "x"}}, "labels"), ({"node_id": "A"}, "node_id")],
)
def test_an_agent_that_is_told_nonsense_does_not_begin(
    world: World, client: redis.Redis, fields: dict[str, Any], told: str
) -> None:
    node = NodeIdentity(**{"node_id": "n1", "name": "host", "version": "1", "slots": 4, **fields})
    with pytest.raises(ValidationFailed, match=told):
        Agent(node, world.backends, RULES, exchange=world.rules.broker.heartbeats)
    with pytest.raises(ValidationFailed, match=r"every_s: must be less than 2\.1 s"):
        Agent(
            replace(node, node_id="n1", slots=4, labels={}),
            world.backends,
            RULES,
            exchange=world.rules.broker.heartbeats,
            every_s=2.4,
        )
    assert client.get(keys.node("n1")) is None


def test_services_that_are_away(world: World, names: Names, client: redis.Redis) -> None:
    without_broker = replace(world.backends, amqp_url="amqp://guest:guest@127.0.0.1:9/")
    running = agent(world)
    running._backends = without_broker
    with Publisher(without_broker.amqp_url) as publisher:
        assert running.beat(publisher)[1] is False
    assert Liveness(world.backends.redis_url, 1.0).ages(["n1"]), "it lives all the same"
    send(world, body())
    done = run_once(replace(world.backends, redis_url="redis://127.0.0.1:9/0"), RULES, names)
    assert (done.heartbeats, done.states_known, done.moved) == (1, False, [])


def test_a_thousand_nodes(world: World, names: Names, client: redis.Redis) -> None:
    send(world, *(body(node_id=f"n{number}", machine=f"m{number}") for number in range(1000)))
    with client.pipeline() as pipeline:
        for number in range(1000):
            pipeline.set(keys.node(f"n{number}"), f"m{number} b1", px=1000)
        pipeline.execute()
    done = run_once(world.backends, PlacementRules(), names)
    assert (done.heartbeats, done.nodes, done.more) == (1000, 1000, False)


def test_the_command(world: World, names: Names, client: redis.Redis, tmp_path: Path) -> None:
    """As it runs beside a worker: heartbeats on stdout, drained by SIGUSR1, goodbye at SIGTERM."""
    environment = {
        **os.environ,
        "COLLECT_POSTGRES_DSN": world.backends.postgres_dsn,
        "COLLECT_REDIS_URL": world.backends.redis_url,
        "COLLECT_AMQP_URL": world.backends.amqp_url,
    }
    command = [
        sys.executable,
        "-m",
        "collect_ops.cli",
        "agent",
        "--node-id",
        "n7",
        "--every",
        "0.2",
        "--json",
    ]
    process = subprocess.Popen(
        [*command, "--label", "disk=ssd", "--slots", "2", "--path", str(tmp_path)],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        first = json.loads(process.stdout.readline())
        assert (first["node_id"], first["slots"], first["published"]) == ("n7", 2, True)
        assert first["cpu_percent"] <= 100
        process.send_signal(signal.SIGUSR1)
        while not json.loads(process.stdout.readline())["draining"]:
            pass
        ingest(world, names)
        assert node(world, "n7")["status"] in ("ACTIVE", "DRAINING")
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    ingest(world, names)
    assert node(world, "n7")["status"] == "LEFT"


def test_a_drain_outlasts_the_first_heartbeat_of_the_agent_that_was_drained(
    world: World, names: Names, client: redis.Redis
) -> None:
    """The registry did not know yet that the agent had been started anew; one that is started later ends the drain."""
    first, second, third = (agent(world) for _ in range(3))
    with Publisher(world.backends.amqp_url) as publisher:
        first.beat(publisher)
        ingest(world, names)
        second.beat(publisher)
        drain(world.backends, "n1", within_s=60)
        ingest(world, names)
        assert node(world)["drain_until"] is not None
        second.beat(publisher)
        ingest(world, names)
        assert node(world)["drain_until"] is not None
        third.beat(publisher)
        ingest(world, names)
        assert node(world)["drain_until"] is None


def test_what_placement_waits_for_is_told_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not half a minute later: the processors are free again, the node drains."""
    busy = [95.0]
    monkeypatch.setattr("collect_ops.nodes.machine.psutil.cpu_percent", lambda: busy[0])
    monkeypatch.setattr("collect_ops.nodes.machine._GLANCE_S", 0.0)
    monkeypatch.setattr("collect_ops.nodes.agent.LOOK_S", 0.05)
    node = NodeIdentity(node_id="n1", name="host", version="1", slots=4)
    running = Agent(node, world.backends, PlacementRules(), exchange=world.rules.broker.heartbeats)
    told: list[tuple[float, bool]] = []
    stopping = threading.Event()
    thread = threading.Thread(
        target=lambda: running.run(
            stopping, beat=lambda beat, _: told.append((beat.cpu_percent, beat.draining))
        )
    )
    thread.start()
    try:
        wait_until(lambda: len(told) == 1)
        time.sleep(1.2)
        assert told == [(95.0, False)]
        busy[0] = 20.0
        wait_until(lambda: len(told) == 2)
        busy[0] = 90.0  # who gets work is busy: that can wait
        time.sleep(1.2)
        running.draining = True
        wait_until(lambda: len(told) == 3)
        time.sleep(1.2)
        assert told == [(95.0, False), (20.0, False), (90.0, True)]
    finally:
        stopping.set()
        thread.join()
