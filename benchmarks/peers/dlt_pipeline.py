"""The peer that people would take from a package index: dlt, with what its documentation says makes it fast.

From https://dlthub.com/docs/reference/performance and .../destinations/postgres: pages are yielded, not rows;
fetching runs in parallel threads (`parallelized`); columns are declared, so that nothing is inferred; normalising
runs in as many processes as there are processors; files are cut so that both processes and all load threads have
work; COPY from CSV instead of INSERT; orjson is dlt's JSON reader when it is installed. With `--arrow` pages are
handed over as Arrow tables, which dlt passes on without looking at rows.

Prints `{"rows": …, "seconds": …, "stages": {…}}`; seconds run from the pipeline's start to its end. Interpreter
and imports, several seconds more, are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Final

PAGE_PATH: Final = "/nycflights13/flights_page.json?_shape=objects"
TEXT: Final = ("carrier", "tailnum", "origin", "dest")
INTEGERS: Final = (
    "year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay",
    "flight", "air_time", "distance", "hour", "minute",
)  # fmt: skip
KEY: Final = ("time_hour", "carrier", "flight")


def configure(dsn: str, *, folder: str) -> None:
    """Where to write, and nothing else. dlt reads its settings from the environment."""
    os.environ.update(
        {
            "DESTINATION__POSTGRES__CREDENTIALS": dsn,
            "RUNTIME__LOG_LEVEL": "ERROR",
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "DLT_DATA_DIR": folder,
        }
    )


def tune(*, workers: int, file_rows: int) -> None:
    """What its documentation recommends for speed, each setting under the name it gives it."""
    os.environ.update(
        {
            "EXTRACT__WORKERS": "4",
            "NORMALIZE__WORKERS": str(workers),
            "LOAD__WORKERS": "4",
            # Files rotate, otherwise one file is one unit of work for one worker.
            "NORMALIZE__DATA_WRITER__FILE_MAX_ITEMS": str(file_rows),
            "SOURCES__DATA_WRITER__FILE_MAX_ITEMS": str(file_rows),
            "DATA_WRITER__BUFFER_MAX_ITEMS": "10000",
            "DATA_WRITER__DISABLE_COMPRESSION": "true",
        }
    )


def columns() -> dict[str, Any]:
    """The declaration of the 19 columns."""
    declared: dict[str, Any] = {name: {"data_type": "bigint"} for name in INTEGERS}
    declared |= {name: {"data_type": "text"} for name in TEXT}
    return declared | {"time_hour": {"data_type": "timestamp"}}


def to_arrow(rows: list[dict[str, Any]]) -> Any:
    """A page as an Arrow table, its time parsed."""
    import pyarrow as pa  # type: ignore[import-not-found, unused-ignore]

    table = pa.Table.from_pylist(rows)
    at = table.schema.get_field_index("time_hour")
    times = table.column(at).cast(pa.timestamp("us", tz="UTC"))
    return table.set_column(at, "time_hour", times)


def build_source(base_url: str, *, rows: int, page: int, disposition: str, arrow: bool) -> Any:
    """Offsets from one resource, pages fetched from them by a parallel transformer."""
    import dlt  # type: ignore[import-not-found, unused-ignore]
    import orjson
    from dlt.sources.helpers import requests  # type: ignore[import-not-found, unused-ignore]

    session = requests.Client().session

    @dlt.resource  # type: ignore[untyped-decorator, unused-ignore]
    def offsets() -> Iterator[int]:
        yield from range(0, rows, page)

    primary_key: Any = KEY if disposition == "merge" else None

    @dlt.transformer(  # type: ignore[untyped-decorator, unused-ignore]
        name=f"flights_{disposition}",
        write_disposition=disposition,
        primary_key=primary_key,
        columns=columns(),
        parallelized=True,
    )
    def flights(offset: int) -> Any:
        answer = session.get(f"{base_url}{PAGE_PATH}&offset={offset}&limit={page}")
        answer.raise_for_status()
        found = orjson.loads(answer.content)["rows"]
        return to_arrow(found) if arrow else found

    return offsets | flights


def build_declared_source(base_url: str, *, page: int) -> Any:
    """What dlt's own tutorial leads to: its REST source, declared, nothing set."""
    from dlt.sources.rest_api import rest_api_resources  # type: ignore[import-not-found, unused-ignore]

    (flights,) = rest_api_resources(
        {
            "client": {"base_url": base_url},
            "resources": [
                {
                    "name": "flights_append",
                    "endpoint": {
                        "path": "/nycflights13/flights_page.json",
                        "params": {"_shape": "objects"},
                        "data_selector": "rows",
                        "paginator": {
                            "type": "offset",
                            "limit": page,
                            "offset_param": "offset",
                            "limit_param": "limit",
                            "total_path": None,
                        },
                    },
                }
            ],
        }
    )
    return flights


def main() -> None:
    """Read the command line, run the pipeline, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--dataset", default="bench_dlt")
    parser.add_argument("--disposition", choices=("append", "merge"), default="append")
    parser.add_argument("--page", type=int, default=5_000)
    parser.add_argument("--arrow", action="store_true")
    parser.add_argument("--as-installed", action="store_true", help="dlt's REST source with nothing set")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--file-rows", type=int, default=50_000)
    parser.add_argument("--file-format", default="csv")
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="bench-dlt-")
    try:
        print(json.dumps(run(arguments, folder)))
    finally:
        shutil.rmtree(folder)


def run(arguments: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Run the pipeline on an empty dataset."""
    tuned = not arguments.as_installed
    configure(arguments.dsn, folder=folder)
    if tuned:
        tune(workers=arguments.workers, file_rows=arguments.file_rows)
    import dlt

    pipeline = dlt.pipeline(
        "bench",
        destination="postgres",
        dataset_name=f"{arguments.dataset}_{arguments.disposition}",
        pipelines_dir=folder,
    )
    with pipeline.sql_client() as client:
        if client.has_dataset():
            client.drop_dataset()
    source = (
        build_source(
            arguments.base_url,
            rows=arguments.rows,
            page=arguments.page,
            disposition=arguments.disposition,
            arrow=arguments.arrow,
        )
        if tuned
        else build_declared_source(arguments.base_url, page=arguments.page)
    )
    started = time.perf_counter()
    pipeline.extract(source, loader_file_format=arguments.file_format if tuned else None)
    extracted = time.perf_counter()
    pipeline.normalize()
    normalised = time.perf_counter()
    pipeline.load()
    ended = time.perf_counter()
    with pipeline.sql_client() as client:
        landed = client.execute_sql(f"select count(*) from flights_{arguments.disposition}")
    return {
        "rows": landed[0][0] if landed else 0,
        "seconds": ended - started,
        "stages": {
            "extract": extracted - started,
            "normalize": normalised - extracted,
            "load": ended - normalised,
        },
    }


if __name__ == "__main__":
    main()
