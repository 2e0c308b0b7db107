"""Backlog rules on the running stack: Airflow's own pool is widened and narrowed by the service's user."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.running_stack import RunningStack, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]
POOL = "collect_bulk"


@pytest.fixture
def widened(stack: RunningStack) -> Iterator[int]:
    """A lane that shall have one slot more than it has; yields the slots it has."""
    before = slots(stack)
    stack.execute(
        "INSERT INTO collect.lane_setting (lane, pool_wanted, pool_dirty) VALUES ('bulk', %s, true) "
        "ON CONFLICT (lane) DO UPDATE SET pool_wanted = excluded.pool_wanted, pool_dirty = true",
        before + 1,
    )
    yield before
    stack.rest("PATCH", f"/pools/{POOL}", body={"pool": POOL, "slots": before, "include_deferred": False})
    stack.execute("DELETE FROM collect.lane_setting WHERE lane = 'bulk'")


def slots(stack: RunningStack) -> int:
    answer = stack.rest("GET", f"/pools/{POOL}")
    assert answer.status_code == 200, answer.text
    return int(answer.json()["slots"])


def test_the_dag_samples_and_sets_the_pool_to_what_rules_want(stack: RunningStack, widened: int) -> None:
    """No rule wants the slot that is wanted here, so one evaluation takes the wish back, and another tells Airflow."""
    stack.rest(
        "PATCH", f"/pools/{POOL}", body={"pool": POOL, "slots": widened + 1, "include_deferred": False}
    )
    assert slots(stack) == widened + 1
    run_id = stack.trigger("collect_backlog", {}).json()["dag_run_id"]
    assert stack.run_ended("collect_backlog", run_id)["state"] == "success", stack.log(
        "collect_backlog", run_id, "evaluate"
    )
    assert wait_for("the pool as lanes.yaml has it", lambda: slots(stack) == widened, 90)
    told = stack.airflow.xcom("collect_backlog", run_id, "evaluate")
    assert set(told["backlog"]["lanes"]) == {"urgent", "normal", "bulk"}
    assert told["problems"] == {}
    assert stack.rows("SELECT 1 FROM collect.backlog_sample WHERE at > now() - interval '3 minutes'")
    shown = stack.command("collect_ops.cli", "backlog")
    assert shown.returncode == 0, shown.stderr
    assert "lane bulk" in shown.stdout
