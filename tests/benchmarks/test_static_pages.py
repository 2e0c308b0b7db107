"""Pages that lie ready, the server that hands them out, and what is claimed beside it."""

from __future__ import annotations

import io
import json
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import collect_static, engine_static
from benchmarks.engine_static import ALLOWED, BARE, BEFORE, OURS, PARSED, TYPED, WIDE_SOURCE
from benchmarks.errors import KeysNotDistinct
from benchmarks.flight_pages import PageSet, ensure_pages
from benchmarks.static_server import serve_pages
from collect_ops.sources.load import load_source
from demo.dataset import COLUMNS, KEY, TABLE, Dataset

FLIGHTS = 23


def a_dataset(folder: Path, *, hours: int = 8_700) -> Dataset:
    """So many flights, from the first hour of a year to the last of so many."""
    path = folder / "flights.db"
    times = [f"2013-{1 + number % 12:02}-{1 + number // 12:02}T10:00:00Z" for number in range(FLIGHTS - 1)]
    times += ["2014-01-01T04:00:00Z" if hours < 9_000 else "2014-03-01T04:00:00Z"]
    with closing(sqlite3.connect(path)) as database:
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        database.execute(f"create table {TABLE} ({columns})")
        for number, time in enumerate(times):
            values = {name: number if kind == "integer" else f"{name} é" for name, kind in COLUMNS.items()}
            row = {**values, "month": 1 + number % 12, "air_time": number or None, "time_hour": time}
            database.execute(
                f"insert into {TABLE} values ({', '.join('?' * len(COLUMNS))})", list(row.values())
            )
        database.commit()
    return Dataset(path=path, rows=FLIGHTS)


def quiet() -> Console:
    return Console(file=io.StringIO())


def rows_in(folder: Path, limit: int) -> list[dict[str, Any]]:
    pages = sorted((folder / str(limit)).glob("*.json"), key=lambda path: int(path.stem))
    return [row for page in pages for row in json.loads(page.read_bytes())["rows"]]


def test_no_row_of_a_copy_has_the_key_of_another(tmp_path: Path) -> None:
    pages = ensure_pages(tmp_path, a_dataset(tmp_path), PageSet(name="few", copies=10, page_rows=7), quiet())
    rows = rows_in(pages.folder, 7)
    assert len(rows) == pages.rows == 10 * FLIGHTS
    assert len({tuple(row[name] for name in KEY) for row in rows}) == pages.rows
    assert [list(row) for row in rows] == [list(COLUMNS)] * pages.rows
    assert rows[FLIGHTS]["time_hour"] == "2014-01-02T10:00:00Z"
    assert json.loads((pages.folder / "count.json").read_bytes())["rows"] == [{"total": pages.rows}]


def test_copies_that_would_overlap_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeysNotDistinct):
        ensure_pages(
            tmp_path, a_dataset(tmp_path, hours=10_000), PageSet(name="few", copies=2, page_rows=7), quiet()
        )
    assert not (tmp_path / "bench" / "pages" / "few").exists()


def test_pages_are_made_once_and_made_anew_when_others_are_meant(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path)
    first = ensure_pages(tmp_path, dataset, PageSet(name="few", page_rows=7), quiet())
    made = (first.folder / "7" / "0.json").stat().st_mtime_ns
    ensure_pages(tmp_path, dataset, PageSet(name="few", page_rows=7), quiet())
    assert (first.folder / "7" / "0.json").stat().st_mtime_ns == made
    other = ensure_pages(tmp_path, dataset, PageSet(name="few", page_rows=7, flights=10), quiet())
    assert (other.rows, len(rows_in(other.folder, 7))) == (10, 10)


def test_a_wide_row_has_thirty_fields_of_which_ten_have_a_column(tmp_path: Path) -> None:
    pages = ensure_pages(tmp_path, a_dataset(tmp_path), PageSet(name="wide", wide=True), quiet())
    rows = rows_in(pages.folder, 5_000)
    assert {len(row) for row in rows} == {30}
    declared = load_source(WIDE_SOURCE).target.columns
    assert len(declared) == 10
    assert set(declared) < set(rows[0])


def get(url: str) -> tuple[Any, dict[str, str]]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer), dict(answer.headers)


def test_the_server_answers_where_datasette_does(tmp_path: Path) -> None:
    pages = ensure_pages(tmp_path, a_dataset(tmp_path), PageSet(name="few", page_rows=7), quiet())
    with serve_pages(pages) as server:
        path = f"{server.base_url}/nycflights13"
        total, _ = get(f"{path}/flights_count.json?_shape=objects")
        assert total["rows"][0]["total"] == server.rows == FLIGHTS
        page, headers = get(f"{path}/flights_page.json?_shape=objects&offset=7&limit=7")
        assert page["rows"] == rows_in(pages.folder, 7)[7:14]
        assert headers["Content-Type"] == "application/json"
        # Nothing by which a page could be asked for conditionally.
        assert not {"etag", "last-modified"} & {name.lower() for name in headers}
        last, _ = get(f"{path}/flights_page.json?_shape=objects&offset=21&limit=2")
        assert last["rows"] == rows_in(pages.folder, 7)[21:]
        behind, _ = get(f"{path}/flights_page.json?_shape=objects&offset=70&limit=7")
        assert behind["rows"] == []
        with pytest.raises(urllib.error.HTTPError):
            get(f"{server.base_url}/stamp")
    with pytest.raises(urllib.error.URLError):
        get(f"{path}/flights_count.json")


def sample(seconds: float) -> dict[str, float]:
    return {"seconds": seconds}


def of(seconds: dict[str, float]) -> dict[str, list[dict[str, float]]]:
    """Samples whose median is as given, and whose fastest is a tenth faster."""
    return {name: [sample(0.9 * found), sample(found), sample(3 * found)] for name, found in seconds.items()}


def test_the_engine_is_held_to_what_is_promised_of_it() -> None:
    samples = of({OURS: 10, BARE: 12.1, TYPED: 8})
    rows = engine_static.against_bare_rows(samples, 10, 1_000, 5)
    assert [(row.ours, row.ratio, row.holds) for row in rows] == [
        (100, pytest.approx(1.21), True),
        (100, pytest.approx(0.8), None),
    ]
    slower = engine_static.against_bare_rows(of({OURS: 10, BARE: 9.5, BEFORE: 20}), 1, 1_000, 5)
    assert [(row.ratio, row.holds) for row in slower] == [(0.95, True), (2.0, None)]
    assert engine_static.against_bare_rows(of({OURS: 10, BARE: 11}), 10, 1, 5)[0].holds is False
    assert [row.holds for row in engine_static.wide_rows(of({OURS: 1, PARSED: 1.5, BEFORE: 0.9}), 1, 5)] == [
        True,
        False,
    ]


@pytest.mark.parametrize(("ten_times_s", "holds"), [(10.5, True), (10.6, False)])
def test_ten_times_the_rows_take_ten_times_as_long(ten_times_s: float, *, holds: bool) -> None:
    assert engine_static.growth_row("engine", 1.0, ten_times_s, 5).holds is holds


@pytest.mark.parametrize(("ours", "percent", "holds"), [(1.02, 2, True), (1.04, 4, False), (0.98, 0, True)])
def test_what_fingerprints_cost_is_the_difference_of_the_fastest_runs(
    ours: float, percent: float, *, holds: bool
) -> None:
    row = engine_static.fingerprint_row(of({OURS: ours, ALLOWED: 1.0}), "pages of 10 rows", 9)
    assert row.ours == pytest.approx(percent)
    assert row.holds is holds


def test_the_whole_path_is_held_to_what_is_promised_of_it() -> None:
    samples = of({"collect-ops": 10, **dict.fromkeys(collect_static.TARGETS, 20)})
    ten_times = {row.claim.rsplit("than ", 1)[1]: row for row in collect_static.speed_rows(samples, 10, 5)}
    assert ten_times[collect_static.ARROW].holds is True
    assert ten_times[collect_static.TUNED].holds is False
    assert ten_times["bare script"].holds is None
    once = {row.claim.rsplit("than ", 1)[1]: row for row in collect_static.speed_rows(samples, 1, 5)}
    assert once[collect_static.ARROW].holds is None
