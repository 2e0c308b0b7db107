"""Marks of pending wake-ups: one wakes, the others hold back until it has arrived."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import redis

from collect_ops.coordination import keys
from collect_ops.coordination.wakeups import Wakeups


def test_one_of_many_wakes(redis_url: str) -> None:
    with ThreadPoolExecutor(10) as pool:
        began = list(pool.map(lambda _: Wakeups(redis_url).begin("normal"), range(10)))
    assert began.count(True) == 1
    assert Wakeups(redis_url).begin("urgent"), "another lane has its own"
    Wakeups(redis_url).clear("normal")
    assert Wakeups(redis_url).begin("normal")


def test_a_wakeup_that_never_arrives_expires(redis_url: str) -> None:
    assert Wakeups(redis_url).begin("normal")
    client = redis.Redis.from_url(redis_url)
    assert 0 < client.ttl(keys.wake("normal")) <= keys.WAKE_LIFETIME_S
    client.close()


def test_a_flush_lets_the_next_one_go(redis_url: str) -> None:
    wakeups = Wakeups(redis_url)
    assert wakeups.begin("normal")
    client = redis.Redis.from_url(redis_url)
    client.flushdb()
    client.close()
    assert wakeups.begin("normal")


def test_without_redis_clearing_lets_the_next_one_go() -> None:
    away = Wakeups("redis://127.0.0.1:1/0")
    assert [away.begin("normal"), away.begin("normal")] == [True, False]
    away.clear("normal")
    assert away.begin("normal")


def test_a_watchers_event_that_nobody_reads_holds_back_no_publisher(redis_url: str) -> None:
    """Airflow may leave it unread for half a minute: an urgent task waited for that."""
    watcher, publisher = Wakeups(redis_url), Wakeups(redis_url)
    assert [watcher.begin_watched("urgent"), watcher.begin_watched("urgent")] == [True, False]
    assert publisher.begin("urgent")
    assert not publisher.begin("urgent")
    publisher.clear("urgent")
    assert watcher.begin_watched("urgent"), "the claim has answered both"


def test_a_publishers_wakeup_holds_back_the_watcher(redis_url: str) -> None:
    assert Wakeups(redis_url).begin("urgent")
    assert not Wakeups(redis_url).begin_watched("urgent")
    away = Wakeups("redis://127.0.0.1:1/0")
    assert [away.begin_watched("urgent"), away.begin_watched("urgent")] == [True, False]
    away.clear("urgent")
    assert away.begin_watched("urgent")
