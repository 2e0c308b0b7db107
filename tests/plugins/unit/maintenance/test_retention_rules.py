"""`include/rules/retention.yaml`: bounds, and what request ids must outlive."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.kernel.rules_file import shipped
from collect_ops.maintenance.retention_rules import RetentionRules, load_retention_rules, retention_rules
from tests.factories import source


def loaded(tmp_path: Path, values: object, **dedup: float) -> RetentionRules:
    path = tmp_path / "retention.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_retention_rules(path, {"things": source(dedup=dedup)} if dedup else {})


def test_what_is_shipped_is_what_no_file_means(tmp_path: Path) -> None:
    assert retention_rules() == loaded(tmp_path, {}) == RetentionRules()
    assert RetentionRules.model_validate(yaml.safe_load(shipped("retention").read_text())) == RetentionRules()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"tasks": {"completed": 0.5}}, "tasks.completed"),
        ({"tasks": {"dead": 36_501}}, "tasks.dead"),
        ({"traces_days": -1}, "traces_days"),
        ({"requests_days": "long"}, "requests_days"),
        ({"pace": {"batch": 0}}, "pace.batch"),
        ({"pace": {"pause_s": 61}}, "pace.pause_s"),
        ({"airflow": {"logs": 0}}, "airflow.logs"),
        ({"trace_days": 3}, "trace_days"),
    ],
)
def test_numbers_have_bounds(tmp_path: Path, values: object, field: str) -> None:
    with pytest.raises(ValidationFailed) as failed:
        loaded(tmp_path, values)
    assert [fault.field for fault in failed.value.faults] == [field]


def test_request_ids_outlive_every_dedup_window(tmp_path: Path) -> None:
    assert loaded(tmp_path, {"requests_days": 10}, ttl_h=240).requests_days == 10
    with pytest.raises(ValidationFailed) as failed:
        loaded(tmp_path, {"requests_days": 10}, ttl_h=241)
    (fault,) = failed.value.faults
    assert (fault.field, fault.value) == ("requests_days", 10)
    assert "things" in fault.problem


@pytest.mark.parametrize("limit_s", [0, -1, 86_401, float("nan")])
def test_a_pass_cannot_take_any_time(limit_s: float) -> None:
    with pytest.raises(ValidationFailed):
        RetentionRules().within(limit_s)
    assert RetentionRules().within(5).pace.time_limit_s == 5
    assert RetentionRules().within(None) == RetentionRules()
