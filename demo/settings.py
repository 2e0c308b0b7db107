"""What the demonstration needs to know of the running stack."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from demo.airflow_api import AirflowApi
from demo.errors import SettingMissing

CHECKOUT: Final = Path(__file__).resolve().parent.parent
NEEDED: Final = (
    "COLLECT_OPS_STACK",
    "COLLECT_POSTGRES_DSN",
    "COLLECT_POSTGRES_ADMIN_DSN",
    "COLLECT_REDIS_URL",
    "COLLECT_AMQP_URL",
    "COLLECT_RABBITMQ_API_URL",
    "COLLECT_AIRFLOW_URL",
    "COLLECT_AIRFLOW_USER",
    "COLLECT_AIRFLOW_PASSWORD",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """The running stack.

    Attributes:
        home: the stack's folder.
        postgres_dsn: PostgreSQL, database of the collected data.
        postgres_admin_dsn: the same server, somebody who may create databases.
        redis_url: Redis.
        amqp_url: RabbitMQ, vhost included.
        rabbitmq_api_url: its management API, credentials included.
        airflow_url: Airflow's address, no slash at the end.
        airflow_user: who the demonstration is for Airflow.
        airflow_password: that user's password.
        serve_address: where workers reach a server of this machine.
    """

    home: Path
    postgres_dsn: str = field(repr=False)
    postgres_admin_dsn: str = field(repr=False)
    redis_url: str = field(repr=False)
    amqp_url: str = field(repr=False)
    rabbitmq_api_url: str = field(repr=False)
    airflow_url: str
    airflow_user: str
    airflow_password: str = field(repr=False)
    serve_address: str = "127.0.0.1"

    @classmethod
    def load(cls) -> DemoSettings:
        """From the environment; when something is missing there, from `python -m stack env --all`.

        Raises:
            SettingMissing: the stack has never been started.
        """
        settings: Mapping[str, str] = os.environ
        if any(name not in settings for name in NEEDED):
            # What a shell has of `make env` is a person's: it may do less.
            settings = {**os.environ, **_stack_environment()}
        missing = [name for name in NEEDED if name not in settings]
        if missing:
            raise SettingMissing(names=missing)
        return cls(
            home=Path(settings["COLLECT_OPS_STACK"]),
            postgres_dsn=settings["COLLECT_POSTGRES_DSN"],
            postgres_admin_dsn=settings["COLLECT_POSTGRES_ADMIN_DSN"],
            redis_url=settings["COLLECT_REDIS_URL"],
            amqp_url=settings["COLLECT_AMQP_URL"],
            rabbitmq_api_url=settings["COLLECT_RABBITMQ_API_URL"],
            airflow_url=settings["COLLECT_AIRFLOW_URL"].rstrip("/"),
            airflow_user=settings["COLLECT_AIRFLOW_USER"],
            airflow_password=settings["COLLECT_AIRFLOW_PASSWORD"],
            serve_address=settings.get("COLLECT_SERVE_ADDRESS") or "127.0.0.1",
        )

    def airflow(self) -> AirflowApi:
        """Airflow's REST API as the configured user."""
        return AirflowApi(base_url=self.airflow_url, user=self.airflow_user, password=self.airflow_password)


def _stack_environment() -> dict[str, str]:
    """What `python -m stack env --all` prints, or nothing when there is no stack."""
    named = os.environ.get("COLLECT_OPS_STACK")
    done = subprocess.run(
        [sys.executable, "-m", "stack", "env", "--all"],
        cwd=CHECKOUT, env={**os.environ, **({"STACK_HOME": named} if named else {})},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        return {}
    words = [word for line in done.stdout.splitlines() for word in shlex.split(line)[1:]]
    return dict(word.split("=", 1) for word in words if "=" in word)
