"""Who has Redis only stops nothing: what a key holds that we do not write is ignored, and said in the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from collect_ops.coordination import keys
from collect_ops.coordination.dedup_hints import DedupHints
from collect_ops.coordination.lease import Leases
from collect_ops.coordination.limiter import HostLimiter, HostLimits, Verdict
from collect_ops.coordination.liveness import Liveness, NodeIdTaken
from collect_ops.coordination.priorities import Priorities
from collect_ops.coordination.wakeups import Wakeups
from tests.plugins.integration.execution.checks import assert_exact
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

KEY = b"k" * 32
LANE = "normal"
HOST = "things_api"
FOREVER = 10**15

Plant = Callable[[redis.Redis, str], object]
#: What may stand under any key: other types, no numbers, numbers out of every range, bytes that are no text.
PLANTED: dict[str, Plant] = {
    "a word": lambda client, key: client.set(key, "abc"),
    "nothing": lambda client, key: client.set(key, ""),
    "bytes": lambda client, key: client.set(key, b"\xff\xfe\x00"),
    "two words": lambda client, key: client.set(key, "abc def"),
    "a huge number": lambda client, key: client.set(key, "9" * 5000),
    "the greatest number": lambda client, key: client.set(key, str(2**63 - 1)),
    "a negative number": lambda client, key: client.set(key, "-7"),
    "a fraction": lambda client, key: client.set(key, "1.5e300"),
    "an underscore": lambda client, key: client.set(key, "1_0"),
    "a list": lambda client, key: client.rpush(key, "a"),
    "a hash": lambda client, key: client.hset(key, "a", "b"),
    "a set": lambda client, key: client.sadd(key, "a"),
    "a sorted set": lambda client, key: client.zadd(key, {"a": 1}),
    "for years": lambda client, key: client.set(key, "1", px=FOREVER // 1000),
}
planted = pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as found:
        yield found


@planted
def test_dedup_hints(redis_url: str, client: redis.Redis, plant: Plant) -> None:
    plant(client, keys.dedup(KEY))
    hints = DedupHints(redis_url)
    assert all(1 <= holder < 2**63 for holder in hints.read([KEY]).values())
    hints.write({KEY: (7, 60.0)})
    assert hints.read([KEY]) == {KEY: 7}


@planted
def test_priorities(redis_url: str, client: redis.Redis, plant: Plant) -> None:
    plant(client, keys.priority(5))
    priorities = Priorities(redis_url)
    assert all(0 <= priority <= 10 for priority in priorities.read([5]).values())
    priorities.write({5: 3})
    assert priorities.read([5]) == {5: 3}


@planted
def test_a_mark_that_does_not_end_holds_back_no_wakeup(
    redis_url: str, client: redis.Redis, plant: Plant
) -> None:
    plant(client, keys.wake(LANE))
    plant(client, keys.wake(keys.watched(LANE)))
    wakeups = Wakeups(redis_url)
    assert not wakeups.pending(LANE)
    assert wakeups.begin(LANE)
    assert not wakeups.begin(LANE)
    wakeups.clear(LANE)
    assert wakeups.begin_watched(LANE)


@planted
def test_the_count_of_unanswered_wakeups(redis_url: str, client: redis.Redis, plant: Plant) -> None:
    plant(client, keys.unanswered_wakes(LANE))
    wakeups = Wakeups(redis_url)
    assert wakeups.begin(LANE)
    assert 0 < client.ttl(keys.wake(LANE)) <= keys.WAKE_LIFETIME_MAX_S
    wakeups.clear(LANE)
    assert wakeups.begin(LANE)
    assert client.ttl(keys.wake(LANE)) == pytest.approx(keys.WAKE_LIFETIME_S, abs=2)


@planted
async def test_a_lease_that_does_not_end_is_taken_over(
    redis_url: str, client: redis.Redis, plant: Plant
) -> None:
    plant(client, keys.lease(1, 0))
    async with Leases(redis_url, lease_s=2, wait_s=0.1) as leases:
        async with leases.hold(1, 0) as lease:
            assert lease is not None
            # It is overwritten while it is held: the work goes on under its fencing token.
            client.delete(keys.lease(1, 0))
            plant(client, keys.lease(1, 0))
            await asyncio.sleep(1)
        async with leases.hold(1, 0, wait=False) as lease:
            assert lease is not None


@pytest.mark.parametrize("which", range(4), ids=("state", "places", "waiting", "declared"))
@planted
async def test_the_limiters_keys(redis_url: str, client: redis.Redis, plant: Plant, which: int) -> None:
    plant(client, keys.limiter(HOST)[which])
    async with HostLimiter(redis_url, HOST, HostLimits(concurrency=2, requests_per_s=50)) as limiter:
        await granted(limiter)


STATES: list[dict[str, object]] = [
    {"tat": "abc"},
    {"tat": FOREVER * 1000},
    {"hold": "abc"},
    {"advised": "abc", "advised_until": FOREVER * 1000},
    {"advised": FOREVER * 1000, "advised_until": FOREVER * 1000},
    {"advised": 1, "advised_until": "abc"},
    {"hold": 0, "why": b"\xff"},
]


@pytest.mark.parametrize("state", STATES, ids=str)
async def test_the_limiters_state(redis_url: str, client: redis.Redis, state: dict[str, object]) -> None:
    client.hset(keys.limiter(HOST)[0], mapping=state)  # type: ignore[arg-type]
    async with HostLimiter(redis_url, HOST, HostLimits(concurrency=1, requests_per_s=50)) as limiter:
        await granted(limiter)


@pytest.mark.parametrize(
    "member", ["c:0", "c:-1", "c:abc", "c", "", "i:0", f"i:{FOREVER}", "i:1e9", "x:1", "c:1.5"]
)
@pytest.mark.parametrize("score", [float("inf"), 1e18, 0], ids=("for ever", "for years", "ended"))
async def test_the_limits_of_others(redis_url: str, client: redis.Redis, member: str, score: float) -> None:
    client.zadd(keys.limiter(HOST)[3], {member: score})
    async with HostLimiter(redis_url, HOST, HostLimits(concurrency=1, requests_per_s=50)) as limiter:
        await granted(limiter)


async def granted(limiter: HostLimiter) -> None:
    """A turn comes soon."""
    place, until = "", time.monotonic() + 3
    while time.monotonic() < until:
        answer = await limiter.ask(place)
        assert answer.wait_s < 3, answer
        if answer.verdict is Verdict.GRANTED:
            limiter.give_back(answer.place)
            return
        place = answer.place
        await asyncio.sleep(answer.wait_s)
    raise AssertionError(f"no turn: {answer}")


@planted
def test_liveness(redis_url: str, client: redis.Redis, plant: Plant) -> None:
    plant(client, keys.node("n1"))
    liveness = Liveness(redis_url, 60)
    assert liveness.boot_id("n1") in (None, "def")
    assert all(0 <= age <= 60 for age in liveness.ages(["n1"]).values())
    for first in (True, False):
        liveness.renew("n1", "machine", "boot", first=first)
    assert liveness.boot_id("n1") == "boot"
    assert 0 <= liveness.ages(["n1"])["n1"] < 5
    with pytest.raises(NodeIdTaken):
        liveness.renew("n1", "elsewhere", "other", first=True)


@planted
def test_the_witness_of_lost_keys(redis_url: str, client: redis.Redis, plant: Plant) -> None:
    plant(client, keys.NODES_WITNESS)
    liveness = Liveness(redis_url, 0.001)
    liveness.keys_lost()
    seconds = int(client.get(keys.NODES_WITNESS))  # type: ignore[arg-type]
    assert 0 <= seconds <= client.time()[0]
    time.sleep(1.1)
    assert not liveness.keys_lost()


@planted
def test_admission_and_collecting(
    world: World, serve: Callable[..., PagedServer], client: redis.Redis, plant: Plant
) -> None:
    """The whole way, with every key that it will look at planted."""
    world.add(source())
    world.serve_from(serve(rows=200).base_url)
    task_id = world.submit().task_id
    key = bytes(world.task(task_id)["dedup_key"])
    for name in (
        keys.dedup(key), keys.priority(task_id), keys.wake(LANE), keys.unanswered_wakes(LANE), *keys.limiter(HOST),
        *(keys.lease(task_id, number) for number in range(3)),
    ):  # fmt: skip
        client.delete(name)
        plant(client, name)
    assert world.submit().duplicate_of == task_id
    world.claim_and_run()
    assert world.task(task_id)["status"] == "COMPLETED"
    assert_exact(world, 200)


@pytest.mark.parametrize("hold_s", [3600, FOREVER // 10**6], ids=("an hour", "years"))
def test_a_pause_that_nobody_has_written_down_stops_nothing(
    world: World, serve: Callable[..., PagedServer], client: redis.Redis, hold_s: int
) -> None:
    world.add(source())
    world.serve_from(serve(rows=200).base_url)
    now_us = client.time()[0] * 10**6
    client.hset(keys.limiter(HOST)[0], mapping={"hold": now_us + hold_s * 10**6, "why": "so there"})
    assert world.task(world.collect())["status"] == "COMPLETED"
    assert not world.rows("SELECT 1 AS x FROM collect.host WHERE paused_until IS NOT NULL")
