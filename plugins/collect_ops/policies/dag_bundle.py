"""The DAGs folder as Airflow's dag-processor reads it: again when what its files read has changed.

Airflow parses a DAG file again when the file has changed, and all of them every `min_file_process_interval` seconds,
which costs 0.2 s of processor time a file. Here what a DAG file reads (`include/sources`) and whether its DAG is paused
count as well: they are looked at with each refresh of the bundle, and the files concerned are parsed at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.dag_processing.bundles.local import LocalDagBundle
from airflow.models.dag import DagModel
from airflow.models.dagbag import DagPriorityParsingRequest
from airflow.models.dagrun import DagRun
from airflow.utils.file import list_py_file_paths
from airflow.utils.session import create_session
from airflow.utils.state import State
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from collect_ops.sources.load import source_files


@dataclass(frozen=True, slots=True)
class _Seen:
    """What parsing depends on besides the DAG files themselves.

    Args:
        declared: Source files by path: when they were changed (ns), and their size in bytes.
        active: DAGs that are not paused, with their files. Airflow starts and ends the watchers of a DAG when it parses
            it.
    """

    declared: frozenset[tuple[Path, int, int]]
    active: frozenset[tuple[str, str]]


class DagsFolder(LocalDagBundle):
    """A local folder of DAG files that is parsed again at once when a source was declared, or a DAG paused or unpaused.

    Only the dag-processor refreshes it; to other processes it is a `LocalDagBundle`.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._seen: _Seen | None = None

    def refresh(self) -> None:
        """Ask for files to be parsed whose DAGs may have changed since the last refresh, or are held back."""
        with create_session() as session:
            seen = self._look(session)
            concerned = set() if self._seen is None else self._concerned(self._seen, seen)
            self._ask_for(concerned | self._held_back(session), session)
        self._seen = seen

    def _look(self, session: Session) -> _Seen:
        active = select(DagModel.dag_id, DagModel.relative_fileloc).where(
            DagModel.bundle_name == self.name, DagModel.is_paused.is_(False)
        )
        return _Seen(
            declared=frozenset(_state(path) for path in source_files()),
            active=frozenset((dag_id, file) for dag_id, file in session.execute(active) if file),
        )

    def _concerned(self, before: _Seen, now: _Seen) -> set[str]:
        if before.declared != now.declared:  # any file may read the declarations
            return {str(Path(path).relative_to(self.path)) for path in list_py_file_paths(self.path)}
        return {file for _dag_id, file in before.active ^ now.active}

    def _held_back(self, session: Session) -> set[str]:
        """Files of DAGs that Airflow takes for full although they are not: it starts no run of them for their schedule.

        A parse notes how many runs are active. When one ends meanwhile the note is wrong until the next parse, or until
        somebody triggers a run, which then ends.
        """
        active = (
            select(func.count())
            .where(DagRun.dag_id == DagModel.dag_id, DagRun.state.in_(State.unfinished_dr_states))
            .scalar_subquery()
        )
        full = select(DagModel.relative_fileloc).where(
            DagModel.bundle_name == self.name,
            DagModel.exceeds_max_non_backfill.is_(True),
            DagModel.max_active_runs > active,
        )
        return {file for file in session.scalars(full) if file}

    def _ask_for(self, files: set[str], session: Session) -> None:
        """As Airflow's REST API does it for one file; twice is as good as once."""
        if files:
            asked = [{"bundle_name": self.name, "relative_fileloc": file} for file in sorted(files)]
            session.execute(insert(DagPriorityParsingRequest).on_conflict_do_nothing(), asked)


def _state(path: Path) -> tuple[Path, int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:  # removed since it was listed
        return path, 0, 0
    return path, status.st_mtime_ns, status.st_size
