"""Whatever happens: each task is in one state, ends, and lands its rows once (see `lives`)."""

from __future__ import annotations

import os
from collections.abc import Callable

import pika
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.plugins.integration.delivery.lives import Lives
from tests.plugins.integration.world import World
from tests.servers.paged import PagedServer


@pytest.fixture
def purge(world: World) -> Callable[[], None]:
    connection = pika.BlockingConnection(pika.URLParameters(world.backends.amqp_url))
    channel = connection.channel()
    queues = [queue.name for queue in world.rules.topology().queues]

    def act() -> None:
        for queue in queues:
            channel.queue_purge(queue)

    yield act
    connection.close()


@pytest.mark.timeout(3600)
def test_random_lives_of_everything(
    world: World, serve: Callable[..., PagedServer], purge: Callable[[], None]
) -> None:
    server = serve(rows=1000)
    world.serve_from(server.base_url)
    client = redis.Redis.from_url(world.backends.redis_url)
    examples = int(os.environ.get("LIVES_EXAMPLES", "4"))
    run_state_machine_as_test(
        lambda: Lives(world, server, purge, client.flushdb),
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{examples} examples, {Lives.steps} steps; moves: {dict(Lives.seen.most_common())}")
    client.close()
