"""The benchmark `recovery`: its claims, and the source whose tasks last as long as they are told."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

import pytest

from benchmarks import slow_source
from benchmarks.recovery import BLOWS, NAMES, notes, rows
from benchmarks.slow_source import Kind


def sample(seconds: float, *, kept: bool = True) -> dict[str, Any]:
    return {"seconds": seconds, "admitted_s": 1.0, "from_admission_s": seconds - 1, "long_group_kept": kept}


def test_the_slowest_round_decides_and_a_restart_of_postgresql_has_no_target() -> None:
    found = rows({"scheduler": [sample(5), sample(31), sample(6)], "postgres": [sample(40)]})
    held = {row.claim: (row.ours, row.holds) for row in found}
    assert held["scheduler killed: an urgent task has STARTED after, p50"] == (6, None)
    assert held["scheduler killed: an urgent task has STARTED after, max"] == (31, False)
    assert held["postgres killed: an urgent task has STARTED after, max"] == (40, None)
    assert rows({"worker": [sample(30)]})[1].holds is True


def test_what_became_of_the_group_that_ran_is_counted() -> None:
    told = notes({"scheduler": [sample(5), sample(5)], "worker": [sample(5, kept=False)]})
    assert "scheduler 2 of 2, worker 0 of 1" in told[-1]


def test_every_blow_has_a_name() -> None:
    assert NAMES.keys() == BLOWS.keys()


def ask(port: int, kind: Kind, offset: int) -> tuple[dict[str, Any], float]:
    began = time.monotonic()
    since = slow_source.since(kind, 7).replace("+", "%2B")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/offset?since={since}&offset={offset}") as answer:
        return json.loads(answer.read()), time.monotonic() - began


def test_the_slow_source_is_slow_where_it_is_told_to_be() -> None:
    with slow_source.serve(long_page_s=1.0) as port:
        urgent, _ = ask(port, Kind.URGENT, 0)
        first, _ = ask(port, Kind.LONG, 0)
        second, took_s = ask(port, Kind.LONG, 100)
    assert (urgent["total"], len(urgent["rows"])) == (1, 1)
    assert first["total"] == slow_source.LONG_ROWS
    assert [row["id"] for row in (*first["rows"], *second["rows"])] == list(range(7 * 500, 7 * 500 + 200))
    assert took_s >= 1.0


@pytest.mark.parametrize("kind", list(Kind))
def test_parameters_differ_with_the_number(kind: Kind) -> None:
    assert len({slow_source.since(kind, number) for number in range(100)}) == 100
