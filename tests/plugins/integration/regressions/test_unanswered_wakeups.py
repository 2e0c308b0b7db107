"""Wake-ups that nobody answers (the lane's DAG is paused) get rarer: they pile up as queued runs; an answer ends that.
With Redis away a watcher does not wake a lane at every look."""

from __future__ import annotations

import pytest
import redis

from collect_ops.coordination import keys
from collect_ops.coordination.wakeups import Wakeups


def test_unanswered_wakeups_get_rarer_until_a_claim(redis_url: str) -> None:
    wakeups = Wakeups(redis_url)
    client = redis.Redis.from_url(redis_url)

    def lifetime_s() -> int:
        """Of the mark that the next wake-up sets, the one before having expired."""
        client.delete(keys.wake("bulk"))
        assert wakeups.begin("bulk")
        assert not wakeups.begin("bulk")
        return int(client.ttl(keys.wake("bulk")))

    assert [lifetime_s() for _ in range(7)] == [10, 20, 40, 80, 160, 300, 300]
    wakeups.clear("bulk")
    assert lifetime_s() == 10
    client.close()


def test_without_redis_a_lane_is_woken_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    wakeups = Wakeups("redis://127.0.0.1:9/0")
    assert [wakeups.begin("bulk"), wakeups.begin("bulk"), wakeups.begin("normal")] == [True, False, True]
    monkeypatch.setattr(keys, "WAKE_LIFETIME_S", 0)
    assert wakeups.begin("bulk")
