"""The benchmarks of the queue: their sums, and their parts that need no Airflow, on small numbers."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks import admission, heartbeats, limiter, placement, urgent
from benchmarks.claim import claim_all, consume, get_one_by_one, roomy
from benchmarks.fill import fill
from benchmarks.own_services import empty, own_backends
from benchmarks.priority import reprioritise, update_and_publish
from benchmarks.settings import BenchSettings
from benchmarks.urgent import cancel_all, percentile
from collect_ops.lanes.rules import lane_rules
from collect_ops.storage import connect


@contextmanager
def alone() -> Iterator[None]:
    """Benchmarks have one database on a stack, and tests run side by side."""
    with (BenchSettings.load().stack.home / "bench.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize(
    ("values", "which", "wanted"),
    [([1.0], 95, 1.0), ([1.0, 2.0, 3.0], 50, 2.0), ([float(n) for n in range(101)], 95, 95.0)],
)
def test_percentiles(values: list[float], which: int, wanted: float) -> None:
    assert percentile(values, which) == pytest.approx(wanted)


def test_the_slowest_twentieth_decides_about_urgent_tasks() -> None:
    fast = [{"seconds": 1.0, "from_admission_s": 0.5}] * 94
    slow = [{"seconds": 9.0, "from_admission_s": 8.0}] * 6
    held = {row.claim: row.holds for row in urgent.rows([*fast, *slow], fast)}
    assert held["urgent task under a backlog, submit to start, p95"] is False
    against_idle, p95, *_ = urgent.rows(fast, [{"seconds": 0.5, "from_admission_s": 0.4}])
    assert p95.holds is True
    assert against_idle.ratio == pytest.approx(0.5)


def test_admission_compares_speeds_of_like_with_like() -> None:
    took = {
        admission.OURS_BATCHES: (10_000, 1.0),
        admission.CELERY: (1_000, 1.0),
        admission.DRAMATIQ: (1_000, 0.5),
        admission.OURS_CALLERS: (1_000, 1.0),
        admission.CELERY_CALLERS: (1_000, 0.5),
        admission.DRAMATIQ_CALLERS: (1_000, 0.25),
        admission.OURS_SINGLE: (1_000, 4.0),
        admission.OUTBOX: (1_000, 2.0),
        admission.OUTBOX_CALLERS: (1_000, 1.0),
    }
    samples = {name: [{"messages": count, "seconds": seconds}] for name, (count, seconds) in took.items()}
    rows = admission.rows(samples, 1)
    assert [row.ratio for row in rows] == [10, 5, 0.5, 0.25, 1, 0.25, 0.125, 0.5]
    assert [row.holds for row in rows] == [True, None, False, None, None, False, None, None]


def test_small_numbers_go_all_the_way() -> None:
    rules = roomy(lane_rules())
    with alone(), own_backends(BenchSettings.load()) as backends:
        assert claim_all(backends, rules, 30, 10)["tasks"] == 30
        assert get_one_by_one(backends, rules, 30, 10, 20)["messages"] == 20
        assert consume(backends, rules, 30, 10)["messages"] == 40
        assert reprioritise(backends, rules, 40)["tasks"] == 40
        assert update_and_publish(backends, rules, 40)["tasks"] == 40
        empty(backends, rules)
        ids = fill(backends, rules, 30, priority=1)
        assert cancel_all(backends, ids[:20]) == 20
        assert cancel_all(backends, ids[:20]) == 0
        with connect(backends.postgres_dsn) as connection:
            left = connection.execute(
                "SELECT count(*) AS n FROM collect.task WHERE status = 'QUEUED'"
            ).fetchone()
        assert left == {"n": 10}


async def test_the_limiter_is_measured_on_small_numbers() -> None:
    with alone(), own_backends(BenchSettings.load()) as backends:
        assert (await limiter.limiter_turns(backends, 20))["turn_ms"] > 0
        assert (await limiter.gate_turns(backends, 20, quota=100))["turn_ms"] > 0
        assert (await limiter.pings(backends, 20))["turn_ms"] > 0


def test_three_nodes_are_measured_on_small_numbers() -> None:
    with alone(), own_backends(BenchSettings.load()) as backends:
        assert limiter.at_rate(backends, 20, seconds=2)["share"] <= 1.05
        assert limiter.with_quota(backends, quota=60)["turns"] <= 60


def test_the_limiter_falls_short_of_nothing_but_what_it_misses() -> None:
    cost = [{"turn_ms": 0.3, "seconds": 1.0}]
    samples = {
        limiter.LIMITER: cost,
        limiter.GATE: cost,
        limiter.GATE_QUOTA: cost,
        limiter.BARE: [{"turn_ms": 0.15, "seconds": 1.0}],
        **{
            limiter._rate_name(rate): [{"share": 0.94}, {"share": 0.99}, {"share": 1.02}]
            for rate in limiter.RATES
        },
        "quota": [{"turns": limiter.QUOTA}, {"turns": limiter.QUOTA + 1}],
    }
    held = [row.holds for row in limiter.rows(samples, 3)]
    assert held == [True] * 3 + [True, False] * len(limiter.RATES) + [False, True]


def test_placing_does_what_a_scan_does_and_says_how_even_it_is() -> None:
    nodes = placement.mixed_nodes(20)
    assert placement.place_all(nodes, 40)["groups"] == placement.scan_all(nodes, 40)["groups"] == 40
    assert placement.balance(placement.equal_nodes(10), 100) == 1
    rows = placement.rows({placement.OURS: 200.0, placement.SCAN: 100.0}, 1.2, 1)
    assert [(row.ratio, row.holds) for row in rows] == [(2, None), (None, False)]


def test_heartbeats_are_counted_on_both_sides() -> None:
    with alone(), own_backends(BenchSettings.load()) as backends:
        assert heartbeats.ingest(backends, lane_rules(), 30)["heartbeats"] == 30
        assert heartbeats.take(backends, lane_rules(), 30)["heartbeats"] == 30
