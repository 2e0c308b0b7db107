"""Tables: made once, checked, swapped."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from collect_ops.landing import (
    AsideMissing,
    DeclarationUnusable,
    Lander,
    LandingPage,
    Origin,
    Swap,
    TargetMismatch,
    drop_aside,
    ensure_aside,
    ensure_target,
    swap,
)
from collect_ops.landing.layout import aside_name
from collect_ops.sources.model import Column, Disposition, Source, Target
from collect_ops.storage import AsyncConnection, Connection, connect

NewTask = Callable[[], int]


def a_target(
    columns: dict[str, str] | None = None,
    *,
    key: tuple[str, ...] = (),
    disposition: Disposition = Disposition.APPEND,
    table: str = "things",
) -> Target:
    declared = {name: Column(type=column) for name, column in (columns or {}).items()}
    return Target(table=table, columns=declared, key=key, disposition=disposition)


def replacing(columns: dict[str, str] | None = None, table: str = "things") -> Target:
    return a_target(columns or {"id": "int"}, disposition=Disposition.REPLACE, table=table)


async def land(writer: AsyncConnection, target: Target, task: int, ids: list[int]) -> None:
    lander = Lander(Source(name="things", connection="api", target=target))
    page = LandingPage(records=[{"id": i} for i in ids], fetched_at=datetime.now(UTC), page=0)
    async with writer.transaction():
        await lander.land(writer, page, Origin(task_id=task, shard_no=0))


def ids(db: Connection, table: str = "landing.things") -> list[int]:
    return [row["id"] for row in db.execute(f"SELECT id FROM {table} ORDER BY id").fetchall()]


@pytest.mark.parametrize("key", [(), ("id",)])
def test_a_table_that_fits_is_left_alone(db: Connection, key: tuple[str, ...]) -> None:
    columns = {"id": "int", "code": "varchar(3)", "n": "numeric(10,2)", "at": "timestamptz", "d": "jsonb"}
    disposition = Disposition.MERGE if key else Disposition.APPEND
    ensure_target(db, a_target(columns, key=key, disposition=disposition))
    ensure_target(db, a_target(columns, key=key, disposition=disposition))
    ensure_target(db, a_target({"id": "int"}, key=key, disposition=disposition))


def test_documents_need_no_columns(db: Connection) -> None:
    for target in (a_target(), a_target(key=("id",), disposition=Disposition.MERGE, table="keyed")):
        ensure_target(db, target)
        ensure_target(db, target)


def test_all_that_does_not_fit_is_named_with_what_would_mend_it(db: Connection) -> None:
    ensure_target(db, a_target({"id": "int", "code": "varchar(3)"}))
    db.execute("ALTER TABLE landing.things ADD COLUMN own text NOT NULL")
    wanted = a_target(
        {"id": "int", "code": "varchar(5)", "more": "date"}, key=("id",), disposition=Disposition.MERGE
    )
    with pytest.raises(TargetMismatch) as caught:
        ensure_target(db, wanted)
    assert [difference.part for difference in caught.value.differences] == ["code", "more", "own", "key"]
    code = caught.value.differences[0]
    assert (code.has, code.wants) == ("character varying(3)", "character varying(5)")
    for difference in caught.value.differences:
        db.execute(difference.remedy)
    ensure_target(db, wanted)
    with pytest.raises(TargetMismatch, match="PRIMARY KEY"):
        ensure_target(db, a_target({"id": "int"}))


def test_a_view_in_the_tables_place_is_a_mismatch(db: Connection) -> None:
    db.execute("CREATE VIEW landing.things AS SELECT 1 AS id")
    with pytest.raises(TargetMismatch, match="has a view"):
        ensure_target(db, a_target({"id": "int"}))


@pytest.mark.parametrize(
    "declared",
    ["int) ; drop table x", "nosuchtype", "varchar(0)", "int[]", "text collate c", "numeric(5,2,1)"],
)
def test_a_type_that_is_none_is_refused(db: Connection, declared: str) -> None:
    # The model of a source knows the types too; landing does not rely on it where text becomes DDL.
    wanted = a_target().model_copy(update={"columns": {"id": Column.model_construct(type=declared)}})
    with pytest.raises(DeclarationUnusable, match="things"):
        ensure_target(db, wanted)
    ensure_target(db, a_target({"id": "int"}))
    with pytest.raises(DeclarationUnusable, match="things"):
        ensure_target(db, wanted)


def test_keys_are_checked_before_anything_is_made(db: Connection) -> None:
    for target in (
        a_target({"id": "int"}, disposition=Disposition.MERGE),
        a_target({"id": "int"}, key=("other",), disposition=Disposition.MERGE),
    ):
        with pytest.raises(DeclarationUnusable, match="key"):
            ensure_target(db, target)


def test_many_may_make_the_table_at_once(db: Connection, landing_dsn: str) -> None:
    def make(_: int) -> None:
        with connect(landing_dsn) as connection:
            ensure_target(connection, a_target({"id": "int"}))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(make, range(8)))
    assert ids(db) == []


async def test_a_swap_replaces_all_rows_and_nothing_that_stands_on_them(
    db: Connection, writer: AsyncConnection, new_task: NewTask, landing_dsn: str
) -> None:
    target, first, second = replacing(), new_task(), new_task()
    ensure_target(db, target)
    db.execute("CREATE VIEW landing.seen AS SELECT id FROM landing.things")
    for task, landed in ((first, [1, 2]), (second, [2, 3])):
        ensure_aside(db, target, task)
        await land(writer, target, task, landed)
    assert swap(db, target, first) is Swap.SWAPPED
    assert ids(db, "landing.seen") == [1, 2]
    with connect(landing_dsn) as reader, db.transaction():
        reader.execute("SET statement_timeout = '5s'")
        assert swap(db, target, second) is Swap.SWAPPED
        assert ids(reader) == [1, 2]
    assert ids(db, "landing.seen") == [2, 3]
    assert swap(db, target, second) is Swap.SWAPPED
    assert db.execute("SELECT 1 FROM pg_tables WHERE schemaname = 'landing_aside'").fetchall() == []


async def test_an_older_task_does_not_replace_a_newer_ones_rows(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    target, older, newer = replacing(), new_task(), new_task()
    ensure_target(db, target)
    for task in (older, newer):
        ensure_aside(db, target, task)
        await land(writer, target, task, [task])
    assert swap(db, target, newer) is Swap.SWAPPED
    assert swap(db, target, older) is Swap.SUPERSEDED
    assert swap(db, target, older) is Swap.SUPERSEDED
    assert ids(db) == [newer]
    assert db.execute("SELECT 1 FROM pg_tables WHERE schemaname = 'landing_aside'").fetchall() == []


def test_a_swap_without_rows_to_swap_in_is_an_error(db: Connection, new_task: NewTask) -> None:
    target, task = replacing(), new_task()
    ensure_target(db, target)
    ensure_aside(db, target, task)
    drop_aside(db, target.table, task)
    drop_aside(db, target.table, task)
    with pytest.raises(AsideMissing, match="things__"):
        swap(db, target, task)


def test_two_swaps_at_once_end_with_the_newer_one(
    db: Connection, new_task: NewTask, landing_dsn: str
) -> None:
    target = replacing()
    ensure_target(db, target)
    tasks = [new_task() for _ in range(6)]
    for task in tasks:
        ensure_aside(db, target, task)
        aside = aside_name(target.table, task)
        db.execute(f"INSERT INTO landing_aside.{aside} VALUES (%s, NULL, %s, 0, now(), '')", (task, task))

    def exchange(task: int) -> Swap:
        with connect(landing_dsn) as connection:
            return swap(connection, target, task)

    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(exchange, tasks))
    assert results[-1] is Swap.SWAPPED
    assert ids(db) == [tasks[-1]]


async def test_tables_with_the_longest_names_stay_apart(
    db: Connection, writer: AsyncConnection, new_task: NewTask
) -> None:
    task = new_task()
    for ending in "ab":
        target = replacing(table="t" * 41 + ending)
        ensure_target(db, target)
        ensure_aside(db, target, task)
        await land(writer, target, task, [ord(ending)])
        assert swap(db, target, task) is Swap.SWAPPED
    assert ids(db, f"landing.{'t' * 41}a") == [ord("a")]
    ensure_target(db, a_target({"id": "int"}, table="t" * 41 + "c"))
