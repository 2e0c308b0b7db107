"""Waiting tasks whose message is gone, tasks that are held, and a repair that Airflow does not answer."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from collect_ops.broker.consumer import Consumer
from collect_ops.broker.management import depths_with_unacked
from collect_ops.delivery import repair
from collect_ops.delivery.repair import Repaired
from collect_ops.delivery.sweep import sweep
from collect_ops.lanes.runs import RunState, RunsUnavailable
from collect_ops.nodes.rules import placement_rules
from collect_ops.storage import Connection
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source

NOTHING = Repaired(republished=0, started=0, settled=0, released=0, closed_groups=0, lanes=frozenset())


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())
    world.backends = replace(world.backends, rabbitmq_api_url=os.environ["COLLECT_RABBITMQ_API_URL"])


def run_repair(world: World) -> Repaired:
    return repair.run_once(world.backends, world.rules, world.runs, actor="repair")


def age(db: Connection, seconds: int) -> None:
    db.execute(
        "UPDATE collect.task SET queued_at = queued_at - make_interval(secs => %s), "
        "progress_at = progress_at - make_interval(secs => %s)",
        (seconds, seconds),
    )


def management_says(world: World, depth: int) -> None:
    """Wait until the management API, whose figures are seconds old, has a depth of the normal lane."""
    vhost = urlsplit(world.backends.amqp_url).path.removeprefix("/")
    queue = world.rules.queue("normal")

    def says() -> bool:
        return (depths_with_unacked(world.backends.rabbitmq_api_url or "", vhost) or {}).get(queue) == depth

    until(says, f"the management API says {depth} messages", deadline_s=40)


def test_a_message_lost_from_an_empty_queue_is_replaced_after_a_minute(world: World, db: Connection) -> None:
    task_id = world.submit().task_id
    with Consumer(world.backends.amqp_url) as consumer:
        consumer.ack([delivery.tag for delivery in consumer.take(world.rules.queue("normal"), 10)])
    management_says(world, 0)
    assert run_repair(world) == NOTHING, "it is not a minute yet"
    age(db, int(repair.GRACE_S) + 10)
    assert run_repair(replaced_api(world, None)) == NOTHING, "an unknown depth is no empty queue"
    assert run_repair(replaced_api(world, "http://nobody:nothing@127.0.0.1:1")) == NOTHING
    assert run_repair(world) == replace(NOTHING, republished=1, lanes=frozenset({"normal"}))
    assert run_repair(world) == NOTHING
    assert world.task(task_id)["generation"] == 2
    assert world.claim().claimed == 1


def replaced_api(world: World, url: str | None) -> World:
    other = World(replace(world.backends, rabbitmq_api_url=url), world.rules)
    other.sources = world.sources
    return other


def test_a_message_in_somebodys_hands_is_not_lost(world: World, db: Connection) -> None:
    world.submit()
    with Consumer(world.backends.amqp_url) as consumer:
        assert consumer.take(world.rules.queue("normal"), 1)
        management_says(world, 1)
        age(db, int(repair.GRACE_S) + 10)
        assert run_repair(world) == NOTHING


def test_passes_at_once_publish_one_generation(world: World, db: Connection) -> None:
    for number in range(5):
        world.submit(params={"day": str(number)})
    age(db, world.rules.lanes["normal"].message_ttl_s + 60)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: run_repair(world), range(4)))
    assert sum(each.republished for each in done) == 5
    assert world.rows("SELECT DISTINCT generation, confirmed_generation FROM collect.task") == [
        {"generation": 2, "confirmed_generation": 2}
    ]


def test_what_is_held_is_let_go_as_far_as_there_is_room(world: World, db: Connection) -> None:
    world.add(source("few", max_active_tasks=2))
    ids = [
        world.submit("few", params={"day": str(number)}, priority=4 + number).task_id for number in range(4)
    ]
    free = world.submit(params={"day": "free"}).task_id
    db.execute("UPDATE collect.task SET status = 'HELD', reason = 'a window'")
    done = run_repair(world)
    assert (done.released, done.republished, done.lanes) == (3, 0, {"normal"})
    status = {task_id: world.task(task_id)["status"] for task_id in (*ids, free)}
    assert status == {ids[0]: "HELD", ids[1]: "HELD", ids[2]: "QUEUED", ids[3]: "QUEUED", free: "QUEUED"}
    assert run_repair(world).released == 0


class Silent:
    """`Runs` of an Airflow that does not answer."""

    def start(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        raise RunsUnavailable("Airflow is away")

    def state(self, dag_id: str, run_id: str) -> RunState:
        raise RunsUnavailable("Airflow is away")


def test_without_airflow_nothing_under_way_is_touched(world: World, db: Connection) -> None:
    task_id = world.submit().task_id
    world.claim()
    age(db, int(placement_rules().dispatch.hung_after_s) * 10)
    before = world.task(task_id)
    assert repair.run_once(world.backends, world.rules, Silent(), actor="repair") == NOTHING
    assert world.task(task_id) == before


def test_the_sweep_makes_every_pass_and_wakes(world: World, db: Connection) -> None:
    world.backends = replace(world.backends, rabbitmq_api_url=None)
    away = replace(world.backends, amqp_url="amqp://guest:guest@127.0.0.1:1/none")
    task_id = world.service(away).admit(world.submission(priority=9)).task_id
    age(db, 60)
    with Consumer(world.backends.amqp_url) as consumer:
        assert consumer.depth(world.rules.queue("urgent")) == 0
    # The wake-up that admission sent finds nothing: its mark is cleared by the claim.
    assert world.claim("urgent").claimed == 0
    swept = sweep(world.backends, world.rules, world.runs, actor="sweep")
    assert (swept.outbox.confirmed, swept.repaired, swept.woken) == (1, NOTHING, ("urgent",))
    assert swept.as_counts()["outbox"] == {"found": 1, "confirmed": 1, "dead_letters": 0, "lanes": ["urgent"]}
    again = sweep(world.backends, world.rules, world.runs, actor="sweep")
    assert (again.outbox.found, again.woken) == (0, ())
    assert world.claim("urgent").claimed == 1
    assert world.task(task_id)["status"] == "CLAIMED"


def test_a_sweep_without_a_broker_repairs_all_the_same(world: World, db: Connection) -> None:
    task_id = world.submit().task_id
    run_id = world.claim().runs[0].run_id
    world.runs.started.clear()
    world.runs.states.clear()
    age(db, 60)
    world.backends = replace(world.backends, amqp_url="amqp://guest:guest@127.0.0.1:1/none")
    with pytest.raises(ExceptionGroup):
        sweep(world.backends, world.rules, world.runs, actor="sweep")
    assert list(world.runs.started) == [run_id]
    assert world.task(task_id)["status"] == "CLAIMED"
