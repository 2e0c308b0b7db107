"""The line that says how far a task is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from collect_ops.cli.task import line
from collect_ops.tasks.lifecycle import TaskStatus
from collect_ops.tasks.progress import Progress

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def a_progress(**changes: Any) -> Progress:
    fields: dict[str, Any] = {
        "task_id": 1, "source": "things", "status": TaskStatus.PARTIAL, "reason": None, "priority": 5, "lane": "normal",
        "attempt": 1, "retry_count": 0, "lost_count": 0, "dag_id": None, "run_id": None, "total_rows": 40,
        "shards_total": 1, "shards_done": 1, "shards_failed": 0, "rows_fetched": 40, "rows_landed": 40, "bad_rows": 0,
        "bytes": 0, "unchanged_pages": 0, "unchanged_rows": 0, "created_at": NOON, "started_at": NOON,
        "finished_at": NOON, "elapsed_s": 1.0, "quiet_s": 0.0,
    }  # fmt: skip
    return Progress(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repeated_rows": 20}, "20 rows fetched twice"),
        ({"repeated_unknown": True}, "rows fetched twice: not counted"),
        ({"repeated_rows": 0}, None),
        ({"repeated_unknown": True, "rows_landed": 0}, None),
        ({}, None),
    ],
)
def test_rows_fetched_twice_are_told(changes: dict[str, Any], said: str | None) -> None:
    found = line(a_progress(**changes))
    assert ("twice" in found) == (said is not None)
    assert said is None or said in found
