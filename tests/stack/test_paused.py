"""What is said of paused DAGs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from collect_ops.lanes.rules import lane_rules
from stack.paused import OTHERS, sentences, standstill
from stack.report import as_json

DAGS = Path(__file__).parents[2] / "dags"
#: A DAG's id, as the files in dags/ name it: literally, by a constant, or by a function of a lane or a source.
DECLARED = re.compile(r'dag_id="(\w+)"')
CONSTANT = re.compile(r'^([A-Z]+) = "(\w+)"$', re.MULTILINE)


def declared_ids(text: str) -> set[str]:
    named = {value for name, value in CONSTANT.findall(text) if f"dag_id={name}," in text}
    return named | set(DECLARED.findall(text))


@pytest.mark.parametrize("dag_id", sorted(OTHERS))
def test_each_dag_has_a_line_with_what_stands_still(dag_id: str) -> None:
    line, _ = sentences([dag_id])
    assert dag_id in line
    assert OTHERS[dag_id] in line


@pytest.mark.parametrize("dag_id", ["lane_express", "collect_express"])
def test_the_dags_of_a_lane_are_told_with_it(dag_id: str) -> None:
    assert "lane express" in standstill(dag_id)


def test_nothing_is_said_when_nothing_is_paused() -> None:
    assert sentences([]) == []


def test_programs_read_what_stands_still() -> None:
    document = json.loads(as_json([], ["collect_sweep", "lane_bulk"]))
    assert document["paused"] == ["collect_sweep", "lane_bulk"]
    assert document["standstill"] == {
        "collect_sweep": OTHERS["collect_sweep"],
        "lane_bulk": standstill("lane_bulk"),
    }


def test_every_dag_but_those_of_lanes_and_sources_is_known() -> None:
    """Whatever is added to dags/ says what stands still while it is paused."""
    declared = {name for file in DAGS.glob("*.py") for name in declared_ids(file.read_text())}
    assert declared == set(OTHERS)
    assert not {f"collect_{lane}" for lane in lane_rules().lanes} & set(OTHERS)
