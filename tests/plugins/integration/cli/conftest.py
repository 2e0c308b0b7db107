"""The command on services of the test's own."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from collect_ops.cli import main
from tests.plugins.integration.world import World

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def collect_ops(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `collect-ops` with arguments; returns exit status, stdout and stderr."""
    monkeypatch.setenv("COLLECT_POSTGRES_DSN", world.backends.postgres_dsn)
    monkeypatch.setenv("COLLECT_REDIS_URL", world.backends.redis_url)
    monkeypatch.setenv("COLLECT_AMQP_URL", world.backends.amqp_url)
    monkeypatch.delenv("COLLECT_AIRFLOW_URL", raising=False)

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["collect-ops", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        out, err = capsys.readouterr()
        return (code if isinstance(code, int) else 0), out, err

    return command
