"""Defaults that count from a scheduled run's moment: the same at each try of the run, other ones on the next day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.factories import source
from tests.plugins.integration.world import World

MOMENT = datetime(2026, 3, 29, 4, 30, tzinfo=UTC)
REQUEST = {
    "path": "/offset",
    "params": {
        "day": {"type": "date", "default": "today - 1 day"},
        "since": {"type": "datetime", "default": "{data_interval_start}"},
    },
    "query": {"day": "{day}", "since": "{since}"},
}


def test_a_scheduled_run_asks_for_its_own_interval(world: World) -> None:
    world.add(source(request=REQUEST, schedule="30 6 * * *", timezone="Europe/Berlin"))
    first = world.submit(as_of=MOMENT)
    assert world.task(first.task_id)["params"] == {"day": "2026-03-28", "since": "2026-03-28T05:30:00Z"}
    again = world.submit(as_of=MOMENT)
    assert again.duplicate_of == first.task_id, "the same interval is the same submission"
    next_day = world.submit(as_of=MOMENT + timedelta(days=1))
    assert next_day.duplicate_of is None
    params = world.task(next_day.task_id)["params"]
    assert params == {"day": "2026-03-29", "since": "2026-03-29T04:30:00Z"}
    given = world.submit(as_of=MOMENT, params={"day": "2025-01-01"})
    assert world.task(given.task_id)["params"]["day"] == "2025-01-01"


def test_what_was_admitted_does_not_move(world: World) -> None:
    """Run today or in a week, after a retry or a redrive: it asks for what it was admitted with."""
    world.add(source(request=REQUEST, schedule="@daily", retries={"http_attempts": 1, "max_retries": 0}))
    task = world.submit(as_of=MOMENT)
    before = world.task(task.task_id)["params"]
    world.claim_and_run()  # nobody listens there
    (trace,) = world.rows(
        "SELECT error ->> 'message' AS message FROM collect.trace WHERE task_id = %s AND stage = 'plan'",
        task.task_id,
    )
    assert "day=2026-03-28" in trace["message"]
    assert world.task(task.task_id)["params"] == before
