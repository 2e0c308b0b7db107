"""The watchers of nodes, of the backlog and of dead letters: when they wake somebody, and when they let him sleep."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
import redis
from airflow.triggers.base import BaseEventTrigger

from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.coordination import keys
from collect_ops.delivery import dispatch
from collect_ops.nodes.agent import Agent, NodeIdentity
from collect_ops.nodes.registry import WAKE_NAME, Names, run_once
from collect_ops.nodes.rules import placement_rules
from collect_ops.storage import Connection
from collect_ops.triggers.backlog import BacklogTrigger
from collect_ops.triggers.dead_letters import DeadLetterTrigger
from collect_ops.triggers.heartbeats import HeartbeatTrigger
from tests.dags.test_dead_letters_operator import connections
from tests.plugins.integration.world import World, source

#: Long enough for many looks of 0.05 s.
QUIET_S = 1.0


@pytest.fixture(autouse=True)
def airflow_connections(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a triggerer's connections say, on a stack whose shard groups go to the queues of nodes."""
    for name, connection in connections(world).items():
        monkeypatch.setenv(f"AIRFLOW_CONN_COLLECT_{name}", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("COLLECT_NODE_QUEUES", "1")


@pytest.fixture
def marks(world: World) -> Any:
    """Redis, where wake-ups are marked; it has been running for an hour."""
    with redis.Redis.from_url(world.backends.redis_url) as client:
        client.set(keys.NODES_WITNESS, int(client.time()[0]) - 3600)  # type: ignore[index]
        yield client


def fired(trigger: BaseEventTrigger, within_s: float = 10.0) -> Mapping[str, Any] | None:
    """What a watcher tells first, None when it says nothing for so long."""

    async def first() -> Any:
        events = trigger.run()
        try:
            async with asyncio.timeout(within_s):
                return (await anext(events)).payload
        except TimeoutError:
            return None
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    return asyncio.run(first())


def watcher_of_nodes() -> HeartbeatTrigger:
    return HeartbeatTrigger(poll_interval_s=0.05)


def forget_wake_ups(marks: redis.Redis, name: str) -> None:
    marks.delete(keys.wake(name), keys.wake(keys.watched(name)))


def register(world: World) -> Agent:
    """A node that is known, alive and has no news."""
    node = NodeIdentity(node_id="n1", name="host", version="1", slots=4)
    running = Agent(node, world.backends, placement_rules(), exchange=world.rules.broker.heartbeats)
    with Publisher(world.backends.amqp_url) as publisher:
        running.beat(publisher)
    names = Names(queue=world.rules.broker.heartbeats, dead_exchange=world.rules.broker.dead_queue)
    assert run_once(world.backends, placement_rules(), names).nodes == 1
    return running


def test_heartbeats_of_idle_nodes_wake_nobody(world: World) -> None:
    running = register(world)
    with Publisher(world.backends.amqp_url) as publisher:
        running.beat(publisher)
    assert fired(watcher_of_nodes(), QUIET_S) is None


def test_heartbeats_beside_work_are_taken_in(world: World, marks: redis.Redis) -> None:
    running = register(world)
    with Publisher(world.backends.amqp_url) as publisher:
        running.beat(publisher)
    world.add(source())
    world.submit()
    forget_wake_ups(marks, WAKE_NAME)
    assert fired(watcher_of_nodes()) == {"queue": world.rules.broker.heartbeats, "depth": 1}
    assert fired(watcher_of_nodes(), QUIET_S) is None, "somebody was woken for it"


def test_a_nodes_silence_is_news(world: World, marks: redis.Redis) -> None:
    register(world)
    forget_wake_ups(marks, WAKE_NAME)
    assert fired(watcher_of_nodes(), QUIET_S) is None
    marks.delete(keys.node("n1"))
    assert fired(watcher_of_nodes()) is not None, "though no message says so"


def test_a_backlog_is_evaluated_once_a_minute(world: World, db: Connection) -> None:
    watcher = BacklogTrigger(poll_interval_s=0.05)
    assert fired(watcher, QUIET_S) is None, "nothing waits"
    world.add(source())
    world.submit()
    assert fired(watcher) == {"due": True}
    assert fired(watcher, QUIET_S) is None, "the evaluation may take its time"
    assert fired(BacklogTrigger(poll_interval_s=0.05)) == {"due": True}, (
        "as after a restart: nobody has evaluated"
    )
    db.execute(
        "INSERT INTO collect.backlog_sample (at, lane, depth, oldest_s, arrivals, completions) "
        "SELECT date_trunc('minute', now()) + n * interval '1 min', 'normal', 1, 0, 1, 0 FROM generate_series(0, 1) n"
    )
    assert fired(BacklogTrigger(poll_interval_s=0.05), QUIET_S) is None, "this minute has its sample"


def test_dead_letters_wake_the_sweep_once(world: World, marks: redis.Redis) -> None:
    def watcher() -> DeadLetterTrigger:
        return DeadLetterTrigger(poll_interval_s=0.05)

    assert fired(watcher(), QUIET_S) is None
    letter = OutgoingMessage(exchange="", routing_key=world.rules.broker.dead_queue, body=b"{}")
    with Publisher(world.backends.amqp_url) as publisher:
        assert publisher.publish([letter]).confirmed
    assert fired(watcher()) == {"queue": world.rules.broker.dead_queue, "depth": 1}
    assert fired(watcher(), QUIET_S) is None, "the sweep was woken"
    forget_wake_ups(marks, dispatch.WAKE_NAME)
    assert fired(watcher()) is not None, "the sweep came and left the letter"


@pytest.mark.parametrize("make", [HeartbeatTrigger, BacklogTrigger, DeadLetterTrigger])
def test_a_service_that_is_away_ends_no_watcher(
    make: type[BaseEventTrigger], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, scheme in (("POSTGRES", "postgres"), ("REDIS", "redis"), ("RABBITMQ", "rabbitmq")):
        away = {"conn_type": scheme, "host": "127.0.0.1", "port": 9, "login": "nobody", "password": "x"}
        monkeypatch.setenv(f"AIRFLOW_CONN_COLLECT_{name}", json.dumps(away))
    assert fired(make(poll_interval_s=0.05), 1.5) is None  # type: ignore[call-arg]
    assert "looking again in" in capsys.readouterr().out
