"""What is refused answers as XCom, for programs: the sentence and every fault, whatever the values were."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from collect_ops.kernel.errors import CollectOpsError, Fault, Transient, ValidationFailed
from collect_ops.operators.lane import PlanRunOperator, SettleRunOperator
from collect_ops.operators.refusal import refusal_of, refuse
from collect_ops.operators.submit import CollectSubmitOperator
from collect_ops.sources.load import UnknownSource


class Away(CollectOpsError, Transient):
    """Comes back."""


def context(conf: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
    """A task's context, and what it pushes."""
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(dag_id="mine", run_id="r1", task_id="t", map_index=-1, xcom_push=pushed.__setitem__)
    return {"ti": ti, "dag_run": SimpleNamespace(conf=conf, dag_id="mine", run_id="r1")}, pushed


def test_every_fault_is_told() -> None:
    faults = [
        Fault(field="priority", value=11, problem="must be 0 to 10"),
        Fault(field="source", value="flihgts", problem="is not known", allowed=("flights",)),
    ]
    error = ValidationFailed("submission", faults)
    given, pushed = context()
    with pytest.raises(AirflowFailException, match="submission: 2 fault"):
        refuse(given, error)
    assert pushed == {
        "return_value": {
            "error": str(error),
            "faults": [
                {"field": "priority", "value": 11, "problem": "must be 0 to 10", "allowed": []},
                {"field": "source", "value": "flihgts", "problem": "is not known", "allowed": ["flights"]},
            ],
        }
    }


def test_what_may_pass_is_told_too_and_tried_again() -> None:
    given, pushed = context()
    with pytest.raises(Away):
        refuse(given, Away("the database is away"))
    assert pushed["return_value"] == {"error": "the database is away", "faults": []}


def test_an_unknown_source_is_a_fault_of_the_source() -> None:
    (fault,) = refusal_of(UnknownSource("flihgts", ["flights"]))["faults"]
    assert (fault["field"], fault["value"], fault["allowed"]) == ("source", "flihgts", ["flights"])


@pytest.mark.parametrize(
    "value",
    [float("inf"), 10**5000, "x" * 10_000, {"a": 1}, [object()], object(), None, 1.5, True],
    ids=["inf", "huge", "long", "object", "list", "anything", "nothing", "number", "flag"],
)
def test_any_value_can_be_told(value: object) -> None:
    error = ValidationFailed("submission", [Fault(field="params.x", value=value, problem="is wrong")])
    assert len(json.dumps(refusal_of(error)["faults"], allow_nan=False)) < 1000


def test_a_submission_with_a_misspelt_key_is_refused_with_it() -> None:
    given, pushed = context({"proirity": 9})
    operator = CollectSubmitOperator(task_id="submit", source="flights", conf_keys=["priority"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("collect_ops.operators.submit.backends", lambda: None)
        patch.setattr("collect_ops.operators.submit.AdmissionService", lambda *_, **__: None)
        with pytest.raises(AirflowFailException):
            operator.execute(given)
    assert [fault["field"] for fault in pushed["return_value"]["faults"]] == ["conf.proirity"]


@pytest.mark.parametrize("conf", [None, {}, {"tasks": None}, {"tasks": [{"task_id": 1}]}])
@pytest.mark.parametrize("operator", [PlanRunOperator, SettleRunOperator])
def test_a_collect_dag_that_somebody_triggers_says_what_to_trigger(
    operator: type[Any], conf: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collect_ops.operators.lane.backends", lambda: None)
    monkeypatch.setenv("AIRFLOW_CONN_COLLECT_AIRFLOW", "http://nobody:x@127.0.0.1:9")
    given, pushed = context(conf)
    with pytest.raises(AirflowFailException, match="trigger collect_submit"):
        operator(task_id="t").execute(given)
    (fault,) = pushed["return_value"]["faults"]
    assert fault["field"] == "conf.tasks"
