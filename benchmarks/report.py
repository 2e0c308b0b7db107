"""What a benchmark ends in: rows of one form, a file of results, a table, a section of docs/benchmarks.md."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

CHECKOUT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = CHECKOUT / "benchmarks" / "results"
DOCUMENT: Final = CHECKOUT / "docs" / "benchmarks.md"
COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a figure has to reach.

    Attributes:
        of: which figure of the row is meant, `ratio` or `ours`.
        sign: `>=` or `<=`.
        value: the bound.
    """

    of: str
    sign: str
    value: float

    def __str__(self) -> str:
        return f"{self.of} {self.sign} {self.value:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One claim and what was found.

    Attributes:
        claim: what is claimed, as half a sentence.
        ours: our figure, None when ours was not measured.
        peer: the figure that it is compared with, None when there is none.
        ratio: how many times better ours is, whichever direction is better; None without a peer.
        target: what was to be reached, None for a figure that is only reported.
        unit: of `ours` and `peer`.
        measured: what was measured, and how.
        rounds: how many measurements the medians are of.
    """

    claim: str
    ours: float | None
    peer: float | None = None
    ratio: float | None = None
    target: Target | None = None
    unit: str
    measured: str
    rounds: int

    @property
    def holds(self) -> bool | None:
        """Whether the target is reached; None when there is no target."""
        if self.target is None:
            return None
        found = {"ratio": self.ratio, "ours": self.ours}[self.target.of]
        return found is not None and COMPARE[self.target.sign](found, self.target.value)

    def as_json(self) -> dict[str, Any]:
        """The row as it stands in the file of results."""
        target = str(self.target) if self.target else None
        return {**asdict(self), "target": target, "holds": self.holds}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a benchmark.

    Attributes:
        rows: its claims.
        samples: contender → one mapping of figures a round.
    """

    rows: Sequence[Row]
    samples: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A benchmark's rows, and each single measurement behind them.

    Attributes:
        name: of the benchmark and of its file.
        rows: the claims.
        samples: contender → one mapping of figures a round.
        circumstances: machine, versions, time.
        notes: sentences that the reader of the figures needs.
    """

    name: str
    rows: Sequence[Row]
    samples: Mapping[str, Sequence[Mapping[str, Any]]]
    circumstances: Mapping[str, Any]
    notes: Sequence[str] = field(default_factory=tuple)

    def save(self) -> Path:
        """Write `results/NAME.json`."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        content = {
            "name": self.name,
            "rows": [row.as_json() for row in self.rows],
            "samples": self.samples,
            "circumstances": self.circumstances,
            "notes": list(self.notes),
        }
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        return path


def show(result: Result, console: Console) -> None:
    """Print the rows: what falls short is red and says so."""
    table = Table(title=f"benchmark {result.name}", title_justify="left")
    for heading in ("claim", "ours", "peer", "unit", "ratio", "target", "", "rounds"):
        table.add_column(heading, justify="left" if heading in {"claim", "target", ""} else "right")
    for row in result.rows:
        verdict = {True: "[green]holds", False: "[bold red]FALLS SHORT", None: "[dim]-"}[row.holds]
        figures = (_figure(row.ours), _figure(row.peer), row.unit, _figure(row.ratio))
        table.add_row(row.claim, *figures, str(row.target or ""), verdict, str(row.rounds))
    console.print(table)
    for note in result.notes:
        console.print(f"  {note}", style="dim")


def write_document() -> None:
    """Put every file of results between its markers in docs/benchmarks.md; the text around them stays."""
    text = DOCUMENT.read_text()
    for path in sorted(RESULTS.glob("*.json")):
        text = _replace_section(text, path.stem, _section(json.loads(path.read_text())))
    DOCUMENT.write_text(text)


def _replace_section(text: str, name: str, section: str) -> str:
    begin, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    whole = f"{begin}\n{section}\n{end}"
    if begin not in text:
        return f"{text.rstrip()}\n\n## {name}\n\n{whole}\n"
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: whole, text, flags=re.DOTALL)


def _section(result: Mapping[str, Any]) -> str:
    """A file of results as Markdown."""
    lines = [
        "| claim | ours | peer | unit | ratio | target | holds | rounds |",
        "| --- | ---: | ---: | --- | ---: | --- | --- | ---: |",
    ]
    words = {True: "yes", False: "**no**", None: "-"}
    for row in result["rows"]:
        figures = f"{_figure(row['ours'])} | {_figure(row['peer'])} | {row['unit']} | {_figure(row['ratio'])}"
        verdict = f"{row['target'] or '-'} | {words[row['holds']]} | {row['rounds']}"
        lines.append(f"| {row['claim']} | {figures} | {verdict} |")
    told = ", ".join(f"{name} {value}" for name, value in result["circumstances"].items())
    lines += ["", f"Measured: {told}."]
    lines += [f"* {row['claim']}: {row['measured']}" for row in result["rows"] if row["measured"]]
    lines += [f"* {note}" for note in result["notes"]]
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
