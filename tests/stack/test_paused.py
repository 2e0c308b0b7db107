"""What is said of paused DAGs."""

from __future__ import annotations

import pytest

from stack.paused import sentences


@pytest.mark.parametrize(
    ("paused", "named"),
    [
        ([], []),
        (["lane_bulk"], [["lane_bulk", "lane bulk"]]),
        (["lane_bulk", "lane_urgent"], [["lane_bulk, lane_urgent", "lanes bulk, urgent"]]),
        (["collect_normal", "collect_sweep"], [["collect_normal", "lane normal"], ["collect_sweep"]]),
    ],
)
def test_a_line_a_kind_and_what_helps(paused: list[str], named: list[list[str]]) -> None:
    lines = sentences(paused)
    assert len(lines) == (len(named) + 1 if named else 0)
    for words, line in zip(named, lines, strict=False):
        assert all(word in line for word in words)
