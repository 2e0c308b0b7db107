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
        "airflow-init", "api-server", "scheduler", "dag-processor", "triggerer", "worker", "control",
    }  # fmt: skip
    shared = env_files.parse(CHECKOUT / "config" / "airflow.env")
    environment = services["worker"]["environment"]
    # Celery's workers together may run more than LocalExecutor's forks.
    differing = {key for key, value in shared.items() if str(environment[key]) != value}
    assert differing == {"AIRFLOW__CORE__PARALLELISM"}
    assert int(environment["AIRFLOW__CORE__PARALLELISM"]) > int(shared["AIRFLOW__CORE__PARALLELISM"])
    # What the containers fill the connections in with is complete.
    places = {key: str(value) for key, value in environment.items()}
    env_files.connections(places)
    assert env_files.celery(places)["AIRFLOW__CELERY__BROKER_URL"].endswith("@rabbitmq:5672/celery")
    # Nobody's tasks go to a queue that nobody serves.
    assert services["control"]["environment"]["COLLECT_WORKER_QUEUES"] == environment["COLLECT_CONTROL_QUEUE"]
    assert "COLLECT_WORKER_QUEUES" not in environment
    assert services["airflow-init"]["depends_on"].keys() == {"postgres", "rabbitmq"}


@pytest.mark.parametrize("secret", SECRETS)
def test_the_file_is_refused_without_a_secret(tmp_path: Path, secret: str) -> None:
    done = compose_config(filled(tmp_path / "docker.env", without=secret))
    assert done.returncode != 0
    assert secret in done.stderr
    assert "docker.env" in done.stderr


def test_no_secret_has_a_value_in_the_example() -> None:
    assert len(SECRETS) == 11


def entrypoint(folder: Path, *words: str, **variables: str) -> tuple[list[str], str]:
    """What the entry point hands over to the image's own, and what it started beside it."""
    handed, calls = folder / "handed", folder / "calls"
    stub = folder / "python"
    stub.write_text(f'#!/bin/sh\necho "$@ $COLLECT_NODE_ID" >>{calls}\n')
    image = folder / "entrypoint"
    image.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{handed}\n')
    for file in (stub, image):
        file.chmod(0o755)
    script = (CHECKOUT / "stack" / "container-entrypoint.sh").read_text()
    own = folder / "container-entrypoint.sh"
    own.write_text(script.replace("exec /entrypoint", f"exec {image}"))
    done = subprocess.run(
        ["bash", str(own), *words],
        env={"PATH": f"{folder}:/usr/bin:/bin", "HOSTNAME": "4F2a91", **variables},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return handed.read_text().splitlines(), calls.read_text()


def test_a_worker_container_serves_its_own_queue_and_has_an_agent_of_the_same_id(tmp_path: Path) -> None:
    words, calls = entrypoint(tmp_path, "celery", "worker", "--verbose")
    assert words[:4] == ["celery", "worker", "--queues", "default,node.4f2a91"]
    assert words[-1] == "--verbose"
    assert "-m collect_ops.cli agent 4f2a91" in calls


def test_the_control_container_is_no_node(tmp_path: Path) -> None:
    words, calls = entrypoint(tmp_path, "celery", "worker", COLLECT_WORKER_QUEUES="control")
    assert words[:4] == ["celery", "worker", "--queues", "control"]
    assert "agent" not in calls


def test_a_scheduler_container_marks_the_job_of_the_one_that_died_in_it(tmp_path: Path) -> None:
    words, calls = entrypoint(tmp_path, "scheduler")
    assert words == ["scheduler"]
    assert "-m stack.schedulers" in calls
    other = tmp_path / "other"
    other.mkdir()
    assert "-m stack.schedulers" not in entrypoint(other, "triggerer")[1]


def test_any_other_command_is_handed_over_as_it_is(tmp_path: Path) -> None:
    assert entrypoint(tmp_path, "scheduler")[0] == ["scheduler"]
