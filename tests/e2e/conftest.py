"""The stack that the environment names, and a source's server that its example sources point at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.run import unpause_needed
from tests.e2e.kills import empty_table, point_connection
from tests.e2e.running_stack import RunningStack
from tests.servers.paged import PagedServer


@pytest.fixture(scope="session")
def running_stack() -> Iterator[RunningStack]:
    """The running stack, with the DAGs that a task passes through unpaused."""
    stack = RunningStack.from_environment()
    stack.wait_until_healthy()
    unpause_needed(stack.airflow)
    yield stack
    stack.close()


@pytest.fixture
def stack(running_stack: RunningStack) -> Iterator[RunningStack]:
    """The running stack, left healthy whatever the test did to it."""
    yield running_stack
    running_stack.wait_until_healthy()


@pytest.fixture
def server(stack: RunningStack) -> Iterator[PagedServer]:
    """What the example sources collect from: 2,000 rows, four shards in two groups."""
    empty_table(stack, "landing.example_offset")
    with PagedServer(rows=2000) as running:
        point_connection(stack, "example_api", running.base_url)
        yield running
