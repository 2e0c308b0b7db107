"""What a claim does with what it took, and the rules of the lanes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.kernel.paths import include_dir
from collect_ops.kernel.rules_file import load_rules
from collect_ops.lanes.policy import PACK, Candidate, Sorted
from collect_ops.lanes.rules import LaneRules, lane_rules

RULES = lane_rules()


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    limits = {name: draw(st.none() | st.integers(1, 3)) for name in "abc"}
    count = draw(st.integers(0, 120))
    found = []
    for number in range(count):
        name = draw(st.sampled_from("abc"))
        found.append(
            Candidate(
                task_id=number,
                generation=1,
                attempt=0,
                source=name,
                priority=5,
                retry_count=0,
                small=draw(st.booleans()),
                due_in_s=draw(st.sampled_from([None, None, -1.0, 5.0])),
                max_active_tasks=limits[name],
            )
        )
    return found


@given(block=candidates(), room=st.integers(0, 6), cut=st.integers(0, 120))
def test_every_candidate_goes_one_way_and_limits_hold(block: list[Candidate], room: int, cut: int) -> None:
    sorting = Sorted(room=room, active={})
    claimed = sorting.sort(block[:cut], {}) + sorting.sort(block[cut:], {})
    in_runs = [candidate for run in sorting.runs for candidate in run]
    everywhere = [*in_runs, *(c for c, _ in sorting.hold), *sorting.defer, *sorting.leave]
    assert sorted(c.task_id for c in everywhere) == [c.task_id for c in block]
    assert claimed == len(in_runs)
    assert len(sorting.runs) <= room
    for run in sorting.runs:
        assert 1 <= len(run) <= PACK
        assert len(run) == 1 or ({c.source for c in run} == {run[0].source} and all(c.small for c in run))
    for name in "abc":
        limit = next((c.max_active_tasks for c in block if c.source == name), None)
        if limit is not None:
            assert sum(c.source == name for c in in_runs) <= limit
    assert all(c.due_in_s is not None and c.due_in_s > 0 for c in sorting.defer)
    assert not any(c.due_in_s is not None and c.due_in_s > 0 for c in in_runs)


@given(delay_s=st.floats(0, 100_000))
def test_a_rung_is_the_largest_not_above_the_delay(delay_s: float) -> None:
    rung = RULES.rung(delay_s)
    ladder = RULES.broker.retry_ladder_s
    assert rung in ladder
    assert rung <= delay_s or rung == ladder[0]
    assert not any(rung < other <= delay_s for other in ladder)


def test_every_priority_has_its_lane() -> None:
    lanes = [RULES.lane_of(priority) for priority in range(11)]
    assert lanes == ["bulk"] * 4 + ["normal"] * 4 + ["urgent"] * 3


def test_a_gap_between_lanes_is_a_fault(tmp_path: Path) -> None:
    shipped = yaml.safe_load((include_dir() / "rules" / "lanes.yaml").read_text())
    shipped["lanes"]["bulk"]["priorities"] = [0, 2]
    shipped["lanes"]["urgent"]["slot"] = 3
    path = tmp_path / "lanes.yaml"
    path.write_text(yaml.safe_dump(shipped))
    with pytest.raises(ValidationFailed) as failed:
        load_rules(path, LaneRules)
    assert "slot" in str(failed.value)
    del shipped["lanes"]["urgent"]["slot"]
    path.write_text(yaml.safe_dump(shipped))
    with pytest.raises(ValidationFailed, match="priority 3 must be in exactly one lane"):
        load_rules(path, LaneRules)
