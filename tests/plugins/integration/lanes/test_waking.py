"""A lane is woken when it has both a message and room, once, and a wake-up that fails leaves no mark."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from collect_ops.coordination.wakeups import Wakeups
from collect_ops.lanes.capacity import room
from collect_ops.lanes.runs import RunState, RunsUnavailable, wake
from collect_ops.lanes.waking import wake_waiting
from collect_ops.storage import Connection
from tests.plugins.integration.world import World, source


class AirflowAway:
    """`Runs` of an Airflow that does not answer."""

    def start(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        raise RunsUnavailable("Airflow is away")

    def state(self, dag_id: str, run_id: str) -> RunState:
        raise RunsUnavailable("Airflow is away")


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())


def look(world: World) -> list[str]:
    return wake_waiting(world.rules.lanes, world.backends, world.rules, world.runs)


def test_lanes_with_a_message_and_room_are_woken_once(world: World) -> None:
    assert look(world) == []
    world.submit(priority=9)
    assert world.runs.woken == ["urgent"]
    assert look(world) == [], "its wake-up is pending"
    Wakeups(world.backends.redis_url).clear("urgent")
    assert look(world) == ["urgent"]


def test_a_full_lane_is_not_woken(world: World, db: Connection) -> None:
    slots = world.rules.lanes["bulk"].slots
    for number in range(slots + 1):
        world.submit(params={"day": str(number)}, priority=1)
    assert room(db, "bulk", world.rules, world.backends) == slots
    assert world.claim("bulk").claimed == slots
    assert room(db, "bulk", world.rules, world.backends) == 0
    assert look(world) == []
    db.execute("UPDATE collect.task SET groups_reserved = 0")
    assert room(db, "bulk", world.rules, world.backends) == slots
    assert look(world) == ["bulk"]


def test_room_counts_open_groups_and_is_never_negative(world: World, db: Connection) -> None:
    for number in range(6):
        db.execute(
            "INSERT INTO collect.shard_group (run_id, group_no, lane, label, concurrency, status) "
            "VALUES ('run', %s, 'normal', 'things', 1, %s)",
            (number, "OPEN" if number else "CLOSED"),
        )
    assert room(db, "normal", world.rules, world.backends) == 0
    assert room(db, "urgent", world.rules, world.backends) == world.rules.lanes["urgent"].slots


def test_airflow_away_keeps_no_mark_and_no_task(world: World) -> None:
    wakeups = Wakeups(world.backends.redis_url)
    assert wake(["normal"], AirflowAway(), wakeups) == []
    assert wakeups.begin("normal")


def test_a_run_that_airflow_does_not_take_stays_claimed_for_the_repair(world: World) -> None:
    task_id = world.submit().task_id
    away = World(world.backends, world.rules)
    away.runs = AirflowAway()  # type: ignore[assignment]
    assert away.claim().claimed == 1
    assert world.task(task_id)["status"] == "CLAIMED"
    assert world.claim().claimed == 0


@pytest.mark.parametrize("away", ["amqp_url", "postgres_dsn"])
def test_services_away_are_the_sweeps_matter(world: World, away: str) -> None:
    world.submit()
    addresses = {"amqp_url": "amqp://guest:guest@127.0.0.1:1/none", "postgres_dsn": "host=127.0.0.1 port=1"}
    backends = replace(world.backends, **{away: addresses[away]})
    Wakeups(world.backends.redis_url).clear("normal")
    assert wake_waiting(["normal"], backends, world.rules, world.runs) == []
