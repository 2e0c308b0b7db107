"""`collect-ops retention` on a database with old tasks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from collect_ops.cli import main
from collect_ops.storage import connect
from tests.plugins.integration.maintenance.filled import add_tasks, remaining


@pytest.fixture
def run(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs the command, which ends well, and returns what it printed."""
    for name, value in (
        ("POSTGRES_DSN", postgres_dsn),
        ("REDIS_URL", "redis://127.0.0.1:9"),
        ("AMQP_URL", "amqp://127.0.0.1:9"),
    ):
        monkeypatch.setenv(f"COLLECT_{name}", value)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["collect-ops", "retention", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    return run


def test_the_command_counts_and_deletes(postgres_dsn: str, run: Callable[..., str]) -> None:
    with connect(postgres_dsn) as db:
        ids = add_tasks(db, 3)
        opened = add_tasks(db, 2, status="DEAD", letter="OPEN")
        dry = json.loads(run("--dry-run", "--json"))
        assert (dry["dry_run"], dry["deleted"]["tasks"], sum(dry["kept"].values())) == (True, 3, 2)
        assert remaining(db, ids) == set(ids)
        assert "3 tasks" in run()
        assert remaining(db, [*ids, *opened]) == set(opened)


@pytest.fixture
def long_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation one of whose sources refuses equals for a year; returns its sources."""
    monkeypatch.setenv("COLLECT_OPS_INCLUDE", str(tmp_path))
    for name in ("sources", "rules"):
        (tmp_path / name).mkdir()
    (tmp_path / "sql").symlink_to(include_dir_of_checkout() / "sql")
    (tmp_path / "rules" / "retention.yaml").write_text("requests_days: 90\n")
    declared = "name: things\ndescription: d\nconnection: c\ntarget: {table: things}\ndedup: {ttl_h: 8760}\n"
    (tmp_path / "sources" / "things.yaml").write_text(declared)
    return tmp_path / "sources"


def include_dir_of_checkout() -> Path:
    return Path(__file__).resolve().parents[4] / "include"


def test_a_long_dedup_window_stops_no_deletion(
    postgres_dsn: str, run: Callable[..., str], long_window: Path
) -> None:
    with connect(postgres_dsn) as db:
        ids, younger = add_tasks(db, 3, age_days=400), add_tasks(db, 2, source="others", age_days=200)
        assert json.loads(run("--json"))["complete"]
        assert remaining(db, [*ids, *younger]) == set(younger)


def test_airflows_records_have_nothing_to_do_with_sources(
    run: Callable[..., str], long_window: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collect_ops.maintenance.airflow_records.clean_metadata", lambda *_, **__: "")
    monkeypatch.setattr("collect_ops.maintenance.retention_rules.load_sources", lambda: pytest.fail("looked"))
    assert "log files" in run("--airflow", "--dry-run")
