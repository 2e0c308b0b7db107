"""When a quiet shard group is doubted, lost, or taken back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.delivery.dispatch import QuietGroup, Verdict, verdict
from collect_ops.nodes.rules import DispatchRule

RULE = DispatchRule(start_within_s=30, lost_after_s=30)
RUNS = QuietGroup(started=True, placed=True, quiet_s=0, doubted_s=None, node_gone=False)
WAITS = QuietGroup(started=False, placed=True, quiet_s=0, doubted_s=None, node_gone=False)
GROUPS = st.builds(
    QuietGroup,
    started=st.booleans(),
    placed=st.booleans(),
    quiet_s=st.floats(0, 10_000),
    doubted_s=st.none() | st.floats(0, 10_000),
    node_gone=st.booleans(),
)
SENT = st.sampled_from([True, False, None])


def group(base: QuietGroup, quiet_s: float, doubted_s: float | None = None, **more: bool) -> QuietGroup:
    return QuietGroup(
        started=base.started,
        placed=more.get("placed", base.placed),
        quiet_s=quiet_s,
        doubted_s=doubted_s,
        node_gone=more.get("node_gone", False),
    )


@pytest.mark.parametrize(
    ("quiet", "sent", "expected"),
    [
        (group(RUNS, 15), None, Verdict.WAITS),
        (group(RUNS, 21), None, Verdict.DOUBTED),
        (group(RUNS, 29, 8), None, Verdict.WAITS),
        (group(RUNS, 31, 8), None, Verdict.WAITS),
        (group(RUNS, 31, 10), None, Verdict.LOST),
        # The database slept: the first look only doubts.
        (group(RUNS, 5_000), None, Verdict.DOUBTED),
        (group(WAITS, 5), True, Verdict.WAITS),
        (group(WAITS, 11), True, Verdict.DOUBTED),
        (group(WAITS, 25, 14), True, Verdict.WAITS),
        (group(WAITS, 31, 21), True, Verdict.NOT_STARTED),
        # Airflow has not handed it out: its pool is full.
        (group(WAITS, 5_000, 4_000), False, Verdict.WAITS),
        (group(WAITS, 11, node_gone=True), True, Verdict.NOT_STARTED),
        (group(WAITS, 5_000, 4_000, placed=False), True, Verdict.WAITS),
    ],
)
def test_verdicts(quiet: QuietGroup, sent: bool | None, expected: Verdict) -> None:
    assert verdict(quiet, RULE, sent=sent) is expected


@given(GROUPS, SENT)
def test_nobody_is_lost_at_first_sight_nor_before_the_time(quiet: QuietGroup, sent: bool | None) -> None:
    found = verdict(quiet, RULE, sent=sent)
    if found is Verdict.LOST:
        assert quiet.started
        assert quiet.quiet_s >= RULE.lost_after_s
        assert quiet.doubted_s is not None
    if found is Verdict.NOT_STARTED:
        assert quiet.placed
        assert not quiet.started
        assert sent is not False
        assert quiet.node_gone or quiet.doubted_s is not None
