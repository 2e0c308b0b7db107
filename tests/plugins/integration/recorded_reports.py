"""`Reports` that keeps what was reported: what Airflow would show."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from collect_ops.orchestrator.errors import AirflowUnavailable
from collect_ops.orchestrator.port import KnownRun, RunOutcome


class RecordedReports:
    """Runs with state and note, assets with events; `away` refuses everything.

    `failing` is raised by what changes a run or an asset, `room` is how many events are taken before the time is up.
    """

    def __init__(self) -> None:
        self.away = False
        self.outcomes: dict[str, RunOutcome] = {}
        self.notes: dict[str, str] = {}
        self.unknown_assets: set[str] = set()
        self.failing: dict[str, AirflowUnavailable] = {}
        self.room: int | None = None
        self.asked: list[str] = []
        self.events: list[tuple[float, str, str, dict[str, Any]]] = []

    def look(self, dag_id: str, run_id: str) -> KnownRun:
        self.asked.append(run_id)
        self._answer()
        return KnownRun(outcome=self.outcomes.get(run_id, RunOutcome.ACTIVE), note=self.notes.get(run_id, ""))

    def write_note(self, dag_id: str, run_id: str, note: str) -> None:
        self._answer(run_id)
        self.notes[run_id] = note

    def fail(self, dag_id: str, run_id: str, note: str) -> None:
        self._answer(run_id)
        assert self.outcomes[run_id] is not RunOutcome.ACTIVE, "nothing changes a run that has not ended"
        self.outcomes[run_id] = RunOutcome.FAILED
        self.notes[run_id] = note

    def report_change(self, name: str, uri: str, extra: Mapping[str, Any]) -> bool:
        self.asked.append(name)
        self._answer(name)
        if self.room == 0:
            raise AirflowUnavailable("the time is up")
        if self.room is not None:
            self.room -= 1
        if name in self.unknown_assets:
            return False
        self.events.append((time.monotonic(), name, uri, dict(extra)))
        return True

    def newest_scheduled(self, dag_id: str) -> frozenset[str]:
        self._answer()
        return frozenset()

    def ended_well(self, dag_id: str, before: datetime, *, limit: int) -> list[str]:
        self._answer()
        return []

    def delete_runs(self, dag_id: str, run_ids: Sequence[str]) -> int:
        self._answer()
        return len(run_ids)

    def _answer(self, subject: str = "") -> None:
        if self.away:
            raise AirflowUnavailable("Airflow is away")
        if subject in self.failing:
            raise self.failing[subject]
