"""Dedup hints: one round trip a batch, and never a reason to fail."""

from __future__ import annotations

import redis

from collect_ops.coordination import keys
from collect_ops.coordination.dedup_hints import DedupHints

KEYS = [bytes([number]) * 32 for number in range(3)]


def test_what_was_written_is_read(redis_url: str) -> None:
    hints = DedupHints(redis_url)
    assert hints.read(KEYS) == {}
    hints.write({KEYS[0]: (1, 3600.0), KEYS[1]: (2, 3600.0)})
    assert hints.read(KEYS) == {KEYS[0]: 1, KEYS[1]: 2}
    hints.write({KEYS[0]: (9, 3600.0)})
    assert hints.read(KEYS[:1]) == {KEYS[0]: 9}
    client = redis.Redis.from_url(redis_url)
    assert 3_590_000 < client.pttl(keys.dedup(KEYS[0])) <= 3_600_000
    client.flushdb()
    client.close()
    assert hints.read(KEYS) == {}


def test_a_batch_is_one_round_trip(redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    hints = DedupHints(redis_url)
    many = {number.to_bytes(32): (number, 60.0) for number in range(1, 1001)}
    hints.write(many)
    calls = "cmdstat_mget"
    before = client.info("commandstats").get(calls, {"calls": 0})["calls"]
    assert len(hints.read(list(many))) == 1000
    assert client.info("commandstats")[calls]["calls"] == before + 1
    client.close()


def test_nothing_asked_asks_nobody() -> None:
    away = DedupHints("redis://127.0.0.1:1/0")
    assert away.read([]) == {}
    away.write({})


def test_without_redis_there_are_no_hints() -> None:
    away = DedupHints("redis://127.0.0.1:1/0")
    assert away.read(KEYS) == {}
    away.write({KEYS[0]: (1, 60.0)})
