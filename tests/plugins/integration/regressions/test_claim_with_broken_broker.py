"""A broker or database that goes away after a claim's commit does not keep the claimed runs from being started."""

from __future__ import annotations

import pytest

from collect_ops.broker.connection import BrokerUnavailable
from collect_ops.broker.consumer import Consumer
from tests.plugins.integration.world import World, source


def test_runs_start_when_the_acks_fail(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add(source())
    world.submit()

    def lost(self: Consumer, tags: object) -> None:
        self.close()
        raise BrokerUnavailable("connection reset")

    with monkeypatch.context() as patched:
        patched.setattr(Consumer, "ack", lost)
        with pytest.raises(BrokerUnavailable):
            world.claim()
    assert list(world.runs.started) == ["things-1-attempt-1"]
    again = world.claim()
    assert (again.claimed, again.stale) == (0, 1)
