"""`include/rules/retention.yaml`: bounds, and what request ids must outlive."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.kernel.rules_file import shipped
from collect_ops.maintenance.retention_rules import (
    RetentionRules,
    load_retention_rules,
    outliving_windows,
    retention_rules,
    window_warnings,
)
from tests.factories import source


def loaded(tmp_path: Path, values: object) -> RetentionRules:
    path = tmp_path / "retention.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_retention_rules(path)


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


@pytest.mark.parametrize(
    ("ttl_h", "days"), [(24, 10), (240, 10), (241, 241 / 24), (8760, 365), (87_600, 3650)]
)
def test_request_ids_outlive_every_dedup_window(tmp_path: Path, ttl_h: float, days: float) -> None:
    """A window that a source may have stops no deletion: it keeps request ids for longer, and people are told."""
    rules = loaded(tmp_path, {"requests_days": 10})
    declared = {"short": source(), "things": source(dedup={"ttl_h": ttl_h})}
    assert outliving_windows(rules, declared) == rules.model_copy(update={"requests_days": days})
    assert [fault.field for fault in window_warnings(rules, declared["things"])] == ["dedup.ttl_h"] * (
        days > 10
    )


@pytest.mark.parametrize("limit_s", [0, -1, 86_401, float("nan")])
def test_a_pass_cannot_take_any_time(limit_s: float) -> None:
    with pytest.raises(ValidationFailed):
        RetentionRules().within(limit_s)
    assert RetentionRules().within(5).pace.time_limit_s == 5
    assert RetentionRules().within(None) == RetentionRules()
