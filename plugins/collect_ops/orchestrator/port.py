"""What is reported to Airflow: how collect runs really ended, and which tables have new rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol


class RunOutcome(StrEnum):
    """How an Airflow run is doing, with what it ended as."""

    ACTIVE = "active"
    SUCCESS = "success"
    FAILED = "failed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRun:
    """What Airflow knows of a run.

    Args:
        outcome: How it is doing.
        note: What stands in its note, a person's words perhaps.
    """

    outcome: RunOutcome
    note: str = ""


class RunReports(Protocol):
    """Reporting on Airflow's runs. Every method raises `AirflowUnavailable` when Airflow did not take it."""

    def look(self, dag_id: str, run_id: str) -> KnownRun:
        """How a run is doing, and its note."""

    def write_note(self, dag_id: str, run_id: str, note: str) -> None:
        """Set a run's note; its state stays as it is."""

    def fail(self, dag_id: str, run_id: str, note: str) -> None:
        """Set a run failed that has ended, and its note."""


class AssetReports(Protocol):
    """Reporting that assets have changed. Every method raises `AirflowUnavailable` when Airflow did not take it."""

    def report_change(self, name: str, uri: str, extra: Mapping[str, Any]) -> bool:
        """Create an asset event; False when no DAG makes the asset known."""


class RunArchive(Protocol):
    """Airflow's ended runs. Every method raises `AirflowUnavailable` when Airflow did not answer."""

    def newest_scheduled(self, dag_id: str) -> frozenset[str]:
        """The scheduled run from which Airflow computes a DAG's next; none when it has none."""

    def ended_well(self, dag_id: str, before: datetime, *, limit: int, offset: int = 0) -> list[str]:
        """Runs of a DAG that ended well before a moment, the oldest first; of more than 100, Airflow names 100."""

    def delete_runs(self, dag_id: str, run_ids: Sequence[str], *, limit_s: float) -> int:
        """Delete runs of a DAG within so many seconds; returns how many there were. What is gone is no failure."""


class Reports(RunReports, AssetReports, RunArchive, Protocol):
    """All of it."""
