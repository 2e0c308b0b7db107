"""Random lives of tasks by the real statements: one state each, only legal moves, and a log that tells everything."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import LaneRules
from tests.examples import examples
from tests.plugins.integration.tasks.machine import TaskMachine


@pytest.mark.timeout(200)
def test_random_lives(postgres_dsn: str, rules: LaneRules) -> None:
    backends = Backends(postgres_dsn=postgres_dsn, redis_url="redis://127.0.0.1:1/0", amqp_url="")
    run_state_machine_as_test(
        lambda: TaskMachine(backends, rules),
        settings=settings(
            max_examples=examples(8),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
