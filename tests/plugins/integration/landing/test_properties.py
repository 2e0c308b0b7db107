"""What holds for any record and any order."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collect_ops.kernel.json_text import json_bytes
from collect_ops.landing import Landed, Lander, LandingPage, Origin, ensure_target
from collect_ops.sources.model import Column, Disposition, Source, Target
from collect_ops.storage import Connection, Jsonb, connect_async
from tests.examples import examples

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
COLUMNS = {
    "a_text": "text",
    "a_doc": "jsonb",
    "a_number": "numeric",
    "a_float": "double precision",
    "n": "int",
}

# NUL and surrogates make bad rows; other tests are about them.
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12
) | st.sampled_from(
    [
        "null",
        "\\.",
        '],["',
        "\\",
        '"',
        '\\"',
        "\\n",
        "\\u0041",
        "\r\n",
        "\x01\x02\x03",
        ",",
        "{",
        "[",
        "\\\\n",
    ]
)
numbers = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | texts | numbers
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
records = st.fixed_dictionaries(
    {"n": st.integers(-(2**31), 2**31 - 1)},
    optional={"a_text": values, "a_doc": values, "a_number": numbers, "a_float": numbers, "beside": values},
)


def as_stored(value: Any) -> str | None:
    """What a text column shows of a value."""
    if value is None or isinstance(value, str):
        return value
    return json_bytes(value).decode()


def in_a_jsonb(value: Any) -> Jsonb | None:
    return None if value is None else Jsonb(value, dumps=lambda v: json.dumps(v, ensure_ascii=False))


@settings(
    max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(page=st.lists(records, min_size=1, max_size=6), exact=st.booleans())
def test_any_record_is_stored_as_an_insert_with_parameters_would(
    db: Connection, landing_dsn: str, page: list[dict[str, Any]], exact: bool
) -> None:
    if exact:  # all declared fields and no others: the page takes the fast way
        page = [{name: record.get(name) for name in COLUMNS} for record in page]
    columns = {name: Column(type=declared) for name, declared in COLUMNS.items()}
    source = Source(name="any", connection="api", target=Target(table="any_record", columns=columns))
    ensure_target(db, source.target)

    async def land() -> Landed:
        connection = await connect_async(landing_dsn)
        async with connection, connection.transaction():
            body = LandingPage(records=page, fetched_at=NOON, page=0)
            return await Lander(source).land(connection, body, Origin(task_id=1, shard_no=0))

    db.execute("TRUNCATE landing.any_record")
    assert asyncio.run(land()) == Landed(rows_landed=len(page), bad_rows=0, rows_written=len(page))
    db.execute(
        "CREATE TEMPORARY TABLE IF NOT EXISTS expected "
        "(a_text text, a_doc jsonb, a_number numeric, a_float float8, n int, _extra jsonb)"
    )
    db.execute("TRUNCATE expected")
    for record in page:
        extra = {name: value for name, value in record.items() if name not in COLUMNS}
        db.execute(
            "INSERT INTO expected (a_text, a_doc, a_number, a_float, n, _extra) "
            "VALUES (%s, %s, %s::text::numeric, %s::text::float8, %s, %s)",
            (
                as_stored(record.get("a_text")),
                in_a_jsonb(record.get("a_doc")),
                as_stored(record.get("a_number")),
                as_stored(record.get("a_float")),
                record["n"],
                in_a_jsonb(extra or None),
            ),
        )
    names = "a_text, a_doc::text, a_number::text, a_float::text, n, _extra::text"
    order = "ORDER BY n, a_text, a_doc, a_number, a_float, _extra"
    stored = db.execute(f"SELECT {names} FROM landing.any_record {order}").fetchall()
    assert stored == db.execute(f"SELECT {names} FROM expected {order}").fetchall()


@settings(
    max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    pages=st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=6),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 1000),
)
async def test_pages_merge_to_the_same_rows_in_any_order(
    db: Connection, landing_dsn: str, pages: list[list[tuple[int, int]]], seed: int
) -> None:
    columns = {"id": Column(type="int"), "v": Column(type="int")}
    target = Target(table="any_order", columns=columns, key=("id",), disposition=Disposition.MERGE)
    source = Source(name="any", connection="api", target=target)
    ensure_target(db, target)
    db.execute("TRUNCATE landing.any_order")
    expected = {key: (value, minute) for minute, page in enumerate(pages) for key, value in page}
    order = random.Random(seed).sample(range(len(pages)), len(pages))
    connection = await connect_async(landing_dsn)
    async with connection:
        landers = [Lander(source), Lander(source)]
        for turn, minute in enumerate(order):
            page = LandingPage(
                records=[{"id": key, "v": value} for key, value in pages[minute]],
                fetched_at=NOON + timedelta(minutes=minute),
                page=minute,
            )
            async with connection.transaction():
                await landers[turn % 2].land(connection, page, Origin(task_id=1, shard_no=minute))
    stored = db.execute("SELECT id, v, _fetched_at, _shard FROM landing.any_order").fetchall()
    assert {row["id"]: (row["v"], row["_shard"]) for row in stored} == expected
    assert all(row["_fetched_at"] == NOON + timedelta(minutes=row["_shard"]) for row in stored)
