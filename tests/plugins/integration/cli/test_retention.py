"""`collect-ops retention` on a database with old tasks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from collect_ops.cli import main
from collect_ops.kernel.paths import include_dir
from collect_ops.sources.load import load_sources
from collect_ops.storage import connect
from tests.plugins.integration.maintenance.filled import add_tasks, remaining


@pytest.fixture
def include(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An include folder in which a source refuses equals for a year, and another one has faults."""
    for name in ("sql", "rules"):
        (tmp_path / name).symlink_to(include_dir() / name)
    (tmp_path / "sources").mkdir()
    declared = "name: yearly\nconnection: web\ntarget: {table: yearly, key: [id]}\ndedup: {ttl_h: 8760}\n"
    (tmp_path / "sources" / "yearly.yaml").write_text(declared)
    (tmp_path / "sources" / "faulty.yaml").write_text("name: [")
    monkeypatch.setenv("COLLECT_OPS_INCLUDE", str(tmp_path))
    return tmp_path


def test_the_command_counts_and_deletes(
    postgres_dsn: str, include: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(load_sources().sources) == {"yearly"}
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

    with connect(postgres_dsn) as db:
        ids = add_tasks(db, 3)
        opened = add_tasks(db, 2, status="DEAD", letter="OPEN")
        dry = json.loads(run("--dry-run", "--json"))
        assert (dry["dry_run"], dry["deleted"]["tasks"], sum(dry["kept"].values())) == (True, 3, 2)
        assert remaining(db, ids) == set(ids)
        assert "3 tasks" in run()
        assert remaining(db, [*ids, *opened]) == set(opened)
