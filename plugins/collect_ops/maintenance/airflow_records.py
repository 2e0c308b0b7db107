"""Airflow's own records: rows of its metadata database, by its own command, and log files of runs and processes.

The command needs the metadata database, which tasks cannot reach: it runs beside the scheduler, never in a DAG.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from collect_ops.kernel.backends import SettingMissing
from collect_ops.kernel.errors import CollectOpsError
from collect_ops.maintenance.retention_rules import DAY_S
from collect_ops.storage import connect

log = logging.getLogger(__name__)

DATABASE_VARIABLE: Final = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
LOGS_VARIABLE: Final = "AIRFLOW__LOGGING__BASE_LOG_FOLDER"
#: What `airflow db clean` knows, without two. `dag`: a folder that was away for a month would come back without knowing
#: which DAGs were paused. `trigger`: by age alone it deletes what has watched queues since the stack was made; the
#: triggerer itself deletes those that nothing waits for.
TABLES: Final = (
    "asset_event", "callback", "celery_taskmeta", "celery_tasksetmeta", "connection_test_request", "dag_run",
    "dag_version", "deadline", "import_error", "job", "log", "partitioned_asset_key_log", "revoked_token",
    "task_instance", "task_instance_history", "task_reschedule", "task_state_store", "xcom",
)  # fmt: skip
_OLDEST_OPEN_RUN: Final = """
SELECT dag_id, run_id, start_date AS began FROM dag_run
WHERE state = 'running' AND start_date IS NOT NULL ORDER BY start_date LIMIT 1
"""
#: Rows in one of its transactions.
_BATCH: Final = 5000
#: Lines of its output that an error repeats.
_MOST_LINES: Final = 20
#: Failures of a pass over logs that are told in full.
_MOST_FAILURES: Final = 5


class CleaningFailed(CollectOpsError):
    """`airflow db clean` did not end well."""

    def __init__(self, status: int, output: str) -> None:
        self.status = status
        end = "\n".join(output.strip().splitlines()[-_MOST_LINES:])
        super().__init__(f"airflow db clean ended with status {status}: {end}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsDeleted:
    """Log files that a pass deleted, or would delete.

    Attributes:
        files: Deleted.
        size_bytes: Of them.
        folders: Deleted, since nothing was left in them.
        failed: Files and folders that could not be looked at or deleted.
        failures: Why, of the first ones.
    """

    files: int = 0
    size_bytes: int = 0
    folders: int = 0
    failed: int = 0
    failures: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def clean_metadata(
    days: float,
    *,
    dry_run: bool = False,
    environment: Mapping[str, str] = os.environ,
    now: datetime | None = None,
) -> str:
    """Delete old rows of Airflow's metadata database; returns what `airflow db clean` wrote.

    Each DAG's newest run that was not started by hand stays: Airflow computes the next from it. Runs that have not
    ended stay, and with them all that is younger: the command goes by when a run began, whatever its state.

    Args:
        days: Rows that are older go.
        dry_run: Count only.
        environment: Names the database.
        now: The present; the clock's when not given.

    Raises:
        SettingMissing: No database is named.
        DatabaseUnavailable: It does not answer.
        CleaningFailed: The command failed.
    """
    if not environment.get(DATABASE_VARIABLE):
        raise SettingMissing((DATABASE_VARIABLE,))
    before, kept = (now or datetime.now(UTC)) - timedelta(days=days), ""
    oldest = _oldest_open_run(environment[DATABASE_VARIABLE])
    if oldest is not None and oldest.began < before:
        before = oldest.began
        kept = (
            f"run {oldest.run_id} of DAG {oldest.dag_id} has not ended: nothing is deleted from {before} on\n"
        )
        log.warning("%s", kept.strip())
    command = [
        sys.executable, "-m", "airflow", "db", "clean", "--yes", "--skip-archive", "--error-on-cleanup-failure",
        "--clean-before-timestamp", before.isoformat(), "--batch-size", str(_BATCH), "--tables", ",".join(TABLES),
        *(["--dry-run"] if dry_run else []),
    ]  # fmt: skip
    done = subprocess.run(  # noqa: S603 - a fixed command
        command,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CleaningFailed(done.returncode, done.stdout)
    log.info("Airflow's metadata before %s: %s", before, "counted" if dry_run else "deleted")
    return kept + done.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenRun:
    dag_id: str
    run_id: str
    began: datetime


def _oldest_open_run(database: str) -> _OpenRun | None:
    """The run that has not ended and began first.

    Args:
        database: Airflow's, as SQLAlchemy names it.
    """
    dsn = re.sub(r"^postgresql\+\w+:", "postgresql:", database)
    with connect(dsn, application_name="collect-ops retention") as connection:
        row = connection.execute(_OLDEST_OPEN_RUN).fetchone()
    return _OpenRun(**row) if row else None


def delete_logs(
    folder: Path, days: float, *, dry_run: bool = False, now_s: float | None = None
) -> LogsDeleted:
    """Delete log files that have not been written to for so long, and folders that are empty and as old.

    Never follows a link, so nothing outside the folder is touched. What cannot be deleted keeps nothing else; it is
    counted, and raises nothing.

    Args:
        folder: Airflow's base folder of logs on this machine; one that is not there holds nothing.
        days: Files that are older go.
        dry_run: Count only.
        now_s: The present, in seconds since 1970; the clock's when not given.
    """
    before_s = (time.time() if now_s is None else now_s) - days * DAY_S
    if folder.is_symlink() or not folder.is_dir():
        return LogsDeleted()
    done = _Cleaning(before_s=before_s, dry_run=dry_run)
    # By descriptors: a folder that somebody replaces by a link meanwhile is not entered.
    for place, folders, files, handle in os.fwalk(
        folder, topdown=False, onerror=done.note, follow_symlinks=False
    ):
        done.clean(place, folders, files, handle)
    found = LogsDeleted(
        files=done.files,
        size_bytes=done.size_bytes,
        folders=done.folders,
        failed=done.failed,
        failures=tuple(done.failures),
    )
    log.log(logging.WARNING if done.failed else logging.INFO, "logs below %s: %s", folder, found)
    return found


@dataclass(slots=True, kw_only=True)
class _Cleaning:
    """A walk through log folders, the innermost first."""

    before_s: float
    dry_run: bool
    files: int = 0
    size_bytes: int = 0
    folders: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    #: Folders of which something was deleted, or that are old: to be deleted if nothing is in them.
    _leaving: set[tuple[int, int]] = field(default_factory=set)

    def note(self, error: OSError) -> None:
        """Count something that failed, and go on."""
        self.failed += 1
        if len(self.failures) < _MOST_FAILURES:
            self.failures.append(str(error))

    def clean(self, place: str, folders: list[str], files: list[str], handle: int) -> None:
        """Delete what is old in one folder."""
        own = os.fstat(handle)
        deleted = [name for name in files if self._attempt(self._delete_file, place, name, handle)]
        deleted += [name for name in folders if self._attempt(self._delete_folder, place, name, handle)]
        if deleted or own.st_mtime < self.before_s:
            self._leaving.add((own.st_dev, own.st_ino))

    def _attempt(self, delete: Callable[[str, int], bool], place: str, name: str, handle: int) -> bool:
        try:
            return delete(name, handle)
        except OSError as error:
            self.note(OSError(error.errno, error.strerror, f"{place}/{name}"))
            return False

    def _delete_file(self, name: str, handle: int) -> bool:
        status = _status(name, handle)
        if status is None or not stat.S_ISREG(status.st_mode) or status.st_mtime >= self.before_s:
            return False
        if not self.dry_run:
            with suppress(FileNotFoundError):  # another pass was faster
                os.unlink(name, dir_fd=handle)
        self.files += 1
        self.size_bytes += status.st_size
        return True

    def _delete_folder(self, name: str, handle: int) -> bool:
        status = _status(name, handle)
        if self.dry_run or status is None or (status.st_dev, status.st_ino) not in self._leaving:
            return False
        try:
            os.rmdir(name, dir_fd=handle)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
                return False  # younger files, or somebody else's work
            raise
        self.folders += 1
        return True


def _status(name: str, handle: int) -> os.stat_result | None:
    """Of the entry itself, not of what a link points to; None when it is gone."""
    try:
        return os.stat(name, dir_fd=handle, follow_symlinks=False)
    except FileNotFoundError:
        return None
