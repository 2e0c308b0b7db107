"""What the domain needs of Airflow: to start a run, and to know how a run is doing."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Protocol

from collect_ops.coordination.wakeups import Wakeups
from collect_ops.orchestrator.errors import AirflowUnavailable

log = logging.getLogger(__name__)


class RunState(StrEnum):
    """State of an Airflow run, as far as it matters here."""

    ACTIVE = "active"
    ENDED = "ended"
    MISSING = "missing"


#: Airflow did not start a run or did not tell its state.
RunsUnavailable = AirflowUnavailable


class Runs(Protocol):
    """Airflow's runs; implemented over the Task SDK inside tasks and over the REST API outside."""

    def start(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        """Start a run; one that exists already counts as started.

        Raises:
            RunsUnavailable: Airflow did not take it.
        """

    def state(self, dag_id: str, run_id: str) -> RunState:
        """How a run is doing.

        Raises:
            RunsUnavailable: Airflow did not answer.
        """

    def group_states(self, dag_id: str, run_id: str) -> Mapping[int, str]:
        """States of a run's shard groups as task instances, by map index; those that wait for Airflow are left out.

        Raises:
            RunsUnavailable: Airflow did not answer.
        """

    def end(self, dag_id: str, run_id: str) -> None:
        """End a run as failed, so that what still runs or is queued of it frees its slots.

        Raises:
            RunsUnavailable: Airflow did not take it.
        """


def lane_dag_id(lane: str) -> str:
    """The DAG that claims from a lane."""
    return f"lane_{lane}"


def collect_dag_id(lane: str) -> str:
    """The DAG that runs a lane's collect tasks."""
    return f"collect_{lane}"


def wake(lanes: Iterable[str], runs: Runs, wakeups: Wakeups) -> list[str]:
    """Wake lanes that have no wake-up pending; returns which were woken.

    A wake-up that fails is logged and left to the queue's watcher and the sweep: the work is in the broker.
    """
    return [lane for lane in sorted(set(lanes)) if start_once(lane, lane_dag_id(lane), runs, wakeups)]


def start_once(name: str, dag_id: str, runs: Runs, wakeups: Wakeups) -> bool:
    """Start a run of a DAG that works off a queue, unless one is pending; whether it was started.

    Args:
        name: Under which its wake-up is marked: a lane's, or the inbox's.
        dag_id: The DAG.
        runs: Airflow's runs.
        wakeups: The marks.
    """
    if not wakeups.begin(name):
        return False
    try:
        runs.start(dag_id, f"wake.{uuid.uuid4().hex[:12]}", {})
    except RunsUnavailable as error:
        wakeups.clear(name)
        log.warning("%s not woken, the sweep will: %s", dag_id, error)
        return False
    return True
