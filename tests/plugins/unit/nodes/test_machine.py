from __future__ import annotations

from itertools import chain, count
from types import SimpleNamespace

import pytest

from collect_ops.nodes import machine
from collect_ops.nodes.machine import WEIGH_EVERY_S, Sampler


def test_workers_are_weighed_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = chain([0, 0], count(100))  # the agent is there before its worker
    now = [1000.0]
    monkeypatch.setattr(machine, "workers_bytes", lambda: next(weights))
    monkeypatch.setattr(machine, "time", SimpleNamespace(monotonic=lambda: now[0]))
    sampler = Sampler()
    found = []
    for elapsed_s in (0, 30, 30, 30, WEIGH_EVERY_S - 31, 31, 30):
        now[0] += elapsed_s
        found.append(sampler.sample().workers_bytes)
    assert found == [0, 0, 100, 100, 100, 101, 101]
