"""The benchmark `engine` beside a server that costs nothing: what Datasette's time hides.

The flights once and ten times; rows of which a third has columns; what telling equal pages apart costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from rich.console import Console

from benchmarks import contenders
from benchmarks.flight_pages import ONCE, TEN_TIMES, PageSet
from benchmarks.measure import Contender, Sample, median, memory_round, rounds
from benchmarks.own_services import DATABASE, own_database
from benchmarks.report import CHECKOUT, Part, Row, Target
from benchmarks.settings import BenchSettings
from benchmarks.static_server import StaticServer, serve_static

WIDE: Final = PageSet(name="flights-wide", wide=True)
#: Three thousand pages take as long as the whole table does in large ones.
SMALL_PAGES: Final = PageSet(name="flights-small-pages", page_rows=10, flights=30_000)

WIDE_SOURCE: Final = CHECKOUT / "benchmarks" / "sources" / "flights_wide.yaml"
#: At least so many: the cost is a hundredth, and so is the noise of one run.
FINGERPRINT_ROUNDS: Final = 9
#: Times the bare script's speed, by copies of the flights.
SPEED_TARGETS: Final[Mapping[int, float]] = {1: 0.9, 10: 1.2}
GROWTH_BOUND: Final = 10.5
FINGERPRINTS_BOUND_PERCENT: Final = 3.0

OURS: Final = "engine"
BARE: Final = "bare script"
TYPED: Final = "bare script, typed"
PARSED: Final = "engine, pages parsed"
BEFORE: Final = "engine before"
ALLOWED: Final = "engine, equal pages allowed"
MEASURED: Final[Mapping[str, str]] = {
    BARE: "the same seconds as beside Datasette: first request to last commit",
    TYPED: "the bare script with the engine's tricks: msgspec's typed decoding, rows written in one call, the hash "
    "over a row's CSV line",
    BEFORE: "the engine of the checkout that --before names",
}
NOTES: Final = (
    "Static pages: nginx hands out pages of 5,000 rows that lie ready, in the kernel's cache.",
    "Ten times the rows: each copy of the flights 366 days after the one before, so all keys are distinct.",
    "The rows of the table are counted after every run.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """The engine, and another release's beside it.

    Attributes:
        settings: the running stack.
        dsn: a database of the engine's own.
        dsn_before: another one, for the engine of `settings.before`.
    """

    settings: BenchSettings
    dsn: str
    dsn_before: str | None

    def ours(self, server: StaticServer, *options: str, name: str = OURS) -> Contender:
        """The engine of this checkout."""
        return contenders.engine(self.settings, server, self.dsn, *options, name=name)

    def before(self, server: StaticServer, *options: str) -> list[Contender]:
        """The engine of the other checkout, where there is one."""
        if self.settings.before is None or self.dsn_before is None:
            return []
        checkout = self.settings.before
        return [
            contenders.engine(
                self.settings, server, self.dsn_before, *options, name=BEFORE, checkout=checkout
            )
        ]


def parts(settings: BenchSettings, dsn: str, count: int, console: Console) -> list[Part]:
    """All that is measured beside the server that costs nothing.

    Args:
        settings: the running stack.
        dsn: a database of the engine's own.
        count: rounds.
        console: where progress is shown.
    """
    with ExitStack() as stack:
        dsn_before = None
        if settings.before is not None:
            dsn_before = stack.enter_context(own_database(settings, f"{DATABASE}_before"))
        engines = Engines(settings=settings, dsn=dsn, dsn_before=dsn_before)
        once, once_s = _against_bare(engines, ONCE, count, console)
        ten_times, ten_times_s = _against_bare(engines, TEN_TIMES, count, console)
        growth = Part(rows=[growth_row(OURS, once_s, ten_times_s, count)])
        few = max(count, FINGERPRINT_ROUNDS)
        return [
            once,
            ten_times,
            growth,
            _wide(engines, count, console),
            _fingerprints(engines, ONCE, few, console),
            _fingerprints(engines, SMALL_PAGES, few, console),
        ]


def _against_bare(engines: Engines, pages: PageSet, count: int, console: Console) -> tuple[Part, float]:
    """The engine against the bare scripts, and its seconds."""
    settings = engines.settings
    with serve_static(settings.stack.home, pages, console) as server:
        console.print(f"  static pages, {pages.copies} x the rows")
        ours = engines.ours(server)
        everyone = [
            ours,
            contenders.bare_script(settings, server),
            contenders.bare_script_typed(settings, server),
            *engines.before(server),
        ]
        ours.run()  # the first run pays for empty caches
        samples = rounds(everyone, count, console)
        memory = memory_round(everyone, console)
        rows = against_bare_rows(samples, pages.copies, server.rows, count)
    rows.append(_memory_row(memory, pages.copies))
    taken = {name: [*found, memory[name]] for name, found in samples.items()}
    return Part(rows=rows, samples=_labelled(taken, pages)), median(samples[OURS])


def against_bare_rows(
    samples: Mapping[str, Sequence[Sample]], copies: int, flights: int, count: int
) -> list[Row]:
    """The engine's speed against everybody else's.

    Args:
        samples: by contender.
        copies: of the flights.
        flights: rows of all copies.
        count: rounds.
    """
    ours = median(samples[OURS])
    found = []
    for name, measured in MEASURED.items():
        if name not in samples:
            continue
        peer = median(samples[name])
        bound = SPEED_TARGETS[copies] if name == BARE else None
        found.append(
            Row(
                claim=f"engine, static pages, {copies} x the rows, against {_peer_name(name)}",
                ours=flights / ours,
                peer=flights / peer,
                ratio=peer / ours,
                target=Target(of="ratio", sign=">=", value=bound) if bound else None,
                unit="rows/s",
                measured=measured,
                rounds=count,
            )
        )
    return found


def _peer_name(name: str) -> str:
    return f"the {name}" if name.startswith("bare") else name


def growth_row(who: str, once_s: float, ten_times_s: float, count: int) -> Row:
    """Whether ten times the rows take ten times as long."""
    return Row(
        claim=f"{who}, static pages: time of 10 x the rows, in times of the rows once",
        ours=ten_times_s / once_s,
        target=Target(of="ours", sign="<=", value=GROWTH_BOUND),
        unit="x",
        measured="medians",
        rounds=count,
    )


def _memory_row(memory: Mapping[str, Sample], copies: int) -> Row:
    ours, peer = memory[OURS]["peak_total_mib"], memory[BARE]["peak_total_mib"]
    return Row(
        claim=f"engine's peak memory, static pages, {copies} x the rows",
        ours=ours,
        peer=peer,
        ratio=peer / ours,
        unit="MiB",
        measured="",
        rounds=1,
    )


def _wide(engines: Engines, count: int, console: Console) -> Part:
    """Thirty fields a row, ten columns."""
    with serve_static(engines.settings.stack.home, WIDE, console) as server:
        console.print("  static pages, 30 fields a row, 10 columns")
        options = ("--source", str(WIDE_SOURCE))
        everyone = [
            engines.ours(server, *options),
            engines.ours(server, *options, "--parsed", name=PARSED),
            *engines.before(server, *options),
        ]
        everyone[0].run()
        samples = rounds(everyone, count, console)
        flights = server.rows
    return Part(rows=wide_rows(samples, flights, count), samples=_labelled(samples, WIDE))


def wide_rows(samples: Mapping[str, Sequence[Sample]], flights: int, count: int) -> list[Row]:
    """What reading pages without records is worth where most fields have no column.

    Args:
        samples: by contender.
        flights: rows of a run.
        count: rounds.
    """
    ours = median(samples[OURS])
    measured = {
        PARSED: "the same engine, every page parsed into records; twenty fields go into _extra",
        BEFORE: MEASURED[BEFORE],
    }
    return [
        Row(
            claim=f"30 fields sent, 10 declared: {OURS} against {name}",
            ours=flights / ours,
            peer=flights / median(samples[name]),
            ratio=median(samples[name]) / ours,
            target=Target(of="ratio", sign=">=", value=1.0),
            unit="rows/s",
            measured=text,
            rounds=count,
        )
        for name, text in measured.items()
        if name in samples
    ]


def _fingerprints(engines: Engines, pages: PageSet, count: int, console: Console) -> Part:
    """The engine with and without looking for equal pages."""
    with serve_static(engines.settings.stack.home, pages, console) as server:
        console.print(f"  fingerprints, pages of {pages.page_rows:,} rows")
        options = ("--page-rows", str(pages.page_rows))
        everyone = [
            engines.ours(server, *options),
            engines.ours(server, *options, "--equal-pages", "allow", name=ALLOWED),
        ]
        everyone[0].run()
        samples = rounds(everyone, count, console)
    label = f"pages of {pages.page_rows:,} rows"
    return Part(
        rows=[fingerprint_row(samples, label, count)],
        samples={f"{name}, {label}": found for name, found in samples.items()},
    )


def fingerprint_row(samples: Mapping[str, Sequence[Sample]], label: str, count: int) -> Row:
    """How much longer it takes to tell equal pages apart, in percent; nothing below zero, which is noise.

    Of the fastest runs: everything that disturbs a run makes it longer.

    Args:
        samples: by contender.
        label: which pages.
        count: rounds.
    """
    ours, without = (min(sample["seconds"] for sample in samples[name]) for name in (OURS, ALLOWED))
    return Row(
        claim=f"page fingerprints, {label}: cost",
        ours=max(0.0, 100 * (ours / without - 1)),
        target=Target(of="ours", sign="<=", value=FINGERPRINTS_BOUND_PERCENT),
        unit="%",
        measured="the engine beside paging.equal_pages: allow, the fastest run of each",
        rounds=count,
    )


def _labelled(samples: Mapping[str, Sequence[Sample]], pages: PageSet) -> dict[str, Sequence[Sample]]:
    return {f"{name}, static {pages.name}": found for name, found in samples.items()}
