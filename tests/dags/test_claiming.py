"""Whether a task claims from a lane itself: only where runs of the lane would run, and never at a submission's cost."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import CommsDecoder, DagResult, ErrorResponse

from collect_ops.hooks.task_runs import TaskRuns
from collect_ops.kernel.backends import Backends
from collect_ops.operators.claiming import claim_here

NOWHERE = Backends(
    postgres_dsn="postgresql://nobody@127.0.0.1:9/nothing",
    redis_url="redis://127.0.0.1:9/0",
    amqp_url="amqp://nobody:x@127.0.0.1:9/",
    rabbitmq_api_url="http://127.0.0.1:9",
)


class Supervisor(CommsDecoder):
    """Answers one question."""

    def __init__(self, answer: DagResult | ErrorType) -> None:
        self.answer = answer

    def send(self, _question: Any) -> DagResult:
        if isinstance(self.answer, ErrorType):
            raise AirflowRuntimeError(ErrorResponse(error=self.answer, detail={}))
        return self.answer


def lane_dag(*, is_paused: bool) -> DagResult:
    nothing = dict.fromkeys(("bundle_name", "bundle_version", "relative_fileloc", "owners", "next_dagrun"))
    return DagResult(dag_id="lane_urgent", is_paused=is_paused, tags=[], **nothing)


def ask(monkeypatch: pytest.MonkeyPatch, comms: object) -> TaskRuns:
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
    return TaskRuns()


@pytest.mark.parametrize(
    ("answer", "accepts"),
    [
        (lane_dag(is_paused=False), True),
        (lane_dag(is_paused=True), False),
        (ErrorType.PERMISSION_DENIED, False),
        (ErrorType.API_SERVER_ERROR, False),
    ],
)
def test_a_lane_is_asked_about_first(
    monkeypatch: pytest.MonkeyPatch, answer: DagResult | ErrorType, *, accepts: bool
) -> None:
    assert ask(monkeypatch, Supervisor(answer)).accepts("lane_urgent") is accepts


def test_what_dag_test_runs_claims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not ask(monkeypatch, object()).accepts("lane_urgent")


def test_a_claim_that_fails_leaves_the_lane_to_its_own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = ask(monkeypatch, Supervisor(lane_dag(is_paused=False)))
    assert not claim_here("urgent", services=NOWHERE, runs=runs, actor="test")
