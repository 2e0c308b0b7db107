"""The jobs of docker-compose.yaml as processes, on real servers: twice, and what workers are refused afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pika
import psycopg
import pytest
from pika.exceptions import ChannelClosedByBroker
from psycopg import errors

from stack import credentials, env_files
from stack.layout import CHECKOUT, Layout
from stack.settings import HOST, Stack, load
from tests.stack.command import run_stack

pytestmark = pytest.mark.timeout(300)
SECRETS = re.findall(r"^([A-Z_]+)=$", (CHECKOUT / "docker.env.example").read_text(), flags=re.MULTILINE)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Servers that know the owners of the native stack; the jobs give these other passwords."""
    layout = Layout(home=tmp_path_factory.mktemp("compose") / "stack")
    done = run_stack(layout.home, "up", "--only", "postgres,rabbitmq")
    assert done.returncode == 0, done.stdout + done.stderr
    yield load(layout)
    done = run_stack(layout.home, "clean", "--yes")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def secrets(servers: Stack) -> dict[str, str]:
    made = credentials.generate()
    # What a person chose: quotes and blanks must not matter.
    chosen = {name: f"{made.get(name) or credentials.password()} 'x\"y$z" for name in SECRETS}
    return {
        **chosen,
        "RABBITMQ_PASSWORD": servers.secrets["RABBITMQ_PASSWORD"],
        "POSTGRES_SUPERUSER_PASSWORD": servers.secrets["POSTGRES_SUPERUSER_PASSWORD"],
    }


def places(stack: Stack, secrets: dict[str, str], who: str) -> dict[str, str]:
    """What docker-compose.yaml tells a service, here."""
    keys = {"collect_ops": "COLLECT", "collect_control": "CONTROL", "collect_node": "NODE"}
    broker = {"collect_ops": "RABBITMQ_PASSWORD"}.get(who, f"RABBITMQ_{keys[who]}_PASSWORD")
    return {
        **{key: value for key, value in stack.places.items() if key not in stack.secrets},
        "POSTGRES_AIRFLOW_PASSWORD": secrets["POSTGRES_AIRFLOW_PASSWORD"],
        "POSTGRES_COLLECT_USER": who,
        "POSTGRES_COLLECT_PASSWORD": secrets[f"POSTGRES_{keys[who]}_PASSWORD"],
        "REDIS_PASSWORD": secrets["REDIS_PASSWORD"],
        "RABBITMQ_USER": who,
        "RABBITMQ_PASSWORD": secrets[broker],
        "RABBITMQ_CONTROL_PASSWORD": secrets["RABBITMQ_CONTROL_PASSWORD"],
        "RABBITMQ_NODE_PASSWORD": secrets["RABBITMQ_NODE_PASSWORD"],
        "RABBITMQ_MONITOR_USER": "collect_monitor",
        "RABBITMQ_MONITOR_PASSWORD": secrets["RABBITMQ_MONITOR_PASSWORD"],
    }


@pytest.fixture(scope="module")
def ready(servers: Stack, secrets: dict[str, str]) -> Stack:
    """Both jobs have run, twice: as at the next start of the containers."""
    owner = places(servers, secrets, "collect_ops")
    base = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    python = {"PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'plugins'}"}
    for _ in range(2):
        for command, variables in (
            (
                ["bash", str(CHECKOUT / "stack" / "container-initdb.sh")],
                {
                    "PGHOST": HOST, "PGPORT": str(servers.ports.postgres), "PGUSER": "postgres",
                    "PGPASSWORD": secrets["POSTGRES_SUPERUSER_PASSWORD"],
                    **{name: value for name, value in secrets.items() if name.startswith("POSTGRES_")},
                },
            ),
            (
                [sys.executable, "-m", "collect_ops.storage.migrate", "before"],
                {**python, **env_files.addresses(owner)},
            ),
            ([sys.executable, "-m", "stack.container_privileges"], {**python, **owner}),
            (
                ["bash", str(CHECKOUT / "stack" / "container-finish.sh")],
                {
                    **python,
                    **env_files.addresses(owner),
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                },
            ),
        ):  # fmt: skip
            done = subprocess.run(
                command, env={**base, **variables}, cwd="/", capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command[-1]}: {done.stdout}{done.stderr}"
    return servers


def test_what_runs_gets_in_and_changes_no_schema(ready: Stack, secrets: dict[str, str]) -> None:
    for who in ("collect_control", "collect_node"):
        dsn = env_files.addresses(places(ready, secrets, who))["COLLECT_POSTGRES_DSN"]
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("UPDATE collect.task SET progress_at = now()")
            connection.execute("CREATE TABLE landing.of_containers (n int)")
            connection.execute("CREATE INDEX ON landing.of_containers (n)")
            connection.execute("DROP TABLE landing.of_containers")
            for statement in (
                "CREATE TABLE collect.other ()",
                "ALTER TABLE collect.task ADD COLUMN other int",
            ):
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
    with psycopg.connect(dsn, autocommit=True) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute("DELETE FROM collect.task_log")


def test_a_worker_container_reaches_celerys_results_alone(ready: Stack, secrets: dict[str, str]) -> None:
    node = {
        "POSTGRES_AIRFLOW_USER": "collect_node",
        "POSTGRES_AIRFLOW_PASSWORD": secrets["POSTGRES_NODE_PASSWORD"],
    }
    url = env_files.database({**places(ready, secrets, "collect_node"), **node})
    with psycopg.connect(url.replace("+psycopg2", ""), autocommit=True) as connection:
        connection.execute("SELECT count(*) FROM celery_taskmeta")
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE other ()")


def test_rabbitmq_lets_both_in_to_their_queues(ready: Stack, secrets: dict[str, str]) -> None:
    for who, may in (("collect_control", True), ("collect_node", False)):
        given = places(ready, secrets, who)
        with closing(
            pika.BlockingConnection(pika.URLParameters(env_files.addresses(given)["COLLECT_AMQP_URL"]))
        ) as link:
            link.channel().basic_publish("collect.heartbeats", "", b"{}")
            if may:
                link.channel().queue_purge("collect.heartbeats")
            else:
                with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
                    link.channel().queue_purge("collect.heartbeats")
        with closing(
            pika.BlockingConnection(
                pika.URLParameters(env_files.celery(given)["AIRFLOW__CELERY__BROKER_URL"])
            )
        ) as link:
            for queue in ("default", "node.4f2a91"):
                link.channel().queue_declare(queue, durable=True)
            if not may:
                with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
                    link.channel().queue_declare("control", durable=True)
