"""RabbitMQ's memory alarm: publishers are blocked, callers get their task all the same, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from stack import rabbitmq, settings
from stack.layout import Layout
from tests.e2e.running_stack import RunningStack, wait_for
from tests.servers.paged import PagedServer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
USUAL = ("absolute", "1GB")  # as in config/rabbitmq.conf


def set_watermark(stack: RunningStack, *limit: str) -> None:
    """Memory beyond which the broker blocks its publishers, as a part of the machine's or in bytes."""
    found = settings.load(Layout(home=stack.settings.home))
    done = subprocess.run(
        ["/usr/lib/rabbitmq/bin/rabbitmqctl", "set_vm_memory_high_watermark", *limit],
        env={**os.environ, **rabbitmq.environment(found)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def alarmed(stack: RunningStack) -> Iterator[None]:
    set_watermark(stack, "0.00001")
    try:
        yield
    finally:
        set_watermark(stack, *USUAL)


def test_a_task_submitted_under_the_alarm_is_collected_after_it(
    stack: RunningStack, server: PagedServer, alarmed: None
) -> None:
    # By the command: Airflow's own messages to its workers go through the same broker, and wait as well.
    done = stack.command("collect_ops.cli", "submit", "example_offset", "--force", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    task_id = json.loads(done.stdout)["task_id"]
    (row,) = stack.rows(
        "SELECT status, generation, confirmed_generation FROM collect.task WHERE id = %s", task_id
    )
    assert (row["status"], row["confirmed_generation"]) == ("QUEUED", 0)
    set_watermark(stack, *USUAL)
    ended = wait_for(
        "the end of a task that was admitted under a memory alarm",
        lambda: stack.rows("SELECT * FROM collect.task WHERE id = %s AND finished_at IS NOT NULL", task_id),
        150,
    )[0]
    assert (ended["status"], ended["retry_count"]) == ("COMPLETED", 0)
