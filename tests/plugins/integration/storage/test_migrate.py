"""Migrations: only forward, each once, whoever runs them and how often."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from collect_ops.kernel.code import version_with_code
from collect_ops.kernel.errors import OwnOutage
from collect_ops.kernel.paths import include_dir
from collect_ops.storage import Connection, connect, connect_async, errors
from collect_ops.storage import migrate as migrating
from collect_ops.storage.concurrent_indexes import (
    MARKER,
    NotConcurrent,
    is_outside_a_transaction,
    statements_of,
)
from collect_ops.storage.migrate import (
    WAITS,
    Migrated,
    MigrationBlocked,
    MigrationChanged,
    OlderCodeRuns,
    Phase,
    finish,
    main,
    migrate,
)
from collect_ops.storage.schema import SchemaBehind
from tests.plugins.integration.databases import new_database

NAMES = tuple(path.stem for path in sorted((include_dir() / "sql" / "migrations").glob("*.sql")))


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """A folder with two migrations that are not the project's."""
    (tmp_path / "9001_first.sql").write_text("CREATE TABLE public.first (id int); SELECT pg_sleep(0.2);")
    (tmp_path / "9002_second.sql").write_text("ALTER TABLE public.first ADD COLUMN name text;")
    return tmp_path


def test_what_is_applied_is_not_applied_again(db: Connection) -> None:
    assert migrate(db) == Migrated(applied=(), known=len(NAMES))


def test_four_migrators_at_once_apply_each_once(postgres_dsn: str, migrations: Path) -> None:
    def run(_: int) -> Migrated:
        with connect(postgres_dsn) as connection:
            return migrate(connection, migrations)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(run, range(4)))
    assert sorted(len(each.applied) for each in done) == [0, 0, 0, 2]


def test_one_that_fails_leaves_nothing_of_itself(db: Connection, migrations: Path) -> None:
    (migrations / "9002_second.sql").write_text("ALTER TABLE public.first ADD COLUMN name text; SELECT 1/0;")
    with pytest.raises(errors.DivisionByZero):
        migrate(db, migrations)
    (migrations / "9002_second.sql").write_text("ALTER TABLE public.first ADD COLUMN name text;")
    assert migrate(db, migrations).applied == ("9002_second",)


def test_a_migration_that_waits_for_a_table_stops_nobody_else(
    db: Connection, postgres_dsn: str, migrations: Path
) -> None:
    """As beside a dump, which reads every table in one transaction: who comes later would queue behind it."""
    db.execute("CREATE TABLE public.first (id int)")
    (migrations / "9001_first.sql").write_text("SELECT 1")
    waits_s = []
    with ThreadPoolExecutor(1) as pool, connect(postgres_dsn) as dump:
        with dump.transaction():
            dump.execute("SELECT FROM public.first")
            done = pool.submit(migrate, db, migrations)
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline:
                began = time.monotonic()
                with connect(postgres_dsn) as other:
                    other.execute("INSERT INTO public.first VALUES (1)")
                waits_s.append(time.monotonic() - began)
            assert not done.done()
        assert done.result().applied == ("9001_first", "9002_second")
    assert max(waits_s) < 2
    assert len(waits_s) > 3


def test_a_migration_that_never_gets_its_table_names_who_has_it(
    db: Connection,
    postgres_dsn: str,
    migrations: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(migrating, "_PAUSE_S", 0.1)
    monkeypatch.setattr(migrating, "_LOCKS_WITHIN_S", 0.5)
    db.execute("CREATE TABLE public.first (id int)")
    (migrations / "9001_first.sql").write_text("SELECT 1")
    with connect(postgres_dsn, application_name="the dump") as dump, dump.transaction():
        dump.execute("SELECT FROM public.first")
        with pytest.raises(MigrationBlocked) as blocked:
            migrate(db, migrations)
    assert blocked.value.name == "9002_second"
    assert any("the dump" in holder for holder in blocked.value.holders)
    assert isinstance(blocked.value, OwnOutage)
    # What came before it stays, the lock among migrators is free, and time-outs are as they were.
    with connect(postgres_dsn) as other:
        assert migrate(other, migrations).applied == ("9002_second",)
    assert db.execute("SHOW lock_timeout").fetchone() == {"lock_timeout": "1min"}


def test_an_edited_migration_is_refused(db: Connection, migrations: Path) -> None:
    migrate(db, migrations)
    (migrations / "9001_first.sql").write_text("SELECT 1")
    with pytest.raises(MigrationChanged, match="9001_first"):
        migrate(db, migrations)


def test_the_command(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLLECT_POSTGRES_DSN", postgres_dsn)
    assert main() == 0
    assert capsys.readouterr().out == f"migrations: 0 applied, {len(NAMES)} known before\n"
    assert main(["before"]) == main(["after"]) == main(["after", "node-1"]) == 0
    for wrong in (["afterwards"], ["before", "node-1"]):
        assert main(wrong) == 2
        assert "allowed: before, after, after NODE" in capsys.readouterr().err
    monkeypatch.delenv("COLLECT_POSTGRES_DSN")
    assert main() == 2
    assert "COLLECT_POSTGRES_DSN is not set" in capsys.readouterr().err


@pytest.fixture
def pair(migrations: Path) -> Path:
    """A folder in which the first migration has a second half."""
    (migrations / "9001_first.after.sql").write_text("ALTER TABLE public.first DROP COLUMN id;")
    return migrations


def columns(db: Connection) -> set[str]:
    rows = db.execute("SELECT column_name AS name FROM information_schema.columns WHERE table_name = 'first'")
    return {row["name"] for row in rows.fetchall()}


def node(db: Connection, node_id: str, version: str, *, status: str = "ACTIVE") -> None:
    db.execute(
        "INSERT INTO collect.node (id, machine, boot_id, started_at, seq, name, address, version, slots, cpu_percent,"
        " memory_percent, memory_bytes, disk_percent, disk_free_bytes, load_1, workers_bytes, groups, status)"
        " VALUES (%s, 'm', 'b', now(), 1, 'n', '127.0.0.1', %s, 4, 0, 0, 1, 0, 1, 0, 0, 0, %s)",
        (node_id, version, status),
    )


def test_what_is_taken_away_waits_for_its_phase(db: Connection, pair: Path) -> None:
    assert migrate(db, pair, phases=(Phase.BEFORE,)).applied == ("9001_first", "9002_second")
    assert columns(db) == {"id", "name"}
    assert finish(db, pair).applied == ("9001_first.after",)
    assert finish(db, pair).applied == migrate(db, pair).applied == ()
    assert columns(db) == {"name"}


def test_both_phases_at_once_are_one_after_the_other(db: Connection, pair: Path) -> None:
    assert migrate(db, pair).applied == ("9001_first", "9002_second", "9001_first.after")


@pytest.mark.parametrize("status", ["ACTIVE", "SUSPECT", "DRAINING"])
def test_the_second_phase_waits_for_a_node_that_runs_other_code(
    db: Connection, pair: Path, status: str
) -> None:
    migrate(db, pair, phases=(Phase.BEFORE,))
    node(db, "ours", version_with_code())
    node(db, "elsewhere", "0.1.0", status=status)
    with pytest.raises(OlderCodeRuns) as waits:
        finish(db, pair)
    assert (waits.value.names, waits.value.nodes) == (("9001_first.after",), {"elsewhere": "0.1.0"})
    assert columns(db) == {"id", "name"}
    assert finish(db, pair, restarted=["elsewhere"]).applied == ("9001_first.after",)


@pytest.mark.parametrize("status", ["LOST", "LEFT"])
def test_the_second_phase_does_not_wait_for_a_node_that_is_gone(
    db: Connection, pair: Path, status: str
) -> None:
    migrate(db, pair, phases=(Phase.BEFORE,))
    node(db, "gone", "0.1.0", status=status)
    assert finish(db, pair).applied == ("9001_first.after",)


def test_nobody_waits_when_there_is_nothing_to_apply(db: Connection) -> None:
    node(db, "elsewhere", "0.1.0")
    assert finish(db).applied == ()


def test_the_command_says_what_it_waits_for(
    db: Connection,
    postgres_dsn: str,
    pair: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    node(db, "elsewhere", "0.1.0")
    here = tmp_path / "include" / "sql" / "migrations"
    here.mkdir(parents=True)
    for path in pair.glob("*.sql"):
        (here / path.name).write_text(path.read_text())
    (tmp_path / "include" / "sql" / "queries").symlink_to(include_dir() / "sql" / "queries")
    monkeypatch.setenv("COLLECT_OPS_INCLUDE", str(tmp_path / "include"))
    monkeypatch.setenv("COLLECT_POSTGRES_DSN", postgres_dsn)
    assert main(["after"]) == WAITS
    out = capsys.readouterr().out
    assert "9001_first.after" in out
    assert "node elsewhere runs 0.1.0" in out


def test_the_order_of_the_phases_makes_no_difference(db: Connection, tmp_path: Path) -> None:
    """Who skips releases applies all that comes before, and then all that comes after."""
    with new_database("in_order") as (_, dsn), connect(dsn) as other:
        for name in NAMES:
            folder = tmp_path / name
            folder.mkdir()
            (folder / f"{name}.sql").symlink_to(include_dir() / "sql" / "migrations" / f"{name}.sql")
            migrate(other, folder)
        assert schema(other) == schema(db)


def schema(db: Connection) -> set[tuple[object, ...]]:
    rows = db.execute(
        "SELECT table_name AS of, column_name AS what, data_type || is_nullable || coalesce(column_default, '') AS how"
        " FROM information_schema.columns WHERE table_schema = 'collect'"
        " UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'collect'"
        " UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'collect'::regnamespace"
        " UNION ALL SELECT '', proname, prosrc FROM pg_proc WHERE pronamespace = 'collect'::regnamespace"
    ).fetchall()
    return {tuple(row.values()) for row in rows}


def test_a_statement_before_its_migration_says_which_is_missing(db: Connection, postgres_dsn: str) -> None:
    """As a process meets it that has started with newer code than `make up` has migrated to."""
    db.execute("DELETE FROM public.schema_migration WHERE name = %s", (NAMES[-1],))
    with pytest.raises(SchemaBehind) as behind, db.transaction():
        db.execute("SELECT nothing_yet FROM collect.task")
    assert behind.value.missing == (NAMES[-1],)
    assert isinstance(behind.value, OwnOutage)
    assert isinstance(behind.value.__cause__, errors.UndefinedColumn)
    with pytest.raises(SchemaBehind):
        db.execute("SELECT FROM collect.nothing_yet")


async def test_the_same_for_asyncio(db: Connection, postgres_dsn: str) -> None:
    db.execute("DELETE FROM public.schema_migration WHERE name = %s", (NAMES[-1],))
    async with await connect_async(postgres_dsn) as connection:
        with pytest.raises(SchemaBehind):
            await connection.execute("SELECT FROM collect.nothing_yet")


def test_a_fault_of_ours_stays_what_it_is(db: Connection) -> None:
    with pytest.raises(errors.UndefinedColumn):
        db.execute("SELECT nothing_yet FROM collect.task")


BUILT = f"""{MARKER}
-- For whoever asks by name.
CREATE INDEX CONCURRENTLY IF NOT EXISTS first_name ON public.first (name);
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS first_id ON public.first (id) WHERE id IS NOT NULL;
"""


def indexes(db: Connection) -> dict[str, bool]:
    """Those of the table, and whether they are valid."""
    rows = db.execute(
        "SELECT indexrelid::regclass::text AS name, indisvalid AS valid FROM pg_index"
        " WHERE indrelid = 'public.first'::regclass"
    )
    return {row["name"]: row["valid"] for row in rows.fetchall()}


@pytest.fixture
def building(db: Connection, migrations: Path) -> Path:
    """A folder whose third migration builds indexes beside what runs."""
    migrate(db, migrations)
    (migrations / "9003_indexes.sql").write_text(BUILT)
    return migrations


def test_an_index_is_built_while_others_write(db: Connection, postgres_dsn: str, building: Path) -> None:
    """A transaction that has written is waited for, and nobody who writes meanwhile waits for the index."""
    with ThreadPoolExecutor(1) as pool, connect(postgres_dsn) as writer:
        with writer.transaction():
            writer.execute("INSERT INTO public.first VALUES (1, 'a')")
            done = pool.submit(migrate, db, building)
            with connect(postgres_dsn) as other:
                for number in range(2, 12):
                    other.execute("SET statement_timeout = '5s'")
                    other.execute("INSERT INTO public.first VALUES (%s, 'b')", (number,))
                    time.sleep(0.05)
            assert not done.done()
        assert done.result(60).applied == ("9003_indexes",)
    assert indexes(db) == {"first_name": True, "first_id": True}
    assert migrate(db, building).applied == ()
    assert db.execute("SHOW lock_timeout").fetchone() == {"lock_timeout": "1min"}


def test_two_migrators_do_not_wait_for_each_others_snapshots(postgres_dsn: str, building: Path) -> None:
    def run(_: int) -> Migrated:
        with connect(postgres_dsn) as connection:
            return migrate(connection, building)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(len(each.applied) for each in pool.map(run, range(4))) == [0, 0, 0, 1]


def test_an_index_that_an_interrupted_run_left_is_built_again(db: Connection, building: Path) -> None:
    db.execute("INSERT INTO public.first VALUES (1, 'a'), (1, 'b')")
    with pytest.raises(errors.UniqueViolation):
        db.execute("CREATE UNIQUE INDEX CONCURRENTLY first_id ON public.first (id)")
    assert indexes(db) == {"first_id": False}
    db.execute("DELETE FROM public.first WHERE name = 'b'")
    assert migrate(db, building).applied == ("9003_indexes",)
    assert indexes(db) == {"first_name": True, "first_id": True}


def test_an_index_that_cannot_be_built_leaves_nothing_that_refuses_rows(
    db: Connection, building: Path
) -> None:
    db.execute("INSERT INTO public.first VALUES (1, 'a'), (1, 'b')")
    with pytest.raises(errors.UniqueViolation):
        migrate(db, building)
    assert indexes(db) == {"first_name": True}
    db.execute("INSERT INTO public.first VALUES (1, 'c')")


def test_an_index_that_waits_for_an_old_transaction_names_who_has_it(
    db: Connection, postgres_dsn: str, building: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrating, "_LOCKS_WITHIN_S", 0.5)
    with connect(postgres_dsn, application_name="the dump") as dump:
        with dump.transaction():
            dump.execute("INSERT INTO public.first VALUES (1, 'a')")
            with pytest.raises(MigrationBlocked) as blocked:
                migrate(db, building)
        assert any("the dump" in holder for holder in blocked.value.holders)
        assert list(blocked.value.left) == [name for name, valid in indexes(db).items() if not valid]
        assert migrate(db, building).applied == ("9003_indexes",)
    assert indexes(db) == {"first_name": True, "first_id": True}


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX first_name ON public.first (name)",
        "CREATE INDEX CONCURRENTLY first_name ON public.first (name)",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS first_name ON first (name)",
        "ALTER TABLE public.first ADD COLUMN more text",
    ],
)
def test_outside_a_transaction_only_what_can_be_repeated(
    db: Connection, building: Path, statement: str
) -> None:
    (building / "9003_indexes.sql").write_text(f"{BUILT}{statement};\n")
    with pytest.raises(NotConcurrent):
        migrate(db, building)
    assert indexes(db) == {}


#: Up to here indexes were created in transactions; these files are applied by now, and stay as they are.
LAST_IN_TRANSACTIONS = "0035_delivery_turns"
CREATES_INDEX = re.compile(
    r"CREATE\s+(?:UNIQUE\s+)?INDEX\s+(CONCURRENTLY\s+)?.*?\sON\s+([\w.]+)", re.IGNORECASE | re.DOTALL
)
CREATES_TABLE = re.compile(r"CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?([\w.]+)", re.IGNORECASE)


def blocking_indexes(text: str) -> set[str]:
    """Tables on which a migration creates an index in a way that keeps writers waiting; its own are empty."""
    bare = re.sub(r"--[^\n]*", "", text)
    created = {table.lower() for table in CREATES_TABLE.findall(bare)}
    return {table.lower() for concurrent, table in CREATES_INDEX.findall(bare) if not concurrent} - created


@pytest.mark.parametrize("name", [name for name in NAMES if name > LAST_IN_TRANSACTIONS] or [NAMES[-1]])
def test_no_index_keeps_writers_waiting(name: str) -> None:
    """docs/upgrading.md: an index on a table that is there is built CONCURRENTLY, outside a transaction."""
    text = (include_dir() / "sql" / "migrations" / f"{name}.sql").read_text()
    assert blocking_indexes(text) == set()
    assert is_outside_a_transaction(text) is ("CONCURRENTLY" in re.sub(r"--[^\n]*", "", text).upper())
    if is_outside_a_transaction(text):
        assert statements_of(name, text)


def test_the_rule_finds_what_it_forbids() -> None:
    text = "CREATE TABLE collect.new (id int); CREATE INDEX n ON collect.new (id);"
    assert blocking_indexes(text) == set()
    assert blocking_indexes(f"{text} CREATE INDEX t ON collect.task (id);") == {"collect.task"}
    assert blocking_indexes(BUILT) == set()
