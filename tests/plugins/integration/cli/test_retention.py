"""`collect-ops retention` on a database with old tasks."""

from __future__ import annotations

import json
import sys

import pytest

from collect_ops.cli import main
from collect_ops.storage import connect
from tests.plugins.integration.maintenance.filled import add_tasks, remaining


def test_the_command_counts_and_deletes(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
