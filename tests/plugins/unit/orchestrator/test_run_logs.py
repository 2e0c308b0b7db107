"""Removing the logs of runs never leaves the logs folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from collect_ops.orchestrator.run_logs import remove_run_logs


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    for run_id in ("a", "b"):
        folder = tmp_path / "logs" / "dag_id=lane_bulk" / f"run_id={run_id}" / "task_id=claim"
        folder.mkdir(parents=True)
        (folder / "attempt=1.log").write_text("it claimed")
    return tmp_path / "logs"


def test_the_folders_of_runs_go_and_the_others_stay(logs: Path) -> None:
    assert remove_run_logs(logs, "lane_bulk", ["a", "never"]) == 1
    assert [path.name for path in (logs / "dag_id=lane_bulk").iterdir()] == ["run_id=b"]


def test_there_may_be_no_logs_at_all(tmp_path: Path, logs: Path) -> None:
    assert remove_run_logs(tmp_path / "none", "lane_bulk", ["a"]) == 0
    assert remove_run_logs(logs, "lane_urgent", ["a"]) == 0


@pytest.mark.parametrize("run_id", ["../../outside", "/outside", "a/../../outside", "x\0y", "..", ""])
def test_a_name_that_leads_out_is_left_alone(tmp_path: Path, logs: Path, run_id: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    assert remove_run_logs(logs, "lane_bulk", [run_id]) == 0
    assert remove_run_logs(logs, f"../{run_id}", ["a"]) == 0
    assert outside.exists()
    assert len(list((logs / "dag_id=lane_bulk").iterdir())) == 2


def test_links_are_not_followed(tmp_path: Path, logs: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "run_id=a").mkdir(parents=True)
    (logs / "dag_id=linked").symlink_to(outside)
    (logs / "dag_id=lane_bulk" / "run_id=linked").symlink_to(outside)
    (logs / "dag_id=lane_bulk" / "run_id=a" / "link").symlink_to(outside)
    assert remove_run_logs(logs, "linked", ["a"]) == 0
    assert remove_run_logs(logs, "lane_bulk", ["linked"]) == 0
    assert remove_run_logs(logs, "lane_bulk", ["a"]) == 1
    assert (outside / "run_id=a").exists()
