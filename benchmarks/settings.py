"""What the benchmarks need to know of the running stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psycopg

from benchmarks.report import CHECKOUT
from demo.airflow_api import AirflowApi
from demo.settings import DemoSettings


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """The running stack, as the environment that `python -m stack env` prints describes it.

    Attributes:
        stack: the stack.
        before: a checkout of another release, with whose engine ours is compared too; None for none.
    """

    stack: DemoSettings
    before: Path | None = None

    @classmethod
    def load(cls, *, before: Path | None = None) -> BenchSettings:
        """From the environment, else from the stack itself.

        Args:
            before: a checkout of another release.

        Raises:
            SettingMissing: no stack has been started.
        """
        return cls(stack=DemoSettings.load(), before=before)

    @property
    def dsn(self) -> str:
        """PostgreSQL's address for the collected data."""
        return self.stack.postgres_dsn

    @property
    def python(self) -> Path:
        """The interpreter of the peers' environment."""
        own = self.stack.home / "venv-bench" / "bin" / "python"
        return own if own.exists() else CHECKOUT / ".stack" / "venv-bench" / "bin" / "python"

    @cached_property
    def airflow(self) -> AirflowApi:
        """Airflow's REST API."""
        return self.stack.airflow()

    def execute(self, *statements: str) -> None:
        """Run statements on the database of the collected data."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def count(self, table: str) -> int:
        """How many rows a table has."""
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(f"select count(*) from {table}".encode()).fetchone()
        return int(row[0]) if row else 0

    def worker_pids(self) -> list[int]:
        """The processes whose descendants run tasks: the worker, or with LocalExecutor the scheduler."""
        command = [sys.executable, "-m", "stack", "status", "--json"]
        environment = {**os.environ, "STACK_HOME": str(self.stack.home)}
        status = subprocess.run(
            command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
        )
        services = json.loads(status.stdout)["services"]
        pids = {line["service"]: line["pid"] for line in services}
        return [pids[name] for name in ("scheduler", "worker") if pids.get(name)]
