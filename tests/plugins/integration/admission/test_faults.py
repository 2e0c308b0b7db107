"""Faults between an admission's commit and its confirms: every task is there once, and gets its message."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from collect_ops.admission.model import Admission
from collect_ops.broker.consumer import Consumer
from collect_ops.broker.message import TaskMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.delivery import outbox
from collect_ops.lanes.claim import claim
from collect_ops.lanes.rules import LaneRules
from collect_ops.storage import Connection
from tests.plugins.integration.broker.link import Link, wait_until
from tests.plugins.integration.world import World, source

MANY = 1000


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())


@pytest.fixture
def link(world: World) -> Iterator[Link]:
    address = urlsplit(world.backends.amqp_url)
    found = Link((str(address.hostname), int(address.port or 5672)))
    yield found
    found.close()


def batch(world: World) -> list[object]:
    return [world.submission(params={"day": str(number)}) for number in range(MANY)]


def wide(rules: LaneRules) -> LaneRules:
    """A lane with room for all of them."""
    normal = rules.lanes["normal"].model_copy(update={"slots": 2 * MANY})
    return rules.model_copy(update={"lanes": {**rules.lanes, "normal": normal}})


def all_are_claimed_once(world: World) -> None:
    """Whatever was published twice moves its task once."""
    claimed = 0
    while done := claim("normal", world.backends, wide(world.rules), world.runs, actor="test").claimed:
        claimed += done
    assert claimed == MANY
    rows = world.rows("SELECT attempt, status, count(*) AS n FROM collect.task GROUP BY 1, 2")
    assert rows == [{"attempt": 1, "status": "CLAIMED", "n": MANY}]


def published_again(world: World, db: Connection) -> int:
    with Publisher(world.backends.amqp_url) as publisher:
        return outbox.run_once(db, publisher, world.rules, older_than_s=0).found


@pytest.mark.parametrize("size_bytes", [20_000, 60_000, 100_000])
def test_a_connection_cut_between_publish_and_confirm(
    world: World, link: Link, db: Connection, size_bytes: int
) -> None:
    link.cut_after(size_bytes)
    service = world.service(replace(world.backends, amqp_url=link.url(world.backends.amqp_url)))
    answers = service.admit_batch(batch(world))  # type: ignore[arg-type]
    assert all(isinstance(answer, Admission) and answer.duplicate_of is None for answer in answers)
    unknown = world.rows("SELECT count(*) AS n FROM collect.task WHERE confirmed_generation = 0")[0]["n"]
    assert unknown > 0, "the cut came before the last confirm"
    assert published_again(world, db) == unknown
    with Consumer(world.backends.amqp_url) as consumer:
        found = consumer.take(world.rules.queue("normal"), 3 * MANY)
    assert len({TaskMessage.decode(one.body).task_id for one in found}) == MANY
    all_are_claimed_once(world)


def test_a_database_that_dies_between_store_and_publish(world: World, link: Link, db: Connection) -> None:
    """The callers are told all the same: what is left to do is the outbox's."""
    service = world.service(replace(world.backends, amqp_url=link.url(world.backends.amqp_url)))
    link.holding.set()
    submissions = batch(world)
    with ThreadPoolExecutor(1) as pool:
        admitting = pool.submit(service.admit_batch, submissions)  # type: ignore[arg-type]
        wait_until(lambda: bool(world.rows("SELECT 1 FROM collect.task LIMIT 1")))
        killed = db.execute(
            "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity "
            "WHERE application_name = 'collect-ops admission' AND datname = current_database()"
        ).fetchone()
        assert killed is not None
        assert killed["n"] >= 1
        link.holding.clear()
        link.cut()
        answers = admitting.result(60)
    ids = {answer.task_id for answer in answers if isinstance(answer, Admission)}
    assert len(ids) == MANY
    again = world.service().admit_batch(submissions)  # type: ignore[arg-type]
    assert {answer.task_id for answer in again if isinstance(answer, Admission) and answer.known} == ids
    assert published_again(world, db) > 0
    all_are_claimed_once(world)


def test_a_broker_that_holds_everything_back_keeps_no_caller_waiting_for_ever(
    world: World, link: Link, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a memory alarm: RabbitMQ takes the connection and reads nothing more from it."""
    monkeypatch.setattr("collect_ops.admission.lines.Publisher", lambda url: Publisher(url, timeout_s=1.0))
    first, *rest = batch(world)
    with world.service(replace(world.backends, amqp_url=link.url(world.backends.amqp_url))) as service:
        service.admit(first)  # type: ignore[arg-type]  # opens the connection
        link.holding.set()
        began = time.monotonic()
        answers = service.admit_batch(rest)  # type: ignore[arg-type]
        assert time.monotonic() - began < 15
        link.holding.clear()
    assert all(isinstance(answer, Admission) for answer in answers)
    assert published_again(world, db) == MANY - 1
    all_are_claimed_once(world)
