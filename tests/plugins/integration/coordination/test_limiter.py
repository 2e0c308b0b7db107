"""The limiter on a real Redis: several nodes, whatever they do in whatever order, keep to what a host bears."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from collect_ops.coordination import keys
from collect_ops.coordination.limiter import (
    BURST_S,
    Answer,
    HostLimiter,
    HostLimits,
    LimiterAway,
    Verdict,
)
from tests.examples import examples
from tests.plugins.integration.execution.own_redis import OwnRedis

T = TypeVar("T")
HOST = "things_api"
STATE, PLACES, _, DECLARED = keys.limiter(HOST)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A look behind the limiter."""
    with redis.Redis.from_url(redis_url) as found:
        yield found


async def granted(limiter: HostLimiter, *, deadline_s: float = 20) -> Answer:
    """Ask until a turn is given, and wait for its time."""
    place = ""
    async with asyncio.timeout(deadline_s):
        while True:
            answer = await limiter.ask(place)
            place = answer.place
            await asyncio.sleep(answer.wait_s)
            if answer.verdict is Verdict.GRANTED:
                return answer


async def test_places_are_no_more_than_declared_and_come_back(redis_url: str) -> None:
    async with (
        HostLimiter(redis_url, HOST, HostLimits(concurrency=2)) as one,
        HostLimiter(redis_url, HOST, HostLimits(concurrency=2)) as other,
    ):
        first, second = await one.ask(), await other.ask()
        assert (first.verdict, second.verdict) == (Verdict.GRANTED, Verdict.GRANTED)
        full = await other.ask()
        assert full.verdict is Verdict.FULL
        one.give_back(first.place)
        again = await granted(other)
        assert again.place != second.place


async def test_the_strictest_of_those_that_ask_holds_for_all(redis_url: str) -> None:
    async with (
        HostLimiter(redis_url, HOST, HostLimits(concurrency=8)) as wide,
        HostLimiter(redis_url, HOST, HostLimits(concurrency=1)) as narrow,
    ):
        first = await narrow.ask()
        assert (await wide.ask()).verdict is Verdict.FULL
        narrow.give_back(first.place)
        assert (await granted(wide)).verdict is Verdict.GRANTED


async def test_who_waits_longest_is_next(redis_url: str) -> None:
    """A node that always wants more does not keep another one from its turn."""
    async with (
        HostLimiter(redis_url, HOST, HostLimits(concurrency=1)) as greedy,
        HostLimiter(redis_url, HOST, HostLimits(concurrency=1)) as patient,
    ):
        held = await greedy.ask()
        waiting = await patient.ask()
        assert waiting.verdict is Verdict.FULL
        greedy.give_back(held.place)
        assert (await greedy.ask()).verdict is Verdict.FULL, "it comes after the one that waits"
        assert (await patient.ask(waiting.place)).verdict is Verdict.GRANTED


async def test_a_killed_holder_frees_its_places_and_a_living_one_keeps_them(redis_url: str) -> None:
    limits = HostLimits(concurrency=1)
    dead = HostLimiter(redis_url, HOST, limits, place_s=0.4)
    assert (await dead.ask()).verdict is Verdict.GRANTED
    assert dead._renewal is not None
    dead._renewal.cancel()  # as a killed process renews nothing
    async with HostLimiter(redis_url, HOST, limits, place_s=0.4) as living:
        began = time.monotonic()
        await granted(living)
        assert time.monotonic() - began < 5
        await asyncio.sleep(1.0)
        async with HostLimiter(redis_url, HOST, limits) as other:
            assert (await other.ask()).verdict is Verdict.FULL, "it has been renewed"
    await dead._redis.aclose()


async def test_a_pause_holds_all_and_the_longer_one_counts(redis_url: str) -> None:
    limits = HostLimits(concurrency=4)
    async with HostLimiter(redis_url, HOST, limits) as one, HostLimiter(redis_url, HOST, limits) as other:
        await one.hold(30, "answered 429")
        await one.hold(0.1, "shorter")
        answer = await other.ask()
        assert (answer.verdict, answer.reason) == (Verdict.HELD, "answered 429")
        assert 25 < answer.wait_s <= 30


async def test_a_host_that_has_little_left_is_asked_less_often(redis_url: str) -> None:
    async with HostLimiter(redis_url, HOST, HostLimits(concurrency=4)) as limiter:
        await limiter.slow_down(20, for_s=60)
        began = time.monotonic()
        for _ in range(5):
            limiter.give_back((await granted(limiter)).place)
        assert time.monotonic() - began >= 4 / 20 * 0.99


async def test_three_nodes_keep_a_rate_between_them(redis_url: str) -> None:
    """Never faster than the rate; how close they come to it the benchmark says."""
    rate, each = 100.0, 30
    at: list[float] = []

    async def node(limiter: HostLimiter) -> None:
        for _ in range(each):
            answer = await granted(limiter)
            at.append(time.monotonic())
            limiter.give_back(answer.place)

    limits = HostLimits(concurrency=12, requests_per_s=rate)
    async with (
        HostLimiter(redis_url, HOST, limits) as a,
        HostLimiter(redis_url, HOST, limits) as b,
        HostLimiter(redis_url, HOST, limits) as c,
    ):
        began = time.monotonic()
        await asyncio.gather(*map(node, (a, b, c)))
    assert len(at) == 3 * each
    assert time.monotonic() - began >= 3 * each / rate - BURST_S


async def test_flushed_in_the_middle_it_goes_on(redis_url: str) -> None:
    limits = HostLimits(concurrency=2, requests_per_s=200)
    client = redis.Redis.from_url(redis_url)
    async with HostLimiter(redis_url, HOST, limits, place_s=0.6) as limiter:
        for number in range(20):
            answer = await granted(limiter)
            if number % 5 == 2:
                client.flushdb()
                client.script_flush()
            limiter.give_back(answer.place)
        kept = await granted(limiter)
        client.flushdb()
        await asyncio.sleep(0.5)
        assert client.zscore(PLACES, kept.place) is not None, "a place in use is made anew"
    client.close()


async def test_redis_away_is_told_within_its_time_out(tmp_path: Path) -> None:
    with OwnRedis(tmp_path) as server:
        async with HostLimiter(server.url, HOST, HostLimits(concurrency=1)) as limiter:
            limiter.give_back((await limiter.ask()).place)
            server.freeze()
            began = time.monotonic()
            with pytest.raises(LimiterAway):
                await limiter.ask()
            assert time.monotonic() - began < 5
            server.kill()
            with pytest.raises(LimiterAway):
                await limiter.ask()


@pytest.mark.parametrize(
    ("rate", "interval_us"), [(None, 0), (1, 1_000_000), (3, 333_334), (0.1, 10_000_000), (1e9, 1)]
)
def test_rounding_never_makes_it_faster(rate: float | None, interval_us: int) -> None:
    assert HostLimits(concurrency=1, requests_per_s=rate).interval_us == interval_us


class LimiterMachine(RuleBasedStateMachine):
    """Nodes that ask, give back, die and are flushed.

    Times are Redis' own: what was given out stands in `tat`, the time of the request after it.
    """

    nodes: int = 3

    @initialize(
        limits=st.lists(
            st.builds(
                HostLimits, concurrency=st.integers(1, 4), requests_per_s=st.none() | st.floats(20, 2000)
            ),
            min_size=3,
            max_size=3,
        )
    )
    def begin(self, limits: list[HostLimits]) -> None:
        self.runner = asyncio.Runner()
        number = 1 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        url = urlsplit(os.environ["COLLECT_REDIS_URL"])._replace(path=f"/{number}").geturl()
        self.client = redis.Redis.from_url(url)
        self.client.flushdb()
        self.make: Callable[[HostLimits], HostLimiter] = lambda each: HostLimiter(url, HOST, each)
        self.limits = limits
        self.limiters = [self._run(self._made(each)) for each in limits]
        self.places: list[dict[str, None]] = [{} for _ in limits]
        self.waiting: list[str] = ["" for _ in limits]
        self.asked: set[int] = set()
        self.tat = 0
        self.held_until = 0.0
        self.dead_waits_until = 0.0

    async def _made(self, limits: HostLimits) -> HostLimiter:
        return self.make(limits)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def _strictest(self) -> HostLimits:
        strictest = HostLimits(concurrency=64)
        for node in self.asked:
            strictest = strictest.stricter(self.limits[node])
        return strictest

    @rule(node=st.integers(0, 2))
    def a_node_asks(self, node: int) -> None:
        self.asked.add(node)
        taken = sum(map(len, self.places))
        began = time.time()
        answer = self._run(self.limiters[node].ask(self.waiting[node]))
        strictest = self._strictest()
        match answer.verdict:
            case Verdict.GRANTED:
                self.waiting[node] = ""
                self.places[node][answer.place] = None
                assert taken < strictest.concurrency, "a place was free"
                assert began >= self.held_until - 0.05, "it was not paused"
                self._check_time(strictest, began)
            case Verdict.FULL:
                self.waiting[node] = answer.place
                others_wait = any(place for other, place in enumerate(self.waiting) if other != node)
                dead_one_waits = time.time() < self.dead_waits_until + 0.05
                assert taken >= strictest.concurrency or others_wait or dead_one_waits
            case Verdict.OVER_RATE:
                self.waiting[node] = ""
                assert strictest.requests_per_s is not None
            case Verdict.HELD:
                assert time.time() < self.held_until + 0.05

    def _check_time(self, strictest: HostLimits, asked_at: float) -> None:
        """Granted times are apart by the interval of the strictest, and make up for no more than a burst."""
        if not strictest.interval_us:
            return
        found = self.client.hget(STATE, "tat")
        assert found is not None
        tat = int(found)  # type: ignore[arg-type]
        at = tat - strictest.interval_us
        made_up_us = max(0, int(BURST_S * 1e6) - strictest.interval_us)
        assert at >= int(asked_at * 1e6) - made_up_us, "time that has passed long ago was given out"
        assert self.tat == 0 or at >= self.tat, "earlier than the request before it allows"
        self.tat = tat

    @rule(node=st.integers(0, 2))
    def a_node_gives_back(self, node: int) -> None:
        if self.places[node]:
            place, _ = self.places[node].popitem()
            self._run(self._given_back(node, place))

    async def _given_back(self, node: int, place: str) -> None:
        self.limiters[node].give_back(place)
        await self.limiters[node]._return()

    @rule(node=st.integers(0, 2))
    def a_node_dies(self, node: int) -> None:
        """Its places would expire after ten seconds; they are made to have."""
        for place in self.places[node]:
            self.client.zadd(PLACES, {place: 1})
        self.places[node].clear()
        if self.waiting[node]:  # one that has not asked for a second has died
            self.dead_waits_until = time.time() + 1
        self.waiting[node] = ""
        self.limiters[node]._held.clear()
        self._run(self.limiters[node].__aexit__(None, None, None))
        self.limiters[node] = self._run(self._made(self.limits[node]))

    @rule(node=st.integers(0, 2), seconds=st.floats(0.001, 0.05))
    def a_host_asks_for_patience(self, node: int, seconds: float) -> None:
        self.held_until = max(self.held_until, time.time() + seconds)
        self._run(self.limiters[node].hold(seconds, "test"))

    @rule()
    def time_passes(self) -> None:
        time.sleep(0.02)

    @rule()
    def redis_is_flushed(self) -> None:
        """Places in use are forgotten until they are renewed; nothing else is worse for it."""
        self.client.flushdb()
        self.asked.clear()
        self.tat, self.held_until = 0, 0.0
        for node, places in enumerate(self.places):
            self.waiting[node] = ""
            if places:
                self.asked.add(node)
                self._run(self.limiters[node]._renewed(places))

    @invariant()
    def places_are_those_of_the_living(self) -> None:
        if not hasattr(self, "client"):
            return
        now_s, micros = self.client.time()  # type: ignore[misc]
        found = self.client.zrangebyscore(PLACES, now_s * 1_000_000 + micros, "+inf")
        assert {place.decode() for place in found} == {  # type: ignore[union-attr]
            place for places in self.places for place in places
        }

    def teardown(self) -> None:
        if not hasattr(self, "client"):
            return
        for limiter in self.limiters:
            self._run(limiter.__aexit__(None, None, None))
        self.client.close()
        self.runner.close()


TestLimiter = LimiterMachine.TestCase
TestLimiter.settings = settings(max_examples=examples(8), stateful_step_count=40, deadline=None)


def test_ids_sort_by_when_they_were_first_asked_for(redis_url: str) -> None:
    async def ask_all() -> list[str]:
        async with HostLimiter(redis_url, HOST, HostLimits(concurrency=64)) as limiter:
            return [(await limiter.ask()).place for _ in range(20)]

    places = asyncio.run(ask_all())
    assert all(a < b for a, b in pairwise(places))


async def test_a_clock_that_is_set_back_keeps_nobody_waiting(redis_url: str, client: redis.Redis) -> None:
    async with HostLimiter(redis_url, HOST, HostLimits(concurrency=2, requests_per_s=10)) as limiter:
        limiter.give_back((await granted(limiter)).place)
        ahead_us = int((time.time() + 3600) * 1e6)
        client.hset(STATE, "tat", ahead_us)
        client.zadd(PLACES, {"of a killed process": ahead_us, "of another": ahead_us})
        assert (await limiter.ask()).verdict is Verdict.GRANTED


async def test_a_source_whose_request_takes_long_still_holds_the_others(
    redis_url: str, client: redis.Redis
) -> None:
    """It asks for nothing for longer than its limits last, and keeps them with its place."""
    async with (
        HostLimiter(redis_url, HOST, HostLimits(concurrency=1), place_s=0.6) as narrow,
        HostLimiter(redis_url, HOST, HostLimits(concurrency=8), place_s=0.6) as wide,
    ):
        await granted(narrow)
        client.delete(DECLARED)  # they have expired
        await asyncio.sleep(0.5)
        assert (await wide.ask()).verdict is Verdict.FULL


async def test_a_place_that_was_returned_while_it_was_renewed_is_free(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with HostLimiter(redis_url, HOST, HostLimits(concurrency=1), place_s=0.3) as limiter:
        place = (await granted(limiter)).place
        renewed, renew = asyncio.Event(), limiter._renewed

        async def overtaken(places: Iterable[str]) -> None:
            limiter.give_back(place)
            await limiter._return()
            await renew(places)
            renewed.set()

        monkeypatch.setattr(limiter, "_renewed", overtaken)
        await asyncio.wait_for(renewed.wait(), 5)
        assert client.zcard(PLACES) == 1, "made anew by a renewal that came late"
        await asyncio.sleep(0.1)
        assert client.zcard(PLACES) == 0
