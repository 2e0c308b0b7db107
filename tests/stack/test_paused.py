"""What is said of paused DAGs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from collect_ops.lanes.rules import lane_rules
from stack.paused import OTHERS, sentences

DECLARED = re.compile(r'dag_id="(\w+)"')


@pytest.mark.parametrize(
    ("paused", "named"),
    [
        ([], []),
        (["lane_bulk"], [["lane_bulk", "lane bulk"]]),
        (["lane_bulk", "lane_urgent"], [["lane_bulk, lane_urgent", "lanes bulk, urgent"]]),
        (["collect_normal", "collect_sweep"], [["collect_normal", "lane normal"], ["collect_sweep"]]),
        (
            ["collect_express", "lane_express"],
            [["lane_express", "lane express"], ["collect_express", "in lane express"]],
        ),
        (["retention"], [["retention"]]),
    ],
)
def test_a_line_a_kind_and_what_helps(paused: list[str], named: list[list[str]]) -> None:
    lines = sentences(paused)
    assert len(lines) == (len(named) + 1 if named else 0)
    for words, line in zip(named, lines, strict=False):
        assert all(word in line for word in words)


def test_every_dag_that_tasks_need_is_known() -> None:
    """But for those of lanes, which are named after them, of sources, and of the tables, which nothing waits for."""
    files = (Path(__file__).parents[2] / "dags").glob("*.py")
    declared = {name for file in files for name in DECLARED.findall(file.read_text())}
    assert declared == set(OTHERS)
    assert not {f"collect_{lane}" for lane in lane_rules().lanes} & set(OTHERS)
