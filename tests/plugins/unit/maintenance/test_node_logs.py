"""A node's own old logs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.maintenance.node_logs import NodeLogs, kept_days
from collect_ops.maintenance.retention_rules import retention_rules

DAY_S = 86_400


def log_file(folder: Path, name: str, days: float) -> Path:
    path = folder / f"dag_id=collect_bulk/run_id={name}/task_id=collect/attempt=1.log"
    path.parent.mkdir(parents=True)
    path.write_text("a line\n")
    os.utime(path, (time.time() - days * DAY_S,) * 2)
    return path


def wait_until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_older_than_the_rules_keep_goes(tmp_path: Path) -> None:
    days = retention_rules().airflow.logs
    old, young = log_file(tmp_path, "old", days + 1), log_file(tmp_path, "young", days - 1)
    assert NodeLogs(folder=tmp_path).run_once().files == 1
    assert not old.parents[1].exists()
    assert young.exists()
    assert kept_days() == days


def test_a_pass_that_fails_is_followed_by_the_next(tmp_path: Path) -> None:
    """The node goes on: rules that somebody is just writing are no reason to stop it."""
    asked: list[float] = []

    def days() -> float:
        asked.append(time.monotonic())
        if len(asked) == 1:
            raise ValidationFailed(
                "retention.yaml", [Fault(field="airflow", value=0, problem="must be more")]
            )
        return 1.0

    old, stopping = log_file(tmp_path, "old", 2), threading.Event()
    thread = NodeLogs(folder=tmp_path, days=days, every_s=0.01).start(stopping)
    wait_until(lambda: not old.exists())
    stopping.set()
    thread.join(20)
    assert not thread.is_alive()
    assert len(asked) > 1


@pytest.mark.parametrize("environment", [{}, {"AIRFLOW__LOGGING__BASE_LOG_FOLDER": ""}])
def test_where_nobody_says_where_logs_are_none_are_looked_for(environment: dict[str, str]) -> None:
    assert NodeLogs.of(environment) is None


def test_a_folder_that_is_not_there_yet_holds_nothing(tmp_path: Path) -> None:
    named = NodeLogs.of({"AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(tmp_path / "none")})
    assert named is not None
    assert named.run_once().files == 0
