"""Rows of results: what holds, what falls short, what the document shows."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.report import Result, Row, Target


def make_row(**given: object) -> Row:
    fields: dict[str, object] = {
        "claim": "fast",
        "ours": 2.0,
        "unit": "s",
        "measured": "by hand",
        "rounds": 3,
    }
    return Row(**{**fields, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        ({"ratio": 5.0, "target": Target(of="ratio", sign=">=", value=5)}, True),
        ({"ratio": 4.99, "target": Target(of="ratio", sign=">=", value=5)}, False),
        ({"ratio": None, "target": Target(of="ratio", sign=">=", value=5)}, False),
        ({"ours": 2.9, "target": Target(of="ours", sign="<=", value=3)}, True),
        ({"ours": 3.1, "target": Target(of="ours", sign="<=", value=3)}, False),
        ({"ours": None, "target": Target(of="ours", sign="<=", value=3)}, False),
        ({}, None),
    ],
)
def test_a_target_is_reached_or_not(given: dict[str, object], holds: bool | None) -> None:
    assert make_row(**given).holds is holds


def test_a_saved_row_has_the_one_form_of_all_benchmarks() -> None:
    row = make_row(peer=10.0, ratio=5.0, target=Target(of="ratio", sign=">=", value=5))
    saved = json.loads(json.dumps(row.as_json()))
    assert saved == {
        "claim": "fast",
        "ours": 2.0,
        "peer": 10.0,
        "ratio": 5.0,
        "target": "ratio >= 5",
        "holds": True,
        "unit": "s",
        "measured": "by hand",
        "rounds": 3,
    }


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "DOCUMENT", tmp_path / "benchmarks.md")
    (tmp_path / "benchmarks.md").write_text(
        "# Benchmarks\n\nBefore.\n\n<!-- results:one -->\nstale figures\n<!-- /results:one -->\n\nAfter.\n"
    )
    short = make_row(claim="slow", ratio=1.0, target=Target(of="ratio", sign=">=", value=5))
    return Result(
        name="one", rows=[make_row(), short], samples={}, circumstances={"processors": 2}, notes=["n."]
    )


def test_the_document_is_renewed_between_its_markers_only(result: Result) -> None:
    result.save()
    report.write_document()
    once = report.DOCUMENT.read_text()
    report.write_document()
    assert report.DOCUMENT.read_text() == once
    assert "stale" not in once
    assert "Before." in once
    assert once.endswith("After.\n")
    assert "| slow | 2.00 | - | s | 1.00 | ratio >= 5 | **no** | 3 |" in once


def test_results_that_the_document_does_not_know_get_a_section(result: Result) -> None:
    report.DOCUMENT.write_text("# Benchmarks\n")
    result.save()
    report.write_document()
    assert "## one\n\n<!-- results:one -->" in report.DOCUMENT.read_text()


def test_what_falls_short_is_seen_at_a_glance(result: Result) -> None:
    printed = io.StringIO()
    report.show(result, Console(file=printed, width=140))
    lines = [line for line in printed.getvalue().splitlines() if "slow" in line]
    assert len(lines) == 1
    assert "FALLS SHORT" in lines[0]
