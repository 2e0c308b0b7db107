"""Benchmark `engine`: one shard group process against the bare script, both without Airflow.

Beside Datasette, which needs as long as they do, and beside a server that costs nothing (`engine_static`).
"""

from __future__ import annotations

from typing import Final

from rich.console import Console

from benchmarks import contenders, engine_static
from benchmarks.measure import circumstances, median, memory_round, rounds
from benchmarks.own_services import own_database
from benchmarks.report import Part, Result, Row, Target
from benchmarks.settings import BenchSettings
from demo.server import serve

DEFAULT_ROUNDS: Final = 5


def run(settings: BenchSettings, count: int | None, console: Console) -> Result:
    """Compare the engine with the bare script.

    Args:
        settings: the running stack.
        count: rounds; `DEFAULT_ROUNDS` when None.
        console: where progress is shown.
    """
    count = count or DEFAULT_ROUNDS
    before = circumstances()
    with own_database(settings) as dsn:
        parts = [_beside_datasette(settings, dsn, count, console)]
        parts += engine_static.parts(settings, dsn, count, console)
        contenders.remove_tables(settings)
    return Result(
        name="engine",
        rows=[row for part in parts for row in part.rows],
        samples={name: samples for part in parts for name, samples in part.samples.items()},
        circumstances=before,
        notes=engine_static.NOTES,
    )


def _beside_datasette(settings: BenchSettings, dsn: str, count: int, console: Console) -> Part:
    with serve(settings.stack.home) as server:
        ours, bare = contenders.engine(settings, server, dsn), contenders.bare_script(settings, server)
        ours.run()  # the first run pays for empty caches
        samples = rounds([ours, bare], count, console)
        memory = memory_round([ours, bare], console)
        flights = server.rows
    seconds, bare_seconds = median(samples[ours.name]), median(samples[bare.name])
    rows = [
        Row(
            claim="engine alone as fast as the bare script",
            ours=flights / seconds,
            peer=flights / bare_seconds,
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
    return Part(rows=rows, samples={name: [*taken, memory[name]] for name, taken in samples.items()})
