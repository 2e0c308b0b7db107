"""Both stacks read the same settings and fill in the same connections."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from stack import env_files
from stack.layout import CHECKOUT

AWKWARD = "p\"a's$s {w}@:/%"
PLACES = {
    "POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": "5432", "POSTGRES_AIRFLOW_DB": "airflow",
    "POSTGRES_AIRFLOW_USER": "airflow", "POSTGRES_AIRFLOW_PASSWORD": AWKWARD,
    "POSTGRES_COLLECT_DB": "collect_ops",
    "POSTGRES_COLLECT_USER": "collect_ops", "POSTGRES_COLLECT_PASSWORD": AWKWARD, "REDIS_HOST": "127.0.0.1",
    "REDIS_PORT": "6379", "REDIS_PASSWORD": AWKWARD, "RABBITMQ_HOST": "127.0.0.1", "RABBITMQ_PORT": "5672",
    "RABBITMQ_MANAGEMENT_PORT": "15672", "RABBITMQ_VHOST": "collect", "RABBITMQ_USER": "collect_ops",
    "RABBITMQ_CELERY_VHOST": "celery",
    "REDIS_USER": "default", "RABBITMQ_MONITOR_USER": "monitor", "RABBITMQ_MONITOR_PASSWORD": AWKWARD,
    "RABBITMQ_PASSWORD": AWKWARD, "AIRFLOW_HOST": "127.0.0.1", "AIRFLOW_PORT": "8080",
    "AIRFLOW_SERVICE_USER": "collect_service", "AIRFLOW_SERVICE_PASSWORD": AWKWARD,
}  # fmt: skip


def test_a_password_cannot_break_out_of_its_connection() -> None:
    filled = env_files.connections(PLACES)
    assert set(filled) == {
        f"AIRFLOW_CONN_COLLECT_{name}" for name in ("POSTGRES", "REDIS", "RABBITMQ", "AIRFLOW")
    }
    for text in filled.values():
        connection = json.loads(text)
        assert connection["password"] == AWKWARD
        assert isinstance(connection["port"], int)


def test_who_has_no_account_of_airflow_gets_no_connection_to_it() -> None:
    filled = env_files.connections(PLACES | {"AIRFLOW_SERVICE_USER": "", "AIRFLOW_SERVICE_PASSWORD": ""})
    assert set(filled) == {f"AIRFLOW_CONN_COLLECT_{name}" for name in ("POSTGRES", "REDIS", "RABBITMQ")}


def test_a_missing_place_is_named() -> None:
    with pytest.raises(KeyError, match="RABBITMQ_VHOST"):
        env_files.connections({key: value for key, value in PLACES.items() if key != "RABBITMQ_VHOST"})


def test_addresses_quote_what_they_carry() -> None:
    urls = {**env_files.addresses(PLACES), **env_files.celery(PLACES), "database": env_files.database(PLACES)}
    with_password = [urlsplit(url) for name, url in urls.items() if name != "COLLECT_AIRFLOW_URL"]
    assert all(unquote(url.password or "") == AWKWARD for url in with_password)


def test_every_shared_setting_carries_its_reason() -> None:
    previous = ""
    for line in (CHECKOUT / "config" / "airflow.env").read_text().splitlines():
        if line.startswith("AIRFLOW__"):
            assert previous.startswith("#"), f"{line} has no comment above it"
        previous = line


def test_a_line_that_is_no_setting_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.env"
    file.write_text("# fine\nKEY=1\nno setting\n")
    with pytest.raises(ValueError, match=r"bad\.env, line 3: 'no setting' is not KEY=VALUE"):
        env_files.parse(file)


def test_a_shell_reads_the_exports_as_they_were_meant() -> None:
    script = (
        f"{env_files.exports({'KEY': AWKWARD})}\n{sys.executable} -c 'import os; print(os.environ[\"KEY\"])'"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == AWKWARD + "\n"


def test_the_api_server_gets_no_connection() -> None:
    def printed(what: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "stack.env_files", what],
            cwd=CHECKOUT, env=PLACES, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    assert "AIRFLOW_CONN_COLLECT_POSTGRES" in printed("connections")
    server = printed("server")
    assert env_files.DATABASE_KEY in server
    assert "AIRFLOW_CONN_" not in server
    assert "COLLECT_POSTGRES_DSN" not in server
