"""Leases on a real Redis: one holder, renewed while the work moves on, and never a reason to stop working."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
import redis.asyncio

from collect_ops.coordination import keys
from collect_ops.coordination.lease import Leases

LEASE_S = 0.6
AWAY = "redis://127.0.0.1:1/0"


@pytest_asyncio.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    found = redis.asyncio.Redis.from_url(redis_url)
    yield found
    await found.aclose()


def leases(url: str, *, wait_s: float = 0.2) -> Leases:
    return Leases(url, lease_s=LEASE_S, wait_s=wait_s)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + 20
    while not await condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within 20 s: {what}")
        await asyncio.sleep(0.02)


async def test_one_holder_a_shard(redis_url: str, client: redis.asyncio.Redis) -> None:
    async with leases(redis_url) as mine, leases(redis_url) as theirs:
        async with mine.hold(1, 0) as held:
            assert held is not None
            assert 0 < await client.pttl(keys.lease(1, 0)) <= LEASE_S * 1000
            async with theirs.hold(1, 0, wait=False) as other:
                assert other is None
            async with theirs.hold(1, 1, wait=False) as other_shard:
                assert other_shard is not None
        async with theirs.hold(1, 0, wait=False) as free:
            assert free is not None
    assert await client.keys("*") == []


async def test_who_waits_gets_it_when_it_is_released(redis_url: str) -> None:
    async with leases(redis_url) as mine, leases(redis_url, wait_s=10) as theirs:

        async def wait() -> bool:
            async with theirs.hold(1, 0) as lease:
                return lease is not None

        async with mine.hold(1, 0):
            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
            assert not waiting.done()
        assert await asyncio.wait_for(waiting, 10)


async def test_it_lives_on_while_its_work_moves_on_and_expires_when_it_hangs(
    redis_url: str, client: redis.asyncio.Redis
) -> None:
    name = keys.lease(7, 3)

    async def gone() -> bool:
        return not await client.exists(name)

    async with leases(redis_url) as mine, leases(redis_url) as theirs, AsyncExitStack() as next_holder:
        async with mine.hold(7, 3) as held:
            assert held is not None
            began = time.monotonic()
            while time.monotonic() - began < 2 * LEASE_S:
                held.progressed()
                assert await client.exists(name), "renewed while there is progress"
                await asyncio.sleep(0.05)
            await until(gone, "a holder without progress loses its lease")
            assert await next_holder.enter_async_context(theirs.hold(7, 3, wait=False)) is not None
        assert await client.exists(name), "the late holder does not release the new one's"


async def test_a_flush_loses_the_lease_and_nothing_else(redis_url: str, client: redis.asyncio.Redis) -> None:
    async with leases(redis_url) as mine:
        async with mine.hold(1, 0) as held:
            assert held is not None
            await client.flushdb()
            async with leases(redis_url) as theirs, theirs.hold(1, 0, wait=False) as other:
                assert other is not None
        assert not await client.exists(keys.lease(1, 0))


@pytest.mark.parametrize("wait", [True, False])
async def test_without_redis_the_work_goes_on(wait: bool) -> None:
    async with leases(AWAY) as mine, mine.hold(1, 0, wait=wait) as held:
        assert held is not None
        held.progressed()
        assert held.stalled_s() < 5
        await held.renew()


async def test_many_shards_at_once_have_one_holder_each(redis_url: str) -> None:
    working: dict[int, int] = {}
    most = 0

    async def work(group: Leases, shard_no: int) -> None:
        nonlocal most
        async with group.hold(1, shard_no) as lease:
            assert lease is not None
            working[shard_no] = working.get(shard_no, 0) + 1
            most = max(most, working[shard_no])
            await asyncio.sleep(0)
            working[shard_no] -= 1

    async with leases(redis_url, wait_s=20) as one, leases(redis_url, wait_s=20) as other:
        await asyncio.gather(*(work(group, number % 3) for number in range(12) for group in (one, other)))
    assert most == 1
