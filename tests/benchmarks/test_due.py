"""The benchmark `due`: what it brings about, and what the schedules of release 0.1.0 come to beside it."""

from __future__ import annotations

import pytest

from benchmarks.due import DEFAULT_ROUNDS, RUN, kinds, rows
from benchmarks.report import Row

RUN_S = 2.0


def found(seconds: float = 3.0) -> dict[str, Row]:
    samples = {name: [{"seconds": seconds}] * DEFAULT_ROUNDS for name in kinds()}
    return {row.claim: row for row in rows(samples, [{"seconds": RUN_S}] * DEFAULT_ROUNDS)}


@pytest.mark.parametrize(
    ("kind", "middle_s", "most_s"),
    [
        ("a task that the broker never confirmed", 30, 60),
        ("a retry whose message is lost", 30, 60),
        ("a waiting task whose message is lost", 30, 60),
        ("a claimed task whose run was never started", 30, 60),
        ("a task whose run ended without settling it", 30, 60),
        # Doubted by a look up to 4 s late, for three looks, of which 10.2 s are what the rule asks for; then a run.
        ("a shard group that has fallen silent", 1.8 + 2 + RUN_S, 1.8 + 4 + RUN_S),
        ("a node whose liveness key is gone", 15, 30),
    ],
)
def test_each_kind_stands_beside_what_0_1_0_had_for_it(kind: str, middle_s: float, most_s: float) -> None:
    assert DEFAULT_ROUNDS >= 5
    for word, peer_s in (("p50", middle_s), ("max", most_s)):
        row = found()[f"{kind}: from due to done, {word}"]
        assert (row.ours, row.peer, row.rounds) == (3.0, pytest.approx(peer_s), DEFAULT_ROUNDS)
        assert (row.ratio, row.holds) == (pytest.approx(peer_s / 3), True)
        assert "0.1.0 had" in row.measured


def test_what_is_later_than_0_1_0_does_not_hold() -> None:
    assert all(row.holds is False for claim, row in found(61).items() if not claim.startswith(RUN))


def test_each_kind_has_two_rows_and_a_run_of_the_sweep_one() -> None:
    assert len(found()) == 2 * 7 + 1
    assert found()[f"{RUN}, p50"].ours == RUN_S
