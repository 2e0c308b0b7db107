"""Airflow's log files: what is old goes, nothing outside is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from collect_ops.kernel.backends import SettingMissing
from collect_ops.maintenance.airflow_records import TABLES, LogsDeleted, clean_metadata, delete_logs

NOW_S = 1_800_000_000.0
DAY_S = 86_400


def write(path: Path, *, age_days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("12345")
    stamp = NOW_S - age_days * DAY_S
    os.utime(path, (stamp, stamp))
    return path


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_old_files_go_with_the_folders_that_they_leave_empty(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    old = write(logs / "dag_id=a" / "run_id=1" / "task_id=t" / "attempt=1.log", age_days=31)
    young = write(logs / "dag_id=a" / "run_id=2" / "task_id=t" / "attempt=1.log", age_days=29)
    mixed = write(logs / "dag_id=b" / "run_id=3" / "attempt=1.log", age_days=40)
    late = write(mixed.parent / "attempt=2.log", age_days=1)
    fresh = logs / "dag_id=c" / "run_id=4"
    fresh.mkdir(parents=True)
    os.utime(fresh, (NOW_S, NOW_S))
    before = files_below(logs)
    dry = delete_logs(logs, 30, dry_run=True, now_s=NOW_S)
    assert (dry.files, dry.size_bytes) == (2, 10)
    assert files_below(logs) == before
    done = delete_logs(logs, 30, now_s=NOW_S)
    assert (done.files, done.size_bytes, done.folders) == (2, 10, 2)
    assert not old.parent.parent.exists()
    assert young.exists()
    assert late.exists()
    assert fresh.exists()
    assert delete_logs(logs, 30, now_s=NOW_S).files == 0


def test_what_cannot_be_deleted_keeps_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "bad", "c"):
        write(tmp_path / "logs" / name / "attempt=1.log", age_days=31)
    really = os.unlink

    def unlink(path: str, *, dir_fd: int) -> None:
        if os.path.samestat(os.fstat(dir_fd), (tmp_path / "logs" / "bad").stat()):
            raise PermissionError(13, "Permission denied", path)
        really(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    done = delete_logs(tmp_path / "logs", 30, now_s=NOW_S)
    assert (done.files, done.failed) == (2, 1)
    assert str(tmp_path / "logs" / "bad" / "attempt=1.log") in done.failures[0]
    assert files_below(tmp_path / "logs") == {"bad", "bad/attempt=1.log"}


def test_no_link_is_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "elsewhere" / "precious.log", age_days=1000)
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "folder").symlink_to(outside.parent)
    (logs / "file.log").symlink_to(outside)
    (tmp_path / "as_link").symlink_to(outside.parent)
    assert delete_logs(logs, 30, now_s=NOW_S).files == 0
    assert delete_logs(tmp_path / "as_link", 30, now_s=NOW_S) == LogsDeleted()
    assert delete_logs(tmp_path / "missing", 30, now_s=NOW_S) == LogsDeleted()
    assert outside.exists()


def test_the_database_must_be_named() -> None:
    with pytest.raises(SettingMissing):
        clean_metadata(30, environment={})


def test_every_table_is_known_to_airflow_or_left_alone_on_purpose() -> None:
    from airflow.utils.db_cleanup import config_dict

    assert set(config_dict) - set(TABLES) == {"dag", "trigger", "_xcom_archive"}
    assert set(TABLES) <= set(config_dict)
