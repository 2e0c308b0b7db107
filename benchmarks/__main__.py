"""`python -m benchmarks [NAME …] [--rounds N]`: run benchmarks, save their results, show what falls short.

Exit status: 0 when everything was measured, 2 when something could not be, and with --strict 1 when a
target is not reached.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks import (
    admission,
    claim,
    collect,
    due,
    engine,
    heartbeats,
    idle,
    latency,
    limiter,
    nodes,
    placement,
    priority,
    recovery,
    urgent,
)
from benchmarks.errors import UnknownBenchmark
from benchmarks.report import Result, show, write_document
from benchmarks.settings import BenchSettings
from collect_ops.kernel.errors import CollectOpsError

Benchmark = Callable[[BenchSettings, int | None, Console], Result]
BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "admission": admission.run,
    "priority": priority.run,
    "claim": claim.run,
    "limiter": limiter.run,
    "placement": placement.run,
    "heartbeats": heartbeats.run,
    "engine": engine.run,
    "latency": latency.run,
    "urgent": urgent.run,
    "collect": collect.run,
    "nodes": nodes.run,
    "recovery": recovery.run,
    "due": due.run,
    "idle": idle.run,
}
#: Of output that goes to a file: the tables need it.
LOG_WIDTH: Final = 140


def main() -> int:
    """Read the command line and run what it names; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHMARKS)}; all by default"
    )
    parser.add_argument("--strict", action="store_true", help="fail when a target is not reached")
    parser.add_argument("--rounds", type=int, help="how often each is measured")
    parser.add_argument(
        "--document", action="store_true", help="only write docs/benchmarks.md from the results"
    )
    parser.add_argument(
        "--before",
        type=Path,
        metavar="FOLDER",
        help="a checkout of another release: its engine is measured too",
    )
    arguments = parser.parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    try:
        if arguments.document:
            write_document()
            return 0
        names = arguments.names or list(BENCHMARKS)
        all_hold = run(names, arguments.rounds, console, before=arguments.before)
        return 1 if arguments.strict and not all_hold else 0
    except CollectOpsError as error:
        console.print(f"[bold red]Not measured.[/] {error}", highlight=False)
        return 2


def run(names: list[str], count: int | None, console: Console, *, before: Path | None = None) -> bool:
    """Run the named benchmarks, save and show each as soon as it is done; returns whether every target is reached."""
    for name in names:
        if name not in BENCHMARKS:
            raise UnknownBenchmark(name=name, known=tuple(BENCHMARKS))
    settings = BenchSettings.load(before=before)
    all_hold = True
    for name in names:
        console.print(f"[bold]{name}")
        result = BENCHMARKS[name](settings, count, console)
        console.print(f"  saved to {result.save()}", highlight=False)
        write_document()
        show(result, console)
        all_hold = all_hold and not any(row.holds is False for row in result.rows)
    return all_hold


if __name__ == "__main__":
    sys.exit(main())
