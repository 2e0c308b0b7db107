"""A node of benchmark `limiter`: takes turns at a host and sends nothing. Prints when it had them, as JSON.

`{"at": [seconds, …], "held": true}`: times of this machine's clock, which its processes share; `held`: it ended because
the host's quota was used up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Final

from collect_ops.collectors.errors import HostHeld
from collect_ops.execution.endpoint_gate import EndpointGate
from collect_ops.execution.host_gate import HostGate
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.hosts import Host
from collect_ops.lanes.rules import HostRule
from collect_ops.sources.model import Source

HOST: Final = "bench_api"


def declared(concurrency: int, rate: float | None, quota: int | None) -> Source:
    """A source with these limits."""
    limits = {"concurrency": concurrency, "requests_per_s": rate, "daily_quota": quota}
    target = {"table": "bench"}
    return Source.model_validate({"name": "bench", "connection": HOST, "target": target, "limits": limits})


def gate_of(source: Source, backends: Backends) -> HostGate:
    """The gate that a shard group has."""
    return HostGate(
        source,
        backends,
        HostRule(),
        Host(connection=HOST),
        concurrency=source.limits.concurrency,
        requests_per_s=source.limits.requests_per_s,
    )


async def take_turns(
    source: Source, backends: Backends, workers: int, seconds: float
) -> tuple[list[float], bool]:
    """Take turns with some workers; returns when, and whether the host was held."""
    at: list[float] = []
    until = time.monotonic() + seconds
    held = False

    async def work(endpoint: EndpointGate) -> None:
        nonlocal held
        try:
            while time.monotonic() < until:
                async with endpoint.turn("bench"):
                    at.append(time.time())
        except HostHeld:
            held = True

    async with gate_of(source, backends) as gate:
        endpoint = gate.endpoint(source)
        await asyncio.gather(*(work(endpoint) for _ in range(workers)))
    return at, held


def main() -> int:
    """Read the command line, wait for a line on stdin, take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--quota", type=int)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    backends = Backends(postgres_dsn=arguments.dsn, redis_url=arguments.redis, amqp_url="")
    source = declared(arguments.concurrency, arguments.rate, arguments.quota)
    print("ready", flush=True)
    sys.stdin.readline()
    at, held = asyncio.run(take_turns(source, backends, arguments.workers, arguments.seconds))
    print(json.dumps({"at": at, "held": held}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
