"""The folders in which Airflow keeps the logs of runs, on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def remove_run_logs(logs: Path, dag_id: str, run_ids: Iterable[str]) -> int:
    """Remove the log folders of runs, `dag_id=…/run_id=…`; returns how many were there.

    Nothing outside of the logs folder is touched, whatever links lie in it: every step goes down from an open folder,
    and none follows a link. A name that is none is left alone.

    Args:
        logs: Airflow's `[logging] base_log_folder`.
        dag_id: Whose runs.
        run_ids: The runs.

    Raises:
        OSError: A folder cannot be removed.
    """
    try:
        base = os.open(logs, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return 0
    try:
        return _remove_below(base, f"dag_id={dag_id}", [f"run_id={run_id}" for run_id in run_ids])
    finally:
        os.close(base)


def _remove_below(base: int, dag_folder: str, run_folders: Iterable[str]) -> int:
    if not _is_name(dag_folder):
        return 0
    try:
        folder = os.open(dag_folder, _FOLDER, dir_fd=base)
    except (FileNotFoundError, NotADirectoryError):
        return 0  # no logs yet; or a link, which is not ours
    try:
        return sum(_remove(folder, name) for name in run_folders)
    finally:
        os.close(folder)


def _remove(folder: int, name: str) -> bool:
    if not _is_name(name):
        return False
    try:
        found = os.open(name, _FOLDER, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    os.close(found)
    # Safe against links that are put in its place meanwhile: rmtree compares what it has opened.
    try:
        shutil.rmtree(name, dir_fd=folder)
    except FileNotFoundError:  # another pass removes it too
        return False
    return True


def _is_name(name: str) -> bool:
    return "/" not in name and "\0" not in name
