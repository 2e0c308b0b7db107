"""Benchmark `limiter`: what a turn at a host costs, and how well three nodes keep to its limits together."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis
from rich.console import Console

from benchmarks.errors import PeerFailed
from benchmarks.limiter_process import HOST, declared, gate_of
from benchmarks.measure import Contender, Sample, Stopwatch, circumstances, median, rounds
from benchmarks.own_services import own_database, own_redis
from benchmarks.report import CHECKOUT, Result, Row, Target
from benchmarks.settings import BenchSettings
from collect_ops.coordination.client import connect_async
from collect_ops.coordination.limiter import HostLimiter, HostLimits, Verdict
from collect_ops.kernel.backends import Backends
from collect_ops.storage import connect
from collect_ops.storage.migrate import migrate

DEFAULT_ROUNDS: Final = 3
NODES: Final = 3
TURNS: Final = 2_000
RATES: Final = (20.0, 100.0, 400.0)
RATE_SECONDS: Final = 10.0
QUOTA: Final = 5_000
TIMEOUT_S: Final = 120

LIMITER: Final = "limiter alone"
GATE: Final = "whole gate"
GATE_QUOTA: Final = "whole gate, with a quota"
BARE: Final = "bare Redis round trip (PING)"


def run(settings: BenchSettings, count: int | None, console: Console) -> Result:
    """Measure the cost of a turn, then three processes at several rates and with a quota.

    Args:
        settings: the running stack; only PostgreSQL and Redis are needed.
        count: rounds; `DEFAULT_ROUNDS` when None.
        console: where progress is shown.
    """
    count = count or DEFAULT_ROUNDS
    before = circumstances()
    with own_database(settings) as dsn:
        with connect(dsn) as connection:
            migrate(connection)
        backends = Backends(postgres_dsn=dsn, redis_url=own_redis(settings), amqp_url="")
        contenders = [
            Contender(name=LIMITER, run=lambda: asyncio.run(limiter_turns(backends, TURNS))),
            Contender(name=GATE, run=lambda: asyncio.run(gate_turns(backends, TURNS, quota=None))),
            Contender(name=GATE_QUOTA, run=lambda: asyncio.run(gate_turns(backends, TURNS, quota=10**9))),
            Contender(name=BARE, run=lambda: asyncio.run(pings(backends, TURNS))),
            *(
                Contender(name=_rate_name(rate), run=lambda rate=rate: at_rate(backends, rate))
                for rate in RATES
            ),
            Contender(name="quota", run=lambda: with_quota(backends)),
        ]
        samples = rounds(contenders, count, console)
    return Result(
        name="limiter",
        rows=rows(samples, count),
        samples=samples,
        circumstances=before,
        notes=(
            "A turn: one Lua script in Redis (places, rate, pauses), given back with the next one. No request is sent.",
            "The gate adds the breaker, outcomes and, with a quota, blocks from PostgreSQL.",
            "Three nodes: three processes of this machine with 4 workers each, on one Redis; 12 requests at once.",
        ),
    )


def rows(samples: Mapping[str, Sequence[Sample]], count: int) -> list[Row]:
    """The claims, from the samples of all contenders."""
    bare = median(samples[BARE], "turn_ms")
    costs = [
        Row(
            claim=f"a turn, {name}, against a {BARE}",
            ours=median(samples[name], "turn_ms"),
            peer=bare,
            ratio=bare / median(samples[name], "turn_ms"),
            target=Target(of="ratio", sign=">=", value=0.33),
            unit="ms",
            measured=f"{TURNS} turns one after the other, in one process",
            rounds=count,
        )
        for name in (LIMITER, GATE, GATE_QUOTA)
    ]
    return [
        *costs,
        *(row for rate in RATES for row in _rate_rows(samples, rate, count)),
        *_quota_rows(samples, count),
    ]


def _rate_rows(samples: Mapping[str, Sequence[Sample]], rate: float, count: int) -> list[Row]:
    taken = samples[_rate_name(rate)]
    return [
        Row(
            claim=f"three nodes at {rate:g} requests a second reach of it",
            ours=100 * median(taken, "share"),
            unit="%",
            target=Target(of="ours", sign=">=", value=95),
            measured=f"turns a second over {RATE_SECONDS:g} s",
            rounds=count,
        ),
        Row(
            claim=f"three nodes at {rate:g} requests a second, never above it",
            ours=100 * max(float(sample["share"]) for sample in taken),
            unit="%",
            target=Target(of="ours", sign="<=", value=100.5),
            measured="the same, of the fastest round; half a percent for what reading the clock is off",
            rounds=count,
        ),
    ]


def _quota_rows(samples: Mapping[str, Sequence[Sample]], count: int) -> list[Row]:
    most = max(int(sample["turns"]) for sample in samples["quota"])
    least = min(int(sample["turns"]) for sample in samples["quota"])
    return [
        Row(
            claim=f"three nodes with a quota of {QUOTA:,}: most that were given out",
            ours=most,
            unit="turns",
            target=Target(of="ours", sign="<=", value=QUOTA),
            measured="until all three are told that it is used up; Redis is flushed in the middle",
            rounds=count,
        ),
        Row(
            claim=f"three nodes with a quota of {QUOTA:,}: least that were given out",
            ours=least,
            unit="turns",
            target=Target(of="ours", sign=">=", value=0.95 * QUOTA),
            measured="the same",
            rounds=count,
        ),
    ]


async def limiter_turns(backends: Backends, turns: int) -> Sample:
    """Turns of the limiter alone, one after the other."""
    clear(backends)
    async with HostLimiter(backends.redis_url, HOST, HostLimits(concurrency=4)) as limiter:
        await limiter.ask()
        with Stopwatch() as watch:
            for _ in range(turns):
                answer = await limiter.ask()
                if answer.verdict is not Verdict.GRANTED:
                    raise PeerFailed(peer=LIMITER, reason=f"{answer}")
                limiter.give_back(answer.place)
    return {"seconds": watch.seconds, "turn_ms": 1000 * watch.seconds / turns}


async def gate_turns(backends: Backends, turns: int, *, quota: int | None) -> Sample:
    """Turns of the gate that a shard group has, one after the other."""
    clear(backends)
    source = declared(4, None, quota)
    async with gate_of(source, backends) as gate:
        endpoint = gate.endpoint(source)
        with Stopwatch() as watch:
            for _ in range(turns):
                async with endpoint.turn("bench"):
                    pass
    return {"seconds": watch.seconds, "turn_ms": 1000 * watch.seconds / turns}


async def pings(backends: Backends, turns: int) -> Sample:
    """Round trips that do nothing, with the same client."""
    client = connect_async(backends.redis_url)
    await client.ping()
    with Stopwatch() as watch:
        for _ in range(turns):
            await client.ping()
    await client.aclose()
    return {"seconds": watch.seconds, "turn_ms": 1000 * watch.seconds / turns}


def at_rate(backends: Backends, rate: float, seconds: float = RATE_SECONDS) -> Sample:
    """Three processes at one rate."""
    clear(backends)
    found = nodes(backends, "--rate", str(rate), "--seconds", str(seconds))
    at = sorted(each for node in found for each in node["at"])
    took_s = at[-1] - at[0]
    achieved = (len(at) - 1) / took_s
    return {"seconds": took_s, "turns": len(at), "share": achieved / rate}


def with_quota(backends: Backends, quota: int = QUOTA) -> Sample:
    """Three processes until the quota is used up."""
    clear(backends)
    with Stopwatch() as watch:
        found = nodes(backends, "--quota", str(quota), "--seconds", "60", flush=True)
    if not all(node["held"] for node in found):
        raise PeerFailed(peer="quota", reason="a node ended before the quota was used up")
    return {"seconds": watch.seconds, "turns": sum(len(node["at"]) for node in found)}


def nodes(backends: Backends, *options: str, flush: bool = False) -> list[dict[str, Any]]:
    """Run the nodes at the same time; returns what each printed."""
    command = [
        sys.executable, "-m", "benchmarks.limiter_process", "--dsn", backends.postgres_dsn,
        "--redis", backends.redis_url, "--concurrency", "12", "--workers", "4", *options,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT / "plugins"), str(CHECKOUT)])}
    processes = [
        subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(NODES)
    ]
    for process in processes:
        if process.stdout is None or process.stdout.readline().strip() != "ready":
            raise PeerFailed(peer="limiter", reason="a node did not start")
    for process in processes:
        if process.stdin is not None:
            process.stdin.write("go\n")
            process.stdin.flush()
    if flush:
        time.sleep(0.5)
        clear_redis(backends)
    printed = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
    if any(process.returncode for process in processes):
        raise PeerFailed(peer="limiter", reason="a node failed")
    return [json.loads(text) for text in printed]


def clear(backends: Backends) -> None:
    """No key, no record of the host."""
    clear_redis(backends)
    with connect(backends.postgres_dsn) as connection:
        connection.execute("truncate collect.host, collect.endpoint, collect.host_quota")


def clear_redis(backends: Backends) -> None:
    """No key."""
    with redis.Redis.from_url(backends.redis_url) as client:
        client.flushdb()


def _rate_name(rate: float) -> str:
    return f"three nodes, {rate:g}/s"
