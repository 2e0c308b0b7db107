"""kill -9 in the middle of a demo-sized run, one process at a time (`make chaos`).

336,776 rows, a second of pause before each request, so that the run lasts about 25 s; the strike comes when 30 % of
the rows have landed. What came of each is appended to recoveries.jsonl in the stack's folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest

from demo.run import submit
from tests.e2e.kills import (
    Checked,
    Middle,
    Recovery,
    empty_table,
    end_of,
    flights,
    kill_client,
    readings,
    record,
    recover,
    wait_until_cleared,
    wait_until_run_ended,
)
from tests.e2e.running_stack import RunningStack, wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.stack, pytest.mark.timeout(600)]
DELAY_S = 1.0


def service(name: str) -> Callable[[Middle], None]:
    return lambda middle: middle.kill_service(name)


def everything(middle: Middle) -> None:
    for name in ("rabbitmq", "redis", "triggerer", "scheduler"):
        middle.kill_service(name)
    middle.kill_service("postgres")


STRIKES: dict[str, Callable[[Middle], None]] = {
    "nothing": lambda _: None,
    "shard group": Middle.kill_group,
    "scheduler": service("scheduler"),
    "api-server": service("api-server"),
    "triggerer": service("triggerer"),
    "dag-processor": service("dag-processor"),
    "PostgreSQL": service("postgres"),
    "RabbitMQ": service("rabbitmq"),
    "Redis": service("redis"),
    "Redis FLUSHALL": Middle.flush_redis,
    "RabbitMQ, Redis, triggerer, scheduler and PostgreSQL at once": everything,
}


@pytest.mark.parametrize("victim", STRIKES)
def test_a_demo_sized_run_outlives_it(stack: RunningStack, victim: str) -> None:
    recovery = recover(stack, victim, STRIKES[victim], flights(stack, delay_s=DELAY_S))
    record(stack, recovery)
    assert recovery.exact, recovery
    assert recovery.retries == 0, "a crash is not a failure"


def test_a_task_outlives_its_planning(stack: RunningStack) -> None:
    """kill -9 of the plan process while it asks the source for its total."""
    load = readings(stack, rows=2000, delay_s=1.0)
    with load.served() as checked:
        empty_table(stack, "landing.example_offset")
        task_id = submit(stack.airflow, load.source, force=True).task_id
        kill_client(stack, "collect-ops plan")
        check_recovered(stack, task_id, "plan process", checked)


def test_a_task_outlives_its_claim(stack: RunningStack) -> None:
    """kill -9 of the claim inside its transaction: it waits there for a lock that this test holds."""
    load = readings(stack, rows=2000, delay_s=0.0)
    with load.served() as checked:
        empty_table(stack, "landing.example_offset")
        (newest,) = stack.rows("SELECT coalesce(max(id), 0) AS id FROM collect.task")
        with psycopg.connect(stack.settings.postgres_dsn) as holder:
            holder.execute("LOCK TABLE collect.trace IN ACCESS EXCLUSIVE MODE")
            stack.trigger("collect_submit", {"source": load.source, "force": True})
            kill_client(stack, "collect-ops claim normal")
        task_id = wait_for(
            "the submitted task",
            lambda: stack.rows("SELECT id FROM collect.task WHERE id > %s", newest["id"]),
            30,
        )[0]["id"]
        check_recovered(stack, task_id, "claim process", checked)


def check_recovered(stack: RunningStack, task_id: int, victim: str, checked: Checked) -> None:
    """The task completes by itself, exact, and leaves nothing behind."""
    struck = time.monotonic()
    ended = end_of(stack, task_id, f"after {victim} was struck")
    completed_s = round(time.monotonic() - struck, 1)
    run_state = wait_until_run_ended(stack, ended["dag_id"], ended["run_id"])
    wait_until_cleared(stack)
    rows, exact = checked()
    recovery = Recovery(
        victim=victim,
        source=ended["source"],
        at_rows=0,
        completed_s=completed_s,
        again_s=None,
        attempts=ended["attempt"],
        lost=ended["lost_count"],
        retries=ended["retry_count"],
        status=ended["status"],
        run_state=run_state,
        rows=rows,
        expected_rows=2000,
        checksum_ok=exact,
        leases_left=stack.leases(),
        groups_left=stack.open_groups(),
    )
    record(stack, recovery)
    assert recovery.exact, recovery
    assert recovery.retries == 0, "a crash is not a failure"
