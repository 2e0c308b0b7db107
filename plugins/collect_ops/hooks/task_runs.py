"""Airflow's runs as a running task sees them: started over the Task SDK, without credentials; states over REST."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import CommsDecoder, DagResult, ErrorResponse, GetDag, TriggerDagRun

from collect_ops.hooks.backends import rest_runs
from collect_ops.lanes.rest_runs import RestRuns
from collect_ops.lanes.runs import RunState, RunsUnavailable

log = logging.getLogger(__name__)


class TaskRuns:
    """`Runs` inside an Airflow task.

    The Task SDK's message is the one that TriggerDagRunOperator sends; it takes 0.02 s and needs no user.
    """

    def __init__(self) -> None:
        self._rest: RestRuns | None = None

    def start(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        """See `Runs.start`."""
        try:
            answer = task_runner.SUPERVISOR_COMMS.send(
                TriggerDagRun(dag_id=dag_id, run_id=run_id, conf=conf, reset_dag_run=False)
            )
        except AirflowRuntimeError as error:
            raise RunsUnavailable(f"Airflow did not start {dag_id} {run_id}: {error}") from error
        if isinstance(answer, ErrorResponse) and answer.error is not ErrorType.DAGRUN_ALREADY_EXISTS:
            raise RunsUnavailable(f"Airflow did not start {dag_id} {run_id}: {answer.error} {answer.detail}")

    def accepts(self, dag_id: str) -> bool:
        """Whether runs of a DAG would run: it is known and not paused, and this task is not one of `dag.test()`.

        Runs that `dag.test()` starts are in metadata of its own, where no scheduler looks.
        """
        comms: object = task_runner.SUPERVISOR_COMMS
        if not isinstance(comms, CommsDecoder):
            return False
        try:
            answer = comms.send(GetDag(dag_id=dag_id))
        except AirflowRuntimeError as error:  # there is none, or Airflow did not tell
            log.warning("whether %s is paused is not known: %s", dag_id, error)
            return False
        return isinstance(answer, DagResult) and not answer.is_paused

    def state(self, dag_id: str, run_id: str) -> RunState:
        """See `Runs.state`."""
        return self._asked().state(dag_id, run_id)

    def group_states(self, dag_id: str, run_id: str) -> Mapping[int, str]:
        """See `Runs.group_states`."""
        return self._asked().group_states(dag_id, run_id)

    def end(self, dag_id: str, run_id: str) -> None:
        """See `Runs.end`."""
        self._asked().end(dag_id, run_id)

    def _asked(self) -> RestRuns:
        self._rest = self._rest or rest_runs()
        return self._rest
