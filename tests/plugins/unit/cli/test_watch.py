"""What `watch` and `submit --wait` print where there is no screen, and the line that a screen shows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from collect_ops.cli import task as commands
from collect_ops.tasks.lifecycle import TaskStatus
from collect_ops.tasks.progress import Progress

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def progress(**fields: Any) -> Progress:
    empty: dict[str, Any] = dict.fromkeys(Progress.__dataclass_fields__, 0)
    known = {"task_id": 7, "source": "things", "status": TaskStatus.RUNNING, "lane": "normal", "attempt": 1}
    unknown = dict.fromkeys(("reason", "dag_id", "run_id", "swap", "finished_at", "elapsed_s"))
    times = {"created_at": NOW, "started_at": NOW, "replaces": False, "total_rows": 100, "shards_total": 2}
    return Progress(**{**empty, **known, **unknown, **times, **fields})


@pytest.mark.parametrize(("every_s", "lines"), [(0.0, 4), (3600.0, 2)])
def test_a_line_for_each_change_of_state_and_few_for_rows(
    every_s: float, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    first = progress(status=TaskStatus.QUEUED)
    running = progress(rows_landed=10, rows_fetched=10)
    more = replace(running, rows_landed=20, rows_fetched=20)
    with commands._Lines(commands.line, rows_every_s=every_s) as show:
        for each in (
            first,
            first,
            running,
            running,
            more,
            more,
            replace(more, rows_landed=30, rows_fetched=30),
        ):
            show(each)
    assert len(capsys.readouterr().out.splitlines()) == lines


@pytest.mark.parametrize(
    ("fields", "in_target", "words"),
    [
        ({"rows_landed": 40, "rows_fetched": 60}, 40, "40 of 100 rows landed · shards 0/2 · 60 fetched"),
        (
            {"rows_landed": 40, "replaces": True},
            0,
            "40 of 100 rows landed aside, none of them in the table yet",
        ),
        ({"rows_landed": 40, "replaces": True, "swap": "SWAPPED"}, 40, "40 of 100 rows landed ·"),
        ({"rows_landed": 40, "replaces": True, "swap": "KEPT"}, 0, "landed and dropped: the table keeps"),
        ({"rows_landed": 40, "replaces": True, "swap": "SUPERSEDED"}, 0, "landed and dropped: a newer task"),
    ],
)
def test_the_line_says_where_the_rows_are(fields: dict[str, Any], in_target: int, words: str) -> None:
    shown = progress(**fields)
    assert shown.rows_in_target == in_target
    assert words in commands.line(shown)
