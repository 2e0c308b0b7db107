"""Migrations: only forward, each once, whoever runs them and how often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from collect_ops.kernel.paths import include_dir
from collect_ops.storage import Connection, connect, errors
from collect_ops.storage.migrate import Migrated, MigrationChanged, main, migrate

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
    monkeypatch.delenv("COLLECT_POSTGRES_DSN")
    assert main() == 2
    assert "COLLECT_POSTGRES_DSN is not set" in capsys.readouterr().err
