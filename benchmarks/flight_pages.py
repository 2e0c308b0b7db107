"""The flights as pages that lie ready on disk, for a server that costs nothing (`static_server`).

Once, ten times, or with thirty fields a row. Each copy of the flights is 366 days later than the one before, which is
longer than the flights span: no row of one copy has the key of a row of another. Pages are made once and stay below
the stack's folder until they are made otherwise.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.progress import track

from benchmarks.errors import KeysNotDistinct
from demo.dataset import COLUMNS, TABLE, Dataset

#: Raised when pages are made otherwise than before.
VERSION: Final = 1
SHIFT: Final = timedelta(days=366)
TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"

Flight = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSet:
    """What pages are to be there.

    Attributes:
        name: of their folder.
        copies: of the flights.
        page_rows: rows of a page.
        flights: how many of the flights a copy has; all of them when None.
        wide: whether a row has the eleven fields of `widened` as well.
    """

    name: str
    copies: int = 1
    page_rows: int = 5_000
    flights: int | None = None
    wide: bool = False


ONCE: Final = PageSet(name="flights")
TEN_TIMES: Final = PageSet(name="flights-10", copies=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightPages:
    """Pages that are there.

    Attributes:
        folder: below it `LIMIT/OFFSET.json`, `count.json`, and `empty.json` for what is behind the end.
        rows: of all of them.
    """

    folder: Path
    rows: int

    def warm(self) -> None:
        """Read them, so that no contender waits for a disk."""
        for path in self.folder.rglob("*.json"):
            path.read_bytes()


def ensure_pages(home: Path, dataset: Dataset, wanted: PageSet, console: Console) -> FlightPages:
    """Make the pages unless they are there.

    Args:
        home: the stack's folder.
        dataset: the flights.
        wanted: which pages.
        console: where progress is shown.

    Raises:
        KeysNotDistinct: copies of the flights would overlap.
    """
    folder = home / "bench" / "pages" / wanted.name
    rows = wanted.copies * min(dataset.rows, wanted.flights or dataset.rows)
    stamp = json.dumps({"version": VERSION, "rows": rows, **asdict(wanted)})
    if not (folder / "stamp").exists() or (folder / "stamp").read_text() != stamp:
        shutil.rmtree(folder, ignore_errors=True)
        aside = folder.with_name(f"{wanted.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        _write(aside, dataset, wanted, rows, console)
        (aside / "stamp").write_text(stamp)
        aside.rename(folder)
    return FlightPages(folder=folder, rows=rows)


def _write(folder: Path, dataset: Dataset, wanted: PageSet, rows: int, console: Console) -> None:
    pages = folder / str(wanted.page_rows)
    pages.mkdir(parents=True)
    (folder / "count.json").write_bytes(orjson.dumps({"ok": True, "rows": [{"total": rows}]}))
    (folder / "empty.json").write_bytes(_page([]))
    found = flights(dataset, wanted)
    offsets = range(0, rows, wanted.page_rows)
    for offset in track(offsets, f"  pages {wanted.name}", console=console):
        (pages / f"{offset}.json").write_bytes(_page(list(islice(found, wanted.page_rows))))
    rest = rows % wanted.page_rows
    if rest:  # some ask for no more than there are
        (folder / str(rest)).mkdir()
        (folder / str(rest) / f"{offsets[-1]}.json").hardlink_to(pages / f"{offsets[-1]}.json")


def _page(rows: list[Flight]) -> bytes:
    """A page with what Datasette says beside the rows."""
    return orjson.dumps({"ok": True, "rows": rows, "truncated": False})


def flights(dataset: Dataset, wanted: PageSet) -> Iterator[Flight]:
    """The rows of all pages.

    Raises:
        KeysNotDistinct: copies of the flights would overlap.
    """
    # A rowid is a row's number: `demo.dataset` makes them without a gap.
    chosen = f"from {TABLE} where rowid <= {wanted.flights or dataset.rows}"
    with closing(sqlite3.connect(f"file:{dataset.path}?mode=ro", uri=True)) as database:
        first, last = database.execute(f"select min(time_hour), max(time_hour) {chosen}").fetchone()
        if _moment(last) - _moment(first) >= SHIFT:
            raise KeysNotDistinct(first=first, last=last, shift=SHIFT)
        for copy in range(wanted.copies):
            rows = database.execute(f"select {', '.join(COLUMNS)} {chosen} order by rowid")
            yield from _copied(rows, copy, widened if wanted.wide else _as_it_is)


def _copied(
    rows: Iterable[tuple[Any, ...]], copy: int, finish: Callable[[Flight], Flight]
) -> Iterator[Flight]:
    shifted: dict[str, str] = {}
    for values in rows:
        flight = dict(zip(COLUMNS, values, strict=True))
        if copy:
            time = flight["time_hour"]
            if time not in shifted:
                shifted[time] = (_moment(time) + copy * SHIFT).strftime(TIME_FORMAT)
            flight["time_hour"] = shifted[time]
        yield finish(flight)


def _as_it_is(flight: Flight) -> Flight:
    return flight


def widened(flight: Mapping[str, Any]) -> Flight:
    """A flight with thirty fields: texts, numbers with and without a fraction, booleans, nulls."""
    minutes, miles, delay = flight["air_time"], flight["distance"], flight["arr_delay"]
    return {
        **flight,
        "route": f"{flight['origin']}-{flight['dest']}",
        "number": f"{flight['carrier']} {flight['flight']}",
        "cancelled": flight["dep_time"] is None,
        "late": delay is not None and delay > 0,
        "speed_mph": None if not minutes else round(60 * miles / minutes, 2),
        "distance_km": round(miles * 1.609344, 3),
        "air_time_h": None if minutes is None else round(minutes / 60, 4),
        "quarter": (flight["month"] + 2) // 3,
        "date": f"{flight['year']}-{flight['month']:02}-{flight['day']:02}",
        "gate": None,
        "remark": "on time" if delay is not None and delay <= 0 else "see the airline's page",
    }


def _moment(text: str) -> datetime:
    return datetime.strptime(text, TIME_FORMAT)  # noqa: DTZ007 - only differences count
