"""What `CollectSubmitOperator` makes of its arguments, rendered natively or as text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from collect_ops.admission.model import Submission
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.operators.submit import CollectSubmitOperator


def submission(conf: dict[str, Any] | None = None, **arguments: Any) -> Submission:
    operator = CollectSubmitOperator(task_id="submit", source="flights", **arguments)
    ti = SimpleNamespace(dag_id="mine", run_id="r1", task_id="submit", map_index=-1)
    (only,) = operator._submissions({"ti": ti, "dag_run": SimpleNamespace(conf=conf)})  # type: ignore[typeddict-item]
    return only


def test_text_of_a_template_means_what_it_says() -> None:
    rendered = submission(
        collect_params='{"carrier": "OO"}', path="None", priority="7", force="False", identity=""
    )
    assert rendered == submission(collect_params={"carrier": "OO"}, path=None, priority=7, force=False)
    assert submission(force="True").force


def test_the_request_id_is_the_task_instance() -> None:
    assert submission().request_id == "airflow:mine:r1:submit:-1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"collect_params": "carrier=OO"}, "params: must be JSON"),
        ({"collect_params": [1]}, "params: must be a JSON object"),
        ({"priority": "high"}, "priority: Input should be a valid integer"),
        ({"force": "perhaps"}, "force: Input should be a valid boolean"),
        ({"deadline": "tomorrow"}, "deadline: Input should be"),
        ({"deadline": "2026-01-31T08:00:00"}, "deadline: Input should have timezone info"),
        ({"batch": '{"day": "monday"}'}, "batch: must be a JSON array of objects"),
        ({"batch": [{}, 3]}, "batch.1: must be a JSON object"),
        ({"batch": [{}] * 1001}, "batch: must have 1000 elements at most"),
        ({"batch": [{}], "collect_params": {"day": "monday"}}, "params: does not go with batch"),
    ],
)
def test_what_is_no_such_value_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationFailed, match="submission: 1 fault") as refused:
        submission(**arguments)
    assert words in str(refused.value)


def test_a_conf_key_that_nobody_reads_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(ValidationFailed, match=r"conf\.proirity: .*did you mean 'priority'\?"):
        submission({"proirity": 9}, conf_keys=["source", "priority"])
    assert submission({"priority": 9}, conf_keys=["source", "priority"], priority=9).priority == 9
    assert submission({"anything": 1}).priority is None
