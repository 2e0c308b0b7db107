"""The peer that has nothing but the work: asyncio, aiohttp, orjson and COPY, in one script.

It lands the same 19 typed columns and the same content hash (BLAKE2b, 16 bytes, over the row's canonical JSON)
into a table with the same primary key, by the same kind of upsert, so that running it twice gives the same
table. It checks nothing, retries nothing, resumes nothing and tells nobody how far it is.

What makes it fast, each measured: JSON arrays of plain values are valid CSV, so a row goes from orjson to COPY
without a Python loop over its values; a page is copied straight into the table, and only when one of its keys is
there already into a staging table, to be merged in key order (1.4 s of PostgreSQL's time instead of 2.6); several
pages are in flight, so that the server, this process and PostgreSQL work at the same time.

Prints `{"rows": …, "seconds": …}`; seconds run from the first request to the last commit.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import time
from binascii import hexlify
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, Final, TypeAlias

import aiohttp
import orjson
import psycopg

COLUMNS: Final[dict[str, str]] = {
    "year": "smallint not null",
    "month": "smallint not null",
    "day": "smallint not null",
    "dep_time": "smallint",
    "sched_dep_time": "smallint",
    "dep_delay": "smallint",
    "arr_time": "smallint",
    "sched_arr_time": "smallint",
    "arr_delay": "smallint",
    "carrier": "text not null",
    "flight": "integer not null",
    "tailnum": "text",
    "origin": "text",
    "dest": "text",
    "air_time": "smallint",
    "distance": "integer",
    "hour": "smallint",
    "minute": "smallint",
    "time_hour": "timestamptz not null",
    "content_hash": "bytea not null",
}
KEY: Final = ("time_hour", "carrier", "flight")
NAMES: Final = ", ".join(COLUMNS)
DEFINITIONS: Final = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
CHANGED: Final = [name for name in COLUMNS if name not in KEY]

MERGE: Final = f"""
    insert into {{table}} as landed ({NAMES})
    select {NAMES} from staging order by {", ".join(KEY)}
    on conflict ({", ".join(KEY)}) do update
    set {", ".join(f"{name} = excluded.{name}" for name in CHANGED)}
    where landed.content_hash is distinct from excluded.content_hash
"""
COPY: Final = f"copy {{table}} ({NAMES}) from stdin (format csv, null 'null', escape '\\')"


#: Makes lines of a page's body, and says how many.
ReadPage: TypeAlias = Callable[[bytes], tuple[bytes, int]]


def read_records(body: bytes) -> tuple[bytes, int]:
    """A page by way of dicts."""
    rows = orjson.loads(body)["rows"]
    return encode(rows), len(rows)


def typed_reader() -> ReadPage:
    """What reads a page by way of structs."""
    import msgspec

    kinds = {"smallint": int, "integer": int, "text": str, "timestamptz": str}
    fields: list[Any] = [("mark", str, "")]
    for name, definition in COLUMNS.items():
        kind, *not_null = definition.split(" ", 1)
        if name != "content_hash":
            fields.append((name, kinds[kind] if not_null else kinds[kind] | None, None))
    row = msgspec.defstruct("Row", fields, gc=False)
    page = msgspec.defstruct("Page", [("rows", list[row])])  # type: ignore[valid-type]
    decode, write, rows_of = msgspec.json.Decoder(page).decode, msgspec.json.encode, attrgetter("rows")
    as_tuple, blake2b = msgspec.structs.astuple, hashlib.blake2b

    def read(body: bytes) -> tuple[bytes, int]:
        rows = rows_of(decode(body))
        # The first value of each row is an empty text: what stands between two rows is in no text, and splits them.
        lines = write([as_tuple(row) for row in rows])[len(b'[["",') : -2].split(b'],["",')
        text = b"".join(
            [b"%b,\\x%b\n" % (line, hexlify(blake2b(line, digest_size=16).digest())) for line in lines]
        )
        return text, len(rows)

    return read


def encode(rows: list[dict[str, Any]]) -> bytes:
    """The rows as CSV, content hash last: a JSON array without its brackets is a CSV line."""
    dumps, blake2b, sorted_keys = orjson.dumps, hashlib.blake2b, orjson.OPT_SORT_KEYS
    return b"".join(
        [
            b"%b,\\x%b\n"
            % (
                dumps([*row.values()])[1:-1],
                blake2b(dumps(row, option=sorted_keys), digest_size=16).hexdigest().encode(),
            )
            for row in rows
        ]
    )


async def collect(
    base_url: str, dsn: str, table: str, read: ReadPage, *, rows: int, page: int, concurrency: int
) -> int:
    """Fetch and land all pages; returns the number of rows sent to the table."""
    offsets = iter(range(0, rows, page))
    async with aiohttp.ClientSession(base_url) as session:
        workers = [land_pages(session, dsn, table, read, offsets, page) for _ in range(concurrency)]
        return sum(await asyncio.gather(*workers))


async def land_pages(
    session: aiohttp.ClientSession, dsn: str, table: str, read: ReadPage, offsets: Iterator[int], page: int
) -> int:
    """One of the workers: takes an offset, fetches its page, lands it, until there is none left."""
    path = "/nycflights13/flights_page.json?_shape=objects"
    landed = 0
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(f"create temporary table staging ({DEFINITIONS})")
        for offset in offsets:
            async with session.get(f"{path}&offset={offset}&limit={page}") as answer:
                answer.raise_for_status()
                lines, rows = read(await answer.read())
            await land_page(connection, table, lines)
            landed += rows
    return landed


async def land_page(connection: psycopg.AsyncConnection, table: str, lines: bytes) -> None:
    """One page, one transaction: a plain COPY when its keys are new, an upsert when one is not."""
    try:
        async with connection.cursor() as cursor, cursor.copy(COPY.format(table=table)) as copy:
            await copy.write(lines)
    except psycopg.errors.UniqueViolation:
        async with connection.transaction(), connection.cursor() as cursor:
            await cursor.execute("truncate staging")
            async with cursor.copy(COPY.format(table="staging")) as copy:
                await copy.write(lines)
            await cursor.execute(MERGE.format(table=table))


def prepare(dsn: str, table: str) -> None:
    """An empty target table."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"drop table if exists {table}")
        connection.execute(f"create table {table} ({DEFINITIONS}, primary key ({', '.join(KEY)}))")


def count(dsn: str, table: str) -> int:
    """How many rows the table has."""
    with psycopg.connect(dsn) as connection:
        (rows,) = connection.execute(f"select count(*) from {table}").fetchone() or (0,)
    return int(rows)


def main() -> None:
    """Read the command line, collect, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--table", default="bench_bare")
    parser.add_argument("--page", type=int, default=5_000)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--typed", action="store_true", help="read pages with msgspec, hash lines")
    arguments = parser.parse_args()
    read = typed_reader() if arguments.typed else read_records
    prepare(arguments.dsn, arguments.table)
    started, cpu = time.perf_counter(), time.process_time()
    sent = asyncio.run(
        collect(
            arguments.base_url,
            arguments.dsn,
            arguments.table,
            read,
            rows=arguments.rows,
            page=arguments.page,
            concurrency=arguments.concurrency,
        )
    )
    seconds = time.perf_counter() - started
    cpu_seconds = time.process_time() - cpu
    rows = count(arguments.dsn, arguments.table)
    print(json.dumps({"rows": rows, "sent": sent, "seconds": seconds, "cpu_seconds": cpu_seconds}))


if __name__ == "__main__":
    main()
