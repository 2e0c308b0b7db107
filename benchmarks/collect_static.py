"""The benchmark `collect` beside a server that costs nothing: the flights once and ten times.

Without the contenders that need half a minute for the flights once: what they wait for is not the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from rich.console import Console

from benchmarks import contenders
from benchmarks.engine_static import growth_row
from benchmarks.flight_pages import ONCE, TEN_TIMES, PageSet
from benchmarks.measure import Sample, median, rounds
from benchmarks.report import Part, Row, Target
from benchmarks.settings import BenchSettings
from benchmarks.static_server import serve_static

DEFAULT_ROUNDS: Final = 5
OURS: Final = "collect-ops"
ARROW: Final = "dlt append, Arrow tables"
TUNED: Final = "dlt append, tuned"
#: What is promised against whom, by copies of the flights: `>=` times as fast.
TARGETS: Final[Mapping[str, Mapping[int, float]]] = {
    ARROW: {10: 1.5},
    TUNED: {1: 2.5, 10: 2.5},
    "bare script": {},
    "bare script, typed": {},
}
MEASURED: Final[Mapping[str, str]] = {
    ARROW: "pages turned into Arrow tables by the user's code; dlt looks at no row",
    TUNED: "declared columns, parallel fetching, COPY, a normaliser a core; its start not counted",
    "bare script": "asyncio, aiohttp, orjson, COPY; no checks, no retries, no resuming, nothing to see",
    "bare script, typed": "the same with the engine's tricks: msgspec, the hash over a row's CSV line",
}
NOTES: Final = (
    "Static pages: nginx hands out pages of 5,000 rows that lie ready, in the kernel's cache.",
    "Ten times the rows: each copy of the flights 366 days after the one before, so all keys are distinct.",
)


def part(settings: BenchSettings, count: int | None, console: Console) -> Part:
    """All that is measured beside the server that costs nothing.

    Args:
        settings: the running stack.
        count: rounds; `DEFAULT_ROUNDS` when None.
        console: where progress is shown.
    """
    count = count or DEFAULT_ROUNDS
    samples = {pages.copies: _measured(settings, pages, count, console) for pages in (ONCE, TEN_TIMES)}
    once_s, ten_times_s = (median(found[OURS]) for found in samples.values())
    rows = [row for copies, found in samples.items() for row in speed_rows(found, copies, count)]
    return Part(
        rows=[*rows, growth_row("whole path", once_s, ten_times_s, count)],
        samples={
            f"{name}, static pages, {copies} x the rows": taken
            for copies, found in samples.items()
            for name, taken in found.items()
        },
    )


def _measured(
    settings: BenchSettings, pages: PageSet, count: int, console: Console
) -> dict[str, list[Sample]]:
    with ExitStack() as stack:
        server = stack.enter_context(serve_static(settings.stack.home, pages, console))
        console.print(f"  static pages, {pages.copies} x the rows")
        ours = stack.enter_context(contenders.collect_ops(settings, server))
        everyone = [
            ours,
            contenders.dlt_arrow(settings, server),
            contenders.dlt_append(settings, server),
            contenders.bare_script(settings, server),
            contenders.bare_script_typed(settings, server),
        ]
        ours.run()  # the first run after a start pays for imports and empty caches
        samples = rounds(everyone, count, console)
    contenders.remove_tables(settings)
    return samples


def speed_rows(samples: Mapping[str, Sequence[Sample]], copies: int, count: int) -> list[Row]:
    """The whole path's time against everybody else's.

    Args:
        samples: by contender.
        copies: of the flights.
        count: rounds.
    """
    ours = median(samples[OURS])
    found = []
    for name, bounds in TARGETS.items():
        peer, bound = median(samples[name]), bounds.get(copies)
        found.append(
            Row(
                claim=f"whole path, static pages, {copies} x the rows, faster than {name}",
                ours=ours,
                peer=peer,
                ratio=peer / ours,
                target=Target(of="ratio", sign=">=", value=bound) if bound else None,
                unit="s",
                measured=MEASURED[name] if copies == 1 else "",
                rounds=count,
            )
        )
    return found
