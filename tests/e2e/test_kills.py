"""kill -9 in the middle of a run, short form: 6,000 rows, one process at a time.

`make chaos` has the long form, the scheduler and Redis' keys among it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.kills import Middle, point_connection, readings, readings_are_exact, recover
from tests.e2e.running_stack import RunningStack, wait_for
from tests.servers.paged import PagedServer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]
ROWS = 6000
DELAY_S = 0.5


@pytest.mark.parametrize(
    ("victim", "strike"),
    [
        ("shard group", Middle.kill_group),
        ("PostgreSQL", lambda middle: middle.kill_service("postgres")),
        ("RabbitMQ", lambda middle: middle.kill_service("rabbitmq")),
        ("Redis", lambda middle: middle.kill_service("redis")),
    ],
    ids=["group", "postgres", "rabbitmq", "redis"],
)
def test_a_run_outlives_it(stack: RunningStack, victim: str, strike: Callable[[Middle], None]) -> None:
    recovery = recover(stack, victim, strike, readings(stack, rows=ROWS, delay_s=DELAY_S))
    assert recovery.exact, recovery
    assert recovery.retries == 0, "a crash is not a failure"


def test_a_task_submitted_while_the_broker_is_away_is_collected(
    stack: RunningStack, server: PagedServer
) -> None:
    point_connection(stack, "example_api", server.base_url)
    Middle(stack=stack, task_id=0, rows=0).kill_service("rabbitmq")
    admitted = stack.submit({"source": "example_offset", "force": True}, 120)
    ended = wait_for(
        "the end of a task that was admitted without a broker",
        lambda: stack.rows(
            "SELECT * FROM collect.task WHERE id = %s AND finished_at IS NOT NULL", admitted["task_id"]
        ),
        150,
    )[0]
    assert ended["status"] == "COMPLETED"
    assert readings_are_exact(stack, 2000)
