"""Benchmark `engine`: one shard group process against the bare script, both without Airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Final

from rich.console import Console

from benchmarks import contenders
from benchmarks.errors import PeerFailed
from benchmarks.measure import Contender, Sample, circumstances, median, memory_round, rounds
from benchmarks.own_services import own_database, own_redis
from benchmarks.report import CHECKOUT, Result, Row, Target
from benchmarks.settings import BenchSettings
from demo.server import DemoServer, serve

DEFAULT_ROUNDS: Final = 5
TIMEOUT_S: Final = 300


def run(settings: BenchSettings, count: int | None, console: Console) -> Result:
    """Compare the engine with the bare script.

    Args:
        settings: the running stack.
        count: rounds; `DEFAULT_ROUNDS` when None.
        console: where progress is shown.
    """
    count = count or DEFAULT_ROUNDS
    before = circumstances()
    with own_database(settings) as dsn, serve(settings.stack.home) as server:
        ours, bare = engine(settings, server, dsn), contenders.bare_script(settings, server)
        ours.run()  # the first run pays for empty caches
        samples = rounds([ours, bare], count, console)
        memory = memory_round([ours, bare], console)
    seconds, bare_seconds = median(samples[ours.name]), median(samples[bare.name])
    rows = [
        Row(
            claim="engine alone as fast as the bare script",
            ours=336_776 / seconds,
            peer=336_776 / bare_seconds,
            ratio=bare_seconds / seconds,
            target=Target(of="ratio", sign=">=", value=0.85),
            unit="rows/s",
            measured="one shard group process, no Airflow: leases, fencing, resumable pages, typed landing with "
            "checks, traces; the bare script has none of it",
            rounds=count,
        ),
        Row(
            claim="engine's peak memory",
            ours=memory[ours.name]["peak_total_mib"],
            peer=memory[bare.name]["peak_total_mib"],
            ratio=memory[bare.name]["peak_total_mib"] / memory[ours.name]["peak_total_mib"],
            unit="MiB",
            measured="unique memory (USS) of the process; bounded by page size and concurrency",
            rounds=1,
        ),
    ]
    return Result(
        name="engine",
        rows=rows,
        samples={name: [*taken, memory[name]] for name, taken in samples.items()},
        circumstances=before,
    )


def engine(settings: BenchSettings, server: DemoServer, dsn: str) -> Contender:
    """The engine alone, in a process of its own."""

    def once() -> Sample:
        command = [
            *(sys.executable, "-m", "benchmarks.engine_process"),
            *("--base-url", server.base_url, "--dsn", dsn, "--rows", str(server.dataset.rows)),
            *("--redis", own_redis(settings), "--amqp", settings.stack.amqp_url),
        ]
        paths = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "plugins")])
        environment = {**os.environ, "PYTHONPATH": paths}
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise PeerFailed(peer="engine", reason=(done.stdout + done.stderr)[-2000:])
        sample: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return sample

    return Contender(name="engine", run=once)
