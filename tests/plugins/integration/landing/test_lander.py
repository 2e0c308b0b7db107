"""Landing pages into real tables."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import pytest

from collect_ops.landing import (
    Landed,
    Lander,
    LandingCollision,
    LandingPage,
    LandingRefused,
    Origin,
    OutsideTransaction,
    ensure_aside,
    ensure_target,
)
from collect_ops.sources.model import Column, Disposition, Source, Target
from collect_ops.storage import AsyncConnection, Connection, connect_async
from tests.plugins.standstill import turns

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
NewTask = Callable[[], int]


def a_source(
    columns: dict[str, str | Column] | None = None,
    *,
    key: tuple[str, ...] = (),
    disposition: Disposition = Disposition.APPEND,
) -> Source:
    declared = {
        name: Column(type=column) if isinstance(column, str) else column
        for name, column in (columns or {}).items()
    }
    target = Target(table="things", columns=declared, key=key, disposition=disposition)
    return Source(name="things", connection="api", target=target)


def merging(columns: dict[str, str | Column], key: tuple[str, ...] = ("id",)) -> Source:
    return a_source(columns, key=key, disposition=Disposition.MERGE)


def a_page(records: Sequence[Any], *, minute: int = 0, page: int = 0, plain: bool = False) -> LandingPage:
    fetched_at = NOON + timedelta(minutes=minute)
    return LandingPage(records=records, fetched_at=fetched_at, page=page, plain=plain)


async def land(
    writer: AsyncConnection, lander: Lander, page: LandingPage, task: int, *, shard: int = 0, **origin: Any
) -> Landed:
    async with writer.transaction():
        return await lander.land(writer, page, Origin(task_id=task, shard_no=shard, **origin))


def rows(db: Connection, columns: str = "*", order: str = "1") -> list[dict[str, Any]]:
    return db.execute(f"SELECT {columns} FROM landing.things ORDER BY {order}").fetchall()


def bad_rows(db: Connection, task: int) -> list[dict[str, Any]]:
    return db.execute(
        "SELECT shard_no, page, ordinal, reason, row_text FROM collect.bad_row "
        "WHERE task_id = %s ORDER BY ordinal",
        (task,),
    ).fetchall()


async def test_values_arrive_as_declared(db: Connection, writer: AsyncConnection, new_task: NewTask) -> None:
    source = a_source(
        {
            "an_int": "int",
            "a_text": "text",
            "a_number": "numeric",
            "a_float": "double precision",
            "a_flag": "boolean",
            "a_time": "timestamptz",
            "a_doc": "jsonb",
            "deep": Column(type="int", path="outer.inner[0]"),
        }
    )
    ensure_target(db, source.target)
    record = {
        "an_int": -5,
        "a_text": 'tab\t, quote ", backslash \\, line\nfeed, \\. \x01 and null ],["',
        "a_number": 123456789012345678901234567890,
        "a_float": 0.1,
        "a_flag": True,
        "a_time": "2013-01-01T05:00:00Z",
        "a_doc": "null",
        "outer": {"inner": [7]},
        "undeclared": [1, {"x": None}],
    }
    task = new_task()
    landed = await land(writer, Lander(source), a_page([record, {"an_int": 0, "a_text": "null"}]), task)
    assert landed == Landed(rows_landed=2, bad_rows=0, rows_written=2)
    declared = {name: record[name] for name in list(record)[:7]}
    extra = '{"outer":{"inner":[7]},"undeclared":[1,{"x":null}]}'
    values = [*(record[name] for name in list(record)[:6]), '"null"', 7, extra]
    line = json.dumps(values, separators=(",", ":"), ensure_ascii=False)[1:-1].encode()
    first, second = rows(db)
    assert first == {
        **declared,
        "a_number": Decimal(123456789012345678901234567890),
        "a_time": datetime(2013, 1, 1, 5, tzinfo=UTC),
        "deep": 7,
        "_extra": {"outer": {"inner": [7]}, "undeclared": [1, {"x": None}]},
        "_task_id": task,
        "_shard": 0,
        "_fetched_at": NOON,
        "_content_hash": blake2b(line, digest_size=16).digest(),
    }
    assert (second["a_text"], second["a_doc"], second["deep"], second["_extra"]) == ("null", None, None, None)


@pytest.mark.parametrize("plain", [True, False])
async def test_nested_and_odd_values_become_json_text(
    db: Connection, writer: AsyncConnection, new_task: NewTask, plain: bool
) -> None:
    source = a_source({"id": "int", "value": "text"})
    ensure_target(db, source.target)
    values = [[1, 2], {"a": "],["}, True, 1.5, 10**25, "],[", "{", "[", "", None]
    await land(
        writer,
        Lander(source),
        a_page([{"id": i, "value": value} for i, value in enumerate(values)], plain=plain),
        new_task(),
    )
    assert [row["value"] for row in rows(db)] == [
        "[1,2]", '{"a":"],["}', "true", "1.5", str(10**25), "],[", "{", "[", "", None,
    ]  # fmt: skip


async def test_the_hash_does_not_depend_on_the_order_of_fields(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    source = a_source({"a": "int", "b": "int"})
    ensure_target(db, source.target)
    await land(writer, Lander(source), a_page([{"a": 1, "b": 2}, {"b": 2, "a": 1}]), new_task())
    assert len({row["_content_hash"] for row in rows(db)}) == 1


async def test_documents_land_whole(db: Connection, writer: AsyncConnection, new_task: NewTask) -> None:
    source = a_source()
    ensure_target(db, source.target)
    records = [{"a": 'x"\\\n\x01\x02', "b": [1, 2.5]}, [1], "text", None, 3, 10**30]
    task = new_task()
    landed = await land(writer, Lander(source), a_page([*records, {"a": "\0"}, "\ud800"]), task)
    assert landed == Landed(rows_landed=6, bad_rows=2, rows_written=6)
    found = db.execute("SELECT document::text AS text FROM landing.things ORDER BY ctid").fetchall()
    assert [json.loads(row["text"]) for row in found] == records
    assert [row["row_text"] for row in bad_rows(db, task)] == ['{"a":"\\u0000"}', '"\\ud800"']


async def test_documents_merge_by_their_fields(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    source = merging({}, key=("region", "id"))
    ensure_target(db, source.target)
    lander, task = Lander(source), new_task()
    await land(writer, lander, a_page([{"region": "a", "id": 1, "v": 1}, {"region": "a", "id": "1"}]), task)
    landed = await land(
        writer, lander, a_page([{"region": "a", "id": 1.0, "v": 2}, {"id": 3}, 4], minute=1), task
    )
    assert landed == Landed(rows_landed=1, bad_rows=2, rows_written=1, rows_repeated=1)
    assert [row["document"].get("v") for row in rows(db, "document", "_key")] == [None, 2]
    assert [row["reason"] for row in bad_rows(db, task)] == [
        "key field region is missing or null",
        "the record is a number, not an object with fields",
    ]


@pytest.mark.parametrize("disposition", list(Disposition))
async def test_what_does_not_fit_is_kept_with_its_reason(
    db: Connection, writer: AsyncConnection, new_task: NewTask, disposition: Disposition
) -> None:
    columns: dict[str, str | Column] = {
        "id": "integer", "code": "varchar(3)", "at": "date", "n": "numeric(4,2)", "d": "jsonb",
    }  # fmt: skip
    source = a_source(columns, key=("id",), disposition=disposition)
    task = new_task()
    ensure_target(db, source.target)
    ensure_aside(db, source.target, task)
    good = [{"id": 1, "code": "abc", "at": "2026-01-31", "n": 9.5, "d": {"x": 1}}, {"id": 2, "more": 1}]
    bad: list[Any] = [
        {"id": "seven"},
        {"id": 2**31},
        {"id": 4, "code": "four"},
        {"id": 5, "at": "2026-02-30"},
        {"id": 6, "n": 1000},
        {"id": 7, "code": "a\0"},
        {"id": 8, "code": "\ud800"},
        ["not", "an", "object"],
        {"id": 1.5, "secret": "x" * 10_000},
    ]
    landed = await land(writer, Lander(source), a_page([good[0], *bad, good[1]], page=3), task, shard=2)
    assert landed == Landed(rows_landed=2, bad_rows=9, rows_written=2)
    table = "landing_aside.things__" + str(task) if disposition is Disposition.REPLACE else "landing.things"
    found = db.execute(f"SELECT id, code, d, _extra FROM {table} ORDER BY id").fetchall()
    assert found == [
        {"id": 1, "code": "abc", "d": {"x": 1}, "_extra": None},
        {"id": 2, "code": None, "d": None, "_extra": {"more": 1}},
    ]
    kept = bad_rows(db, task)
    assert [(row["shard_no"], row["page"], row["ordinal"]) for row in kept] == [
        (2, 3, n) for n in range(1, 10)
    ]
    reasons = [row["reason"] for row in kept]
    assert reasons[0] == ('id: "seven" does not fit integer (invalid input syntax for type integer: "seven")')
    assert reasons[1].startswith("id: 2147483648 does not fit integer (value")
    assert reasons[2].startswith('code: "four" does not fit varchar(3) (value too long')
    assert reasons[3].startswith('at: "2026-02-30" does not fit date (date/time field value out of range')
    assert reasons[4] == "n: 1000 does not fit numeric(4,2) (numeric field overflow)"
    assert "NUL" in reasons[5]
    assert "lone surrogate (\\ud800)" in reasons[6]
    assert reasons[7] == "the record is an array, not an object with fields"
    assert kept[5]["row_text"] == '{"id":7,"code":"a\\u0000"}'
    assert len(kept[8]["row_text"]) < 9000


async def test_half_a_page_bad_takes_a_few_seconds_at_most(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    source = merging({"id": "integer", **{f"c{n}": "integer" for n in range(18)}})
    ensure_target(db, source.target)
    filler = {f"c{n}": n for n in range(18)}
    records = [{"id": i, **filler, "c17": "x" if i % 2 else 17} for i in range(5000)]
    started = time.monotonic()
    landed = await land(writer, Lander(source), a_page(records, plain=True), new_task())
    assert landed == Landed(rows_landed=2500, bad_rows=2500, rows_written=2500)
    assert time.monotonic() - started < 5


async def test_a_shard_that_runs_again_replaces_its_own_rows_only(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    source = a_source({"id": "int"})
    ensure_target(db, source.target)
    lander, task, other = Lander(source), new_task(), new_task()
    await land(writer, lander, a_page([{"id": 1}, {"id": "x"}]), task, first_page=True, fresh=True)
    await land(writer, lander, a_page([{"id": 2}]), task, shard=1, first_page=True, fresh=True)
    await land(writer, lander, a_page([{"id": 3}]), other, first_page=True, fresh=True)
    await land(writer, lander, a_page([{"id": 10}]), task, first_page=True)
    await land(writer, lander, a_page([{"id": 11}], page=1), task)
    assert [row["id"] for row in rows(db)] == [2, 3, 10, 11]
    assert bad_rows(db, task) == []
    landed = await land(writer, lander, a_page([]), task, first_page=True)
    assert landed == Landed(rows_landed=0, bad_rows=0, rows_written=0)
    assert [row["id"] for row in rows(db)] == [2, 3]


async def test_the_last_of_a_pages_equal_keys_stands(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    source = merging({"id": "int", "v": "text"})
    ensure_target(db, source.target)
    # "2" and 2 are one key to PostgreSQL and two to Python.
    records = [{"id": 2, "v": "a"}, {"id": 1, "v": "b"}, {"id": "2", "v": "c"}, {"id": 1, "v": "d"}]
    landed = await land(writer, Lander(source), a_page(records), new_task())
    assert landed == Landed(rows_landed=4, bad_rows=0, rows_written=2, rows_repeated=2)
    assert [(row["id"], row["v"]) for row in rows(db)] == [(1, "d"), (2, "c")]


async def test_a_later_fetch_is_never_replaced_by_an_earlier_one(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    source = merging({"id": "int", "v": "text"})
    ensure_target(db, source.target)
    lander, task = Lander(source), new_task()
    await land(writer, lander, a_page([{"id": 1, "v": "first"}], minute=0), task)
    again = await land(writer, lander, a_page([{"id": 1, "v": "first"}], minute=9), task, shard=1)
    late = await land(writer, lander, a_page([{"id": 1, "v": "second"}, {"id": 2}], minute=5), task)
    assert (again.rows_written, late.rows_written, late.rows_landed) == (1, 1, 2)
    assert [(row["v"], row["_shard"], row["_fetched_at"]) for row in rows(db)] == [
        ("first", 1, NOON + timedelta(minutes=9)),
        (None, 0, NOON + timedelta(minutes=5)),
    ]


async def test_pages_with_the_same_keys_in_opposite_orders_do_not_deadlock(
    db: Connection, writer: AsyncConnection, landing_dsn: str, new_task: NewTask
) -> None:
    source = merging({"id": "int", "v": "text"})
    ensure_target(db, source.target)
    task = new_task()
    forward = [{"id": i, "v": "x" * 50} for i in range(3000)]

    async def collide(connection: AsyncConnection, records: list[dict[str, Any]], shard: int) -> int:
        lander = Lander(source)
        landed = [
            await land(connection, lander, a_page(records, minute=minute), task, shard=shard)
            for minute in range(5)
        ]
        return sum(each.rows_repeated for each in landed)

    second = await connect_async(landing_dsn)
    try:
        repeated = await asyncio.gather(collide(writer, forward, 0), collide(second, forward[::-1], 1))
    finally:
        await second.close()
    assert [row["id"] for row in rows(db)] == list(range(3000))
    assert sum(repeated) == 2 * 5 * 3000 - 3000, "exact, although both land the same keys at the same time"


async def test_transactions_that_wait_for_each_others_pages_end_with_one_to_repeat(
    db: Connection, writer: AsyncConnection, landing_dsn: str, new_task: NewTask
) -> None:
    source = merging({"id": "int"})
    ensure_target(db, source.target)
    task = new_task()
    first_pages_landed = asyncio.Barrier(2)

    async def cross(connection: AsyncConnection, order: tuple[int, int], shard: int) -> None:
        lander, origin = Lander(source), Origin(task_id=task, shard_no=shard)
        async with connection.transaction():
            await lander.land(connection, a_page([{"id": order[0]}]), origin)
            await first_pages_landed.wait()
            await lander.land(connection, a_page([{"id": order[1]}]), origin)

    second = await connect_async(landing_dsn)
    try:
        ends = await asyncio.gather(
            cross(writer, (1, 2), 0), cross(second, (2, 1), 1), return_exceptions=True
        )
    finally:
        await second.close()
    assert sorted(map(type, ends), key=str) == sorted([LandingCollision, type(None)], key=str)
    assert [row["id"] for row in rows(db)] == [1, 2]


async def test_several_pages_in_one_transaction(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    source = merging({"id": "int", "v": "int"})
    ensure_target(db, source.target)
    lander, task = Lander(source), new_task()
    async with writer.transaction():
        for minute in range(3):
            records: list[Any] = [{"id": 0, "v": minute}, {"id": minute + 1, "v": minute}, {"id": "bad"}]
            page = a_page(records, minute=minute, page=minute)
            landed = await lander.land(writer, page, Origin(task_id=task, shard_no=0))
            assert landed == Landed(rows_landed=2, bad_rows=1, rows_written=2, rows_repeated=int(minute > 0))
    assert [(row["id"], row["v"]) for row in rows(db)] == [(0, 2), (1, 0), (2, 1), (3, 2)]


async def test_nothing_is_left_of_a_transaction_that_rolls_back(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    source = merging({"id": "int"})
    ensure_target(db, source.target)
    lander, task = Lander(source), new_task()
    page = a_page([{"id": 1}, {"id": 1}, {"id": "bad"}])
    async with writer.transaction(force_rollback=True):
        await lander.land(writer, page, Origin(task_id=task, shard_no=0))
    assert rows(db) == []
    assert bad_rows(db, task) == []
    assert (await land(writer, lander, page, task)).rows_written == 1


async def test_landing_needs_the_callers_transaction(writer: AsyncConnection) -> None:
    with pytest.raises(OutsideTransaction):
        await Lander(a_source()).land(writer, a_page([1]), Origin(task_id=1, shard_no=0))


@pytest.mark.parametrize("disposition", [Disposition.APPEND, Disposition.MERGE])
async def test_a_constraint_of_somebody_else_is_named(
    db: Connection, writer: AsyncConnection, new_task: NewTask, disposition: Disposition
) -> None:
    source = a_source({"id": "int"}, key=("id",), disposition=disposition)
    ensure_target(db, source.target)
    db.execute("ALTER TABLE landing.things ADD CONSTRAINT only_small CHECK (id < 10)")
    with pytest.raises(LandingRefused, match="only_small"):
        await land(writer, Lander(source), a_page([{"id": 11}]), new_task())


async def test_a_path_that_fails_makes_a_bad_row(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    source = a_source({"id": "int", "size": Column(type="int", path="length(items)")})
    ensure_target(db, source.target)
    task = new_task()
    await land(writer, Lander(source), a_page([{"id": 1, "items": [1, 2]}, {"id": 2}], plain=True), task)
    assert [(row["id"], row["size"]) for row in rows(db)] == [(1, 2)]
    assert "length(items)" in bad_rows(db, task)[0]["reason"]


@pytest.mark.parametrize("fits", [True, False])
async def test_paths_that_take_long_leave_the_event_loop_free(
    db: Connection, writer: AsyncConnection, new_task: NewTask, *, fits: bool
) -> None:
    """Also where the page is cast row by row; leases are renewed meanwhile."""
    path = "sort_by(items, &n)[*].n | [?@ > `0`] | length(@)"
    source = a_source({"id": "int", "most": Column(type="int", path=path)})
    ensure_target(db, source.target)
    items = [{"n": number % 97} for number in range(200)]
    records: list[dict[str, Any]] = [{"id": number, "items": items} for number in range(600)]
    if not fits:
        records[-1] = {"id": "none", "items": items}
    page = replace(a_page(records), size_bytes=len(json.dumps(records)))
    async with turns() as loop:
        landed = await land(writer, Lander(source), page, new_task())
    assert (landed.rows_landed, landed.bad_rows) == ((600, 0) if fits else (599, 1))
    assert loop.total_s > 0.3, "the page is too light to show anything"
    assert loop.longest_s < loop.total_s / 3
