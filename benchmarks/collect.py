"""Benchmark `collect`: 336,776 rows from an HTTP server into PostgreSQL, by everything people would use.

Beside Datasette, and the fastest of them beside a server that costs nothing as well (`collect_static`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from rich.console import Console

from benchmarks import collect_static, contenders
from benchmarks.measure import Contender, Sample, circumstances, median, memory_round, rounds
from benchmarks.report import Part, Result, Row, Target
from benchmarks.settings import BenchSettings
from demo.server import DemoServer, serve

DEFAULT_ROUNDS: Final = 3
OURS: Final = "collect-ops"
#: What is promised against whom: `>=` times as fast.
TARGETS: Final[Mapping[str, float | None]] = {
    "dlt append, tuned": 5.0,
    "dlt merge, tuned": None,
    "stock Airflow": 5.0,
    "stock DAG in our Airflow": None,
    "dlt append, as installed": None,
    "dlt append, Arrow tables": None,
    "bare script": None,
}
MEASURED: Final[Mapping[str, str]] = {
    "dlt append, tuned": "declared columns, parallel fetching, COPY, a normaliser a core; its start not counted",
    "dlt merge, tuned": "the same with a merge by key",
    "stock Airflow": "68 mapped tasks, PostgresHook.insert_rows with executemany; Airflow as shipped",
    "stock DAG in our Airflow": "the same DAG with this project's preloading and settings",
    "dlt append, as installed": "dlt's REST source with an offset paginator, nothing set",
    "dlt append, Arrow tables": "pages turned into Arrow tables by the user's code; dlt looks at no row",
    "bare script": "asyncio, aiohttp, orjson, COPY; no checks, no retries, no resuming, nothing to see",
}


def run(settings: BenchSettings, count: int | None, console: Console) -> Result:
    """Run all contenders in turns and compare.

    Args:
        settings: the running stack.
        count: rounds; `DEFAULT_ROUNDS` beside Datasette when None, and more beside static pages.
        console: where progress is shown.
    """
    before = circumstances()
    parts = [
        _beside_datasette(settings, count or DEFAULT_ROUNDS, console),
        collect_static.part(settings, count, console),
    ]
    return Result(
        name="collect",
        rows=[row for part in parts for row in part.rows],
        samples={name: samples for part in parts for name, samples in part.samples.items()},
        circumstances=before,
        notes=[
            "All contenders fetch pages of 5,000 rows from the same server; Datasette where no other is named.",
            "collect-ops is measured from the submission by REST to COMPLETED.",
            "Memory: unique memory (USS) of all processes that do the job, sampled in a round of its own.",
            *collect_static.NOTES,
        ],
    )


def _beside_datasette(settings: BenchSettings, count: int, console: Console) -> Part:
    with ExitStack() as stack:
        server = stack.enter_context(serve(settings.stack.home))
        everyone = _contenders(stack, settings, server)
        everyone[0].run()  # the first run after a start pays for imports and empty caches
        samples = rounds(everyone, count, console)
        memory = memory_round(everyone, console)
        contenders.remove_tables(settings)
    return Part(
        rows=[*_speed_rows(samples, count), *_memory_rows(memory)],
        samples={name: [*taken, memory[name]] for name, taken in samples.items()},
    )


def _contenders(stack: ExitStack, settings: BenchSettings, server: DemoServer) -> Sequence[Contender]:
    return [
        stack.enter_context(contenders.collect_ops(settings, server)),
        contenders.dlt_append(settings, server),
        contenders.dlt_merge(settings, server),
        stack.enter_context(contenders.stock_airflow(settings, server)),
        stack.enter_context(contenders.stock_dag(settings, server)),
        contenders.bare_script(settings, server),
        contenders.dlt_arrow(settings, server),
        contenders.dlt_as_installed(settings, server),
    ]


def _speed_rows(samples: Mapping[str, Sequence[Sample]], count: int) -> list[Row]:
    ours = median(samples[OURS])
    rows = []
    for name, bound in TARGETS.items():
        peer = median(samples[name])
        rows.append(
            Row(
                claim=f"whole path faster than {name}",
                ours=ours,
                peer=peer,
                ratio=peer / ours,
                target=Target(of="ratio", sign=">=", value=bound) if bound else None,
                unit="s",
                measured=MEASURED[name],
                rounds=count,
            )
        )
    return rows


def _memory_rows(memory: Mapping[str, Sample]) -> list[Row]:
    ours = memory[OURS]["peak_total_mib"]
    rows = [
        Row(
            claim=f"peak memory against {name}",
            ours=ours,
            peer=memory[name]["peak_total_mib"],
            ratio=memory[name]["peak_total_mib"] / ours if ours else None,
            unit="MiB",
            measured="",
            rounds=1,
        )
        for name in TARGETS
    ]
    largest = Row(
        claim="peak memory of the largest process (a shard group's is bounded by page size and concurrency)",
        ours=memory[OURS]["peak_process_mib"],
        unit="MiB",
        measured="unique memory (USS)",
        rounds=1,
    )
    return [*rows, largest]
