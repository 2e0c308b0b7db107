"""Values in the table are those that the source sent, or bad rows with their reason."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from collect_ops.collectors.json_body import parse
from collect_ops.landing import Lander, RecordsNotObjects, ensure_aside, ensure_target
from collect_ops.landing.lander import PlainTries
from collect_ops.landing.model import Landed
from collect_ops.landing.repeated import count_repeated
from collect_ops.sources.model import Column, Disposition, Target
from collect_ops.storage import AsyncConnection, Connection, connect_async
from tests.plugins.integration.landing.test_lander import (
    NewTask,
    a_page,
    a_source,
    bad_rows,
    land,
    merging,
    rows,
)


def sent(raw: str) -> Sequence[Any]:
    """The records of a body, as a collector gives them."""
    found: list[Any] = parse(raw.encode(), max_depth=64)
    return found


async def test_numbers_keep_every_digit(db: Connection, writer: AsyncConnection, new_task: NewTask) -> None:
    columns: dict[str, str | Column] = {
        "n": "numeric(38,18)", "m": "numeric", "t": "text", "j": "jsonb", "deep": Column(type="numeric", path="a.b[0]"),
    }  # fmt: skip
    source = a_source(columns)
    ensure_target(db, source.target)
    raw = """[{"n": 123456789.123456789123456789, "m": 9007199254740993.25, "t": 1.50, "j": {"x": [0.10]},
        "a": {"b": [0.12345678901234567890]}, "more": 1e-30, "big": 123456789012345678901234567890.5}]"""
    landed = await land(writer, Lander(source), a_page(sent(raw)), new_task())
    assert landed == Landed(rows_landed=1, bad_rows=0, rows_written=1)
    (found,) = rows(db, "n, m, t, j::text AS j, deep, _extra::text AS extra")
    assert found == {
        "n": Decimal("123456789.123456789123456789"),
        "m": Decimal("9007199254740993.25"),
        "t": "1.50",
        "j": '{"x": [0.10]}',
        "deep": Decimal("0.12345678901234567890"),
        "extra": '{"a": {"b": [0.12345678901234567890]}, "big": 123456789012345678901234567890.5, '
        '"more": 0.000000000000000000000000000001}',
    }


async def test_documents_keep_every_digit(db: Connection, writer: AsyncConnection, new_task: NewTask) -> None:
    source = a_source()
    ensure_target(db, source.target)
    await land(
        writer, Lander(source), a_page(sent('[{"b": 9007199254740993.25, "a": 1.50}, 1e400]')), new_task()
    )
    found = db.execute("SELECT document::text AS text FROM landing.things ORDER BY ctid").fetchall()
    assert [row["text"] for row in found] == ['{"a": 1.50, "b": 9007199254740993.25}', "1" + "0" * 400]


async def test_whole_numbers_in_other_spellings_land(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    source = a_source({"id": "bigint", "n": "smallint"})
    ensure_target(db, source.target)
    lander, task = Lander(source), new_task()
    for body in (
        '[{"id": 1.0, "n": 1}, {"id": 2e0, "n": 2}]',
        '[{"id": "3.0", "n": 3}]',
        '[{"id": "4.0", "n": 4}]',
    ):
        landed = await land(writer, lander, a_page(sent(body)), task)
        assert landed.bad_rows == 0
    await land(
        writer, lander, a_page(sent('[{"id": 5, "n": 5}, {"id": 1.5, "n": 0}, {"id": "6.5", "n": 0}]')), task
    )
    assert [(row["id"], row["n"]) for row in rows(db)] == [(number, number) for number in range(1, 6)]
    assert len(bad_rows(db, task)) == 2


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (
            Column(type="timestamptz", format="iso"),
            '"2024-01-02T03:04:05+02:00"',
            datetime(2024, 1, 2, 1, 4, 5, tzinfo=UTC),
        ),
        (
            Column(type="timestamptz", format="iso"),
            '"2024-01-02 03:04:05"',
            datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
        ),
        (
            Column(type="timestamptz", format="iso", timezone="Europe/Berlin"),
            '"2024-07-01T01:30:00"',
            datetime(2024, 6, 30, 23, 30, tzinfo=UTC),
        ),
        (
            Column(type="timestamp", format="iso", timezone="Asia/Tokyo"),
            '"1970-01-01T00:00:00Z"',
            datetime(1970, 1, 1, 9),
        ),
        (
            Column(type="timestamptz", format="epoch_s"),
            "1700000000",
            datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        ),
        (
            Column(type="timestamptz", format="epoch_s"),
            "1700000000.123456",
            datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC),
        ),
        (Column(type="date", format="%d/%m/%Y"), '"13/02/2024"', date(2024, 2, 13)),
        (Column(type="date", format="iso", null_if=("",)), '""', None),
        (Column(type="integer", null_if=("", "-")), '"-"', None),
        (Column(type="date"), '"01/02/2024"', date(2024, 1, 2)),  # as PostgreSQL reads it, which was declared
    ],
)
async def test_times_as_declared(
    db: Connection, writer: AsyncConnection, new_task: NewTask, column: Column, value: str, expected: Any
) -> None:
    source = a_source({"id": "integer", "at": column})
    ensure_target(db, source.target)
    task = new_task()
    await land(
        writer, Lander(source), a_page(sent(f'[{{"id": 1, "at": {value}}}, {{"id": 2, "at": null}}]')), task
    )
    assert bad_rows(db, task) == []
    assert [row["at"] for row in rows(db, "at", "id")] == [expected, None]


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
async def test_times_that_are_not_iso_8601_are_bad_rows(
    db: Connection, writer: AsyncConnection, new_task: NewTask, kind: str
) -> None:
    source = a_source({"id": "integer", "at": Column(type=kind, format="iso")})
    ensure_target(db, source.target)
    values = [
        '"01/02/2024"',
        '"13/02/2024"',
        '"today"',
        '"now"',
        '"infinity"',
        "1700000000",
        "1700000366",
        "20240102",
    ]
    if kind != "timestamptz":
        values.append('"2024-01-02T03:04:05Z"')
    body = ", ".join(f'{{"id": {number}, "at": {value}}}' for number, value in enumerate(values))
    task = new_task()
    page = a_page(sent(f'[{body}, {{"id": 99, "at": "2024-01-02"}}]'))
    landed = await land(writer, Lander(source), page, task)
    assert (landed.rows_landed, landed.bad_rows) == (1, len(values))
    assert [row["id"] for row in rows(db)] == [99]
    assert all(row["reason"].startswith("at: ") for row in bad_rows(db, task))


async def test_the_order_of_day_and_month_is_not_the_servers_to_say(
    db: Connection, writer: AsyncConnection, landing_dsn: str, new_task: NewTask
) -> None:
    name = db.execute("SELECT current_database() AS name").fetchone()
    assert name is not None
    db.execute(f"ALTER DATABASE \"{name['name']}\" SET DateStyle = 'ISO, DMY'")
    try:
        async with await connect_async(landing_dsn) as connection:
            found = await (await connection.execute("SELECT '01/02/2024'::date AS day")).fetchone()
        assert found == {"day": date(2024, 1, 2)}
    finally:
        db.execute(f'ALTER DATABASE "{name["name"]}" RESET DateStyle')


@pytest.mark.parametrize("refresh", [False, True])
async def test_a_key_that_is_too_long_is_one_bad_row(
    db: Connection, writer: AsyncConnection, new_task: NewTask, *, refresh: bool
) -> None:
    source = merging({"id": "text", "n": "integer"})
    ensure_target(db, source.target)
    lander, task = Lander(source), new_task()
    records: list[dict[str, Any]] = [{"id": f"k{number}", "n": number} for number in range(50)]
    if refresh:
        await land(writer, lander, a_page(records), task)
    letters = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=4000))
    landed = await land(writer, lander, a_page([*records, {"id": letters, "n": 1}], minute=1, page=1), task)
    assert (landed.rows_landed, landed.bad_rows) == (50, 1)
    assert len(rows(db)) == 50
    (bad,) = bad_rows(db, task)
    assert bad["ordinal"] == 50
    assert "index row" in bad["reason"]


async def test_a_row_that_does_not_fit_a_page_is_one_bad_row(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    names = [f"c{number}" for number in range(1200)]
    source = a_source({"id": "integer", **dict.fromkeys(names, "text")})
    ensure_target(db, source.target)
    task = new_task()
    # Texts of 20 letters are too short to be stored elsewhere, and there are too many of them.
    wide = {"id": 1} | dict.fromkeys(names, "x" * 20)
    landed = await land(writer, Lander(source), a_page([{"id": 0}, wide, {"id": 2, "c7": "x"}]), task)
    assert (landed.rows_landed, landed.bad_rows) == (2, 1)
    (bad,) = bad_rows(db, task)
    assert bad["ordinal"] == 1
    assert "row is too big" in bad["reason"]


@pytest.mark.parametrize("records", ['[[0, "r0"], [1, "r1"]]', '["a", "b"]', "[1, null]"])
async def test_records_that_are_no_objects_are_a_fault_of_the_declaration(
    db: Connection, writer: AsyncConnection, new_task: NewTask, records: str
) -> None:
    source = a_source({"id": "integer"})
    ensure_target(db, source.target)
    with pytest.raises(RecordsNotObjects, match="records"):
        await land(writer, Lander(source), a_page(sent(records)), new_task())
    landed = await land(writer, Lander(source), a_page(sent("[null]")), new_task())
    assert landed.bad_rows == 1
    assert (await land(writer, Lander(a_source()), a_page([]), new_task())).rows_landed == 0


async def test_a_number_beyond_every_double_is_no_null(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    source = a_source({"n": Column(type="numeric", path="sum(a)")})
    ensure_target(db, source.target)
    landed = await land(
        writer, Lander(source), a_page(sent('[{"a": [1e308, 1e308]}, {"a": [1.5]}]')), new_task()
    )
    assert (landed.rows_landed, landed.bad_rows) == (1, 1)


# --- rows that are fetched twice ---


async def test_equal_keys_of_a_task_are_counted_as_they_land(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    source = merging({"id": "int", "v": "text"})
    ensure_target(db, source.target)
    lander, task, other = Lander(source), new_task(), new_task()

    async def repeated(ids: Sequence[int], *, minute: int, of: int = task, **origin: Any) -> int:
        page = a_page([{"id": number} for number in ids], minute=minute)
        return (await land(writer, lander, page, of, **origin)).rows_repeated

    assert await repeated([1, 2, 3], minute=0, of=other) == 0
    assert await repeated([1, 2, 3, 4], minute=1) == 0  # another task's
    assert await repeated([4, 5, 5], minute=2, shard=1) == 2
    assert await repeated([1, 2], minute=3) == 2
    assert await repeated([6, 7], minute=3) == 0
    # Of an older fetch, which replaces nothing.
    assert await repeated([1, 9], minute=2) == 1
    # The shard starts over: what it has landed before is not fetched twice, what others have is.
    assert (
        await repeated(
            [6, 5], minute=5, first_page=True, landed_since=datetime(2026, 11, 24, 12, 5, tzinfo=UTC)
        )
        == 1
    )


@pytest.mark.parametrize("disposition", [Disposition.APPEND, Disposition.REPLACE])
@pytest.mark.parametrize("key", [(), ("id",)])
async def test_rows_without_a_primary_key_are_counted_at_the_end(
    db: Connection,
    writer: AsyncConnection,
    new_task: NewTask,
    monkeypatch: pytest.MonkeyPatch,
    disposition: Disposition,
    key: tuple[str, ...],
) -> None:
    source = a_source({"id": "int", "v": "text"}, key=key, disposition=disposition)
    task, other = new_task(), new_task()
    ensure_target(db, source.target)
    for each in (task, other):
        ensure_aside(db, source.target, each)
    lander = Lander(source)
    await land(writer, lander, a_page([{"id": 1, "v": "a"}]), other)
    await land(writer, lander, a_page([{"id": 1, "v": "a"}, {"id": 2, "v": "a"}]), task)
    await land(
        writer, lander, a_page([{"id": 1, "v": "a"}, {"id": 2, "v": "b"}, {"id": 1, "v": "a"}]), task, shard=1
    )
    assert count_repeated(db, source.target, task, rows_landed=5) == (3 if key else 2)
    assert count_repeated(db, source.target, other, rows_landed=1) == 0
    monkeypatch.setattr("collect_ops.landing.repeated.MAX_COUNTED_ROWS", 4)
    assert count_repeated(db, source.target, task, rows_landed=5) is None
    assert count_repeated(db, Target(table="not_there"), task, rows_landed=1) is None


# --- collisions ---


def test_a_collision_costs_its_page_and_only_a_run_of_them_is_staged() -> None:
    tries = PlainTries()

    def staged_until_the_next_try() -> int:
        tries.collided()
        staged = 1  # the page that collided
        while not tries.is_due():
            staged += 1
        return staged

    assert tries.is_due()
    assert [staged_until_the_next_try() for _ in range(9)] == [1, 2, 4, 8, 16, 32, 64, 64, 64]
    for _ in range(7):
        tries.succeeded()
        assert tries.is_due()
    assert staged_until_the_next_try() == 1


async def test_pages_after_a_collision_are_copied_straight_again(
    db: Connection, writer: AsyncConnection, new_task: NewTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = merging({"id": "int"})
    ensure_target(db, source.target)
    staged = []
    land_staged = Lander._land_staged

    async def recorded(self: Lander, *arguments: Any) -> Any:
        staged.append(1)
        return await land_staged(self, *arguments)

    monkeypatch.setattr(Lander, "_land_staged", recorded)
    lander, task = Lander(source), new_task()
    for page in range(20):
        ids = [10 * page, 10 * page + 1] if page != 3 else [0, 30]
        await land(writer, lander, a_page([{"id": each} for each in ids], minute=page, page=page), task)
    assert len(staged) == 1
    assert len(rows(db)) == 39
