"""A real Compose parser takes the file when every secret is given, and refuses it for each that is not."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from stack import env_files
from stack.layout import CHECKOUT

EXAMPLE = CHECKOUT / "docker.env.example"
SECRETS = re.findall(r"^([A-Z_]+)=$", EXAMPLE.read_text(), flags=re.MULTILINE)


def compose_config(env_file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker-compose", "--env-file", str(env_file), "config"],
        cwd=CHECKOUT, env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def filled(path: Path, *, without: str | None = None) -> Path:
    text = EXAMPLE.read_text()
    for secret in SECRETS:
        if secret != without:
            text = text.replace(f"{secret}=\n", f"{secret}=value-of-{secret}\n")
    path.write_text(text)
    return path


def test_the_file_is_accepted_with_every_secret(tmp_path: Path) -> None:
    done = compose_config(filled(tmp_path / "docker.env"))
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {
        "postgres", "redis", "rabbitmq",
        "airflow-init", "api-server", "scheduler", "dag-processor", "triggerer", "worker",
    }  # fmt: skip
    shared = env_files.parse(CHECKOUT / "config" / "airflow.env")
    environment = services["worker"]["environment"]
    # Celery's workers together may run more than LocalExecutor's forks.
    differing = {key for key, value in shared.items() if str(environment[key]) != value}
    assert differing == {"AIRFLOW__CORE__PARALLELISM"}
    assert int(environment["AIRFLOW__CORE__PARALLELISM"]) > int(shared["AIRFLOW__CORE__PARALLELISM"])
    # What the containers fill the connections in with is complete.
    env_files.connections({key: str(value) for key, value in environment.items()})


@pytest.mark.parametrize("secret", SECRETS)
def test_the_file_is_refused_without_a_secret(tmp_path: Path, secret: str) -> None:
    done = compose_config(filled(tmp_path / "docker.env", without=secret))
    assert done.returncode != 0
    assert secret in done.stderr
    assert "docker.env" in done.stderr


def test_no_secret_has_a_value_in_the_example() -> None:
    assert len(SECRETS) == 11
