"""A real Compose parser takes the file when every secret is given, and refuses it for each that is not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.airflow_local_settings import forks
from stack import access, container_privileges, container_watch, credentials, env_files, workers
from stack.layout import CHECKOUT

EXAMPLE = CHECKOUT / "docker.env.example"
SECRETS = re.findall(r"^([A-Z_]+)=$", EXAMPLE.read_text(), flags=re.MULTILINE)


def compose_config(env_file: Path, *files: str) -> subprocess.CompletedProcess[str]:
    named = [word for file in files for word in ("-f", file)]
    return subprocess.run(
        ["docker-compose", *named, "--env-file", str(env_file), "config"],
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
        "database-init", "airflow-init", "api-server", "scheduler", "dag-processor", "triggerer", "worker", "control",
        "upgrade-finish",
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
    control = services["control"]["environment"]
    assert control["COLLECT_WORKER_QUEUES"] == environment["COLLECT_CONTROL_QUEUE"]
    assert control["AIRFLOW__CELERY__WORKER_CONCURRENCY"] == str(workers.control_tasks())
    assert "COLLECT_WORKER_QUEUES" not in environment
    assert services["airflow-init"]["depends_on"].keys() == {"database-init", "rabbitmq"}
    # What needs that no older process is left waits for every one that is new.
    finish = services["upgrade-finish"]["depends_on"]
    processes = {"api-server", "scheduler", "dag-processor", "triggerer", "worker", "control"}
    assert {name for name, how in finish.items() if how["condition"] == "service_healthy"} >= processes


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = compose_config(filled(tmp_path_factory.mktemp("compose") / "docker.env"))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return found


def test_every_container_is_confined(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"] > 0, name
        assert service["mem_limit"], name
        assert not service.get("privileged"), name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name
    # Their entry points would begin as root, and without capabilities could not become anybody else.
    users = {name: services[name]["user"] for name in ("postgres", "database-init", "redis", "rabbitmq")}
    assert users == {
        "postgres": "postgres",
        "database-init": "postgres",
        "redis": "redis",
        "rabbitmq": "rabbitmq",
    }
    assert {name for name, each in services.items() if each.get("read_only")} == {
        "postgres",
        "database-init",
        "redis",
    }


OWNERS = {"POSTGRES_SUPERUSER_PASSWORD", "POSTGRES_COLLECT_PASSWORD", "RABBITMQ_PASSWORD", "REDIS_PASSWORD"}
HELD = {
    "postgres": {"POSTGRES_SUPERUSER_PASSWORD"},
    "redis": {"REDIS_PASSWORD", "REDIS_CONTROL_PASSWORD", "REDIS_NODE_PASSWORD"},
    "rabbitmq": {"RABBITMQ_PASSWORD"},
    "database-init": {
        "POSTGRES_SUPERUSER_PASSWORD", "POSTGRES_AIRFLOW_PASSWORD", "POSTGRES_COLLECT_PASSWORD",
        "POSTGRES_CONTROL_PASSWORD", "POSTGRES_NODE_PASSWORD",
    },
    # The key that signs requests for task logs is shared by whoever shows and serves them.
    "worker": {
        "POSTGRES_NODE_PASSWORD", "REDIS_NODE_PASSWORD", "RABBITMQ_NODE_PASSWORD", "AIRFLOW_API_SECRET_KEY",
    },
}  # fmt: skip


def test_every_container_has_its_own_secrets_only(services: dict[str, Any]) -> None:
    def held(service: dict[str, Any]) -> set[str]:
        values = [str(value) for value in service["environment"].values()]
        return {name for name in SECRETS if f"value-of-{name}" in values}

    for name, expected in HELD.items():
        assert held(services[name]) == expected, name
    for name in services.keys() - HELD.keys() - {"airflow-init", "upgrade-finish"}:
        assert not held(services[name]) & OWNERS, name
    assert set(SECRETS) == set().union(*map(held, services.values()))


def test_what_is_declared_is_mounted_and_not_in_the_image(services: dict[str, Any]) -> None:
    for name in (
        "scheduler",
        "dag-processor",
        "triggerer",
        "api-server",
        "worker",
        "control",
        "airflow-init",
        "upgrade-finish",
    ):
        mounts = [str(each) for each in services[name]["volumes"]]
        for folder in ("dags", "include"):
            assert f"{CHECKOUT}/{folder}:/opt/airflow/{folder}:ro" in mounts, (name, folder)
    copied = [line for line in (CHECKOUT / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    assert not [line for line in copied if line.endswith(("dags", "include"))]
    # What is copied is sent to the builder.
    sent = set(re.findall(r"^!(.+)$", (CHECKOUT / ".dockerignore").read_text(), flags=re.MULTILINE))
    assert {line.split()[-2] for line in copied} == sent


def test_ports_are_published_on_this_machine_and_more_of_them_when_asked(
    services: dict[str, Any], tmp_path: Path
) -> None:
    def published(found: dict[str, Any]) -> dict[str, list[str]]:
        return {name: sorted(map(str, each["ports"])) for name, each in found.items() if "ports" in each}

    assert published(services) == {
        "api-server": ["127.0.0.1:8080:8080/tcp"],
        "rabbitmq": ["127.0.0.1:15672:15672/tcp"],
    }
    file = filled(tmp_path / "docker.env")
    file.write_text(file.read_text().replace("POSTGRES_PUBLISHED_PORT=5432", "POSTGRES_PUBLISHED_PORT=15432"))
    done = compose_config(file, "docker-compose.yaml", "docker-compose.ports.yaml")
    assert done.returncode == 0, done.stderr
    assert published(yaml.safe_load(done.stdout)["services"]) == {
        "api-server": ["127.0.0.1:8080:8080/tcp"],
        "postgres": ["127.0.0.1:15432:5432/tcp"],
        "rabbitmq": ["127.0.0.1:15672:15672/tcp", "127.0.0.1:5672:5672/tcp"],
    }


def test_rabbitmqs_minor_release_is_pinned(services: dict[str, Any]) -> None:
    assert re.fullmatch(r"rabbitmq:4\.\d+-management", services["rabbitmq"]["image"])


@pytest.mark.parametrize("secret", SECRETS)
def test_the_file_is_refused_without_a_secret(tmp_path: Path, secret: str) -> None:
    done = compose_config(filled(tmp_path / "docker.env", without=secret))
    assert done.returncode != 0
    assert secret in done.stderr
    assert "docker.env" in done.stderr


def test_no_secret_has_a_value_in_the_example() -> None:
    assert len(SECRETS) == 19
    assert "POSTGRES_SUPERUSER_PASSWORD" in SECRETS


def test_an_environment_file_is_filled_in_and_an_old_one_gets_what_is_new(tmp_path: Path) -> None:
    file = tmp_path / "docker.env"
    file.write_text("# mine\nREDIS_PASSWORD=kept\nAIRFLOW_JWT_SECRET=\nAIRFLOW_PUBLISHED_PORT=9000\n")
    command = [sys.executable, "-m", "stack.credentials", str(file)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    text = file.read_text()
    variables = env_files.parse(file)
    assert text.startswith("# mine\nREDIS_PASSWORD=kept\nAIRFLOW_JWT_SECRET=")
    assert variables["AIRFLOW_PUBLISHED_PORT"] == "9000"
    assert set(SECRETS) <= set(variables)
    assert len(variables["AIRFLOW_JWT_SECRET"]) >= 64
    assert len({variables[name] for name in SECRETS}) == len(SECRETS)
    assert file.stat().st_mode & 0o077 == 0
    assert compose_config(file).returncode == 0
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    assert file.read_text() == text


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


def installed(folder: Path, name: str, script: str) -> Path:
    """A command in a folder of its own, as on the image's PATH."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(script)
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("name", ["collect-ops", "airflow", "celery"])
def test_a_command_by_exec_knows_where_the_services_are(
    services: dict[str, Any], tmp_path: Path, name: str
) -> None:
    """`docker compose exec` gets the container's environment, and the entry point does not run."""
    installed(tmp_path / "local", name, '#!/bin/sh\necho "$0 $@"\nenv\n')
    own = tmp_path / "bin"
    own.mkdir()
    (own / name).symlink_to(CHECKOUT / "stack" / "container-exec.sh")
    environment = {key: str(value) for key, value in services["scheduler"]["environment"].items()}
    python = Path(sys.executable).parent
    environment |= {"PATH": f"{own}:{tmp_path / 'local'}:{python}:/usr/bin:/bin", "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [name, "one", "two words"], env=environment, cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{tmp_path / 'local' / name} one two words\n")
    got = dict(line.split("=", 1) for line in done.stdout.splitlines()[1:] if "=" in line)
    assert got["COLLECT_POSTGRES_DSN"].startswith("postgresql://collect_control:")
    assert got["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].endswith("@postgres:5432/airflow")
    assert got["AIRFLOW__CELERY__BROKER_URL"].endswith("@rabbitmq:5672/celery")
    assert "AIRFLOW_CONN_COLLECT_POSTGRES" in got


def test_the_image_puts_it_before_the_commands() -> None:
    text = (CHECKOUT / "Dockerfile").read_text()
    assert "ENV PATH=/opt/airflow/bin:$PATH" in text
    assert "../stack/container-exec.sh" in text


def entered(tmp_path: Path, services: dict[str, Any], service: str, *words: str) -> dict[str, str]:
    """The environment that the image's own entry point gets."""
    image = installed(tmp_path, "entrypoint", "#!/bin/sh\nenv -0\n")
    script = (CHECKOUT / "stack" / "container-entrypoint.sh").read_text()
    own = installed(tmp_path, "own.sh", script.replace("exec /entrypoint", f"exec {image}"))
    environment = {key: str(value) for key, value in services[service]["environment"].items()}
    environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"] = str(tmp_path / "passwords.json")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        [str(own), *words],
        env={**environment, "PATH": path, "PYTHONPATH": str(CHECKOUT), "HOSTNAME": "4f2a91"},
        cwd="/", capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


def test_the_api_server_container_gives_no_connection_away(services: dict[str, Any], tmp_path: Path) -> None:
    got = entered(tmp_path, services, "api-server", "api-server")
    assert not [key for key in got if key.startswith("AIRFLOW_CONN_")]
    assert got["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].endswith("@postgres:5432/airflow")
    passwords = json.loads((tmp_path / "passwords.json").read_text())
    users = env_files.parse(CHECKOUT / "config" / "airflow.env")["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"]
    assert set(passwords) == {user.partition(":")[0] for user in users.split(",")}
    assert all(value.startswith("value-of-") for value in passwords.values())


def test_a_worker_container_is_a_node(services: dict[str, Any], tmp_path: Path) -> None:
    # With queues that make it no node, no agent is started beside it.
    services = {
        "worker": {"environment": {**services["worker"]["environment"], "COLLECT_WORKER_QUEUES": "default"}}
    }
    got = entered(tmp_path, services, "worker", "celery", "worker")
    addresses = [
        value for key, value in got.items() if "://" in value and "collect_" in value and "@" in value
    ]
    assert addresses
    assert not [value for value in addresses if "collect_control" in value or "collect_ops:" in value]
    assert got["AIRFLOW__CELERY__RESULT_BACKEND"].startswith("db+postgresql://collect_node:")
    assert {key for key in got if key.startswith("AIRFLOW_CONN_")} == {
        f"AIRFLOW_CONN_COLLECT_{name}" for name in ("POSTGRES", "REDIS", "RABBITMQ")
    }


def test_a_worker_containers_health_is_its_workers_and_its_agents(tmp_path: Path) -> None:
    calls = tmp_path / "calls"

    def health(*failing: str, **variables: str) -> tuple[int, list[str]]:
        calls.write_text("")
        script = f'#!/bin/sh\necho "$@" >>{calls}\ncase "$2" in {"|".join(failing) or "-"}) exit 1;; esac\n'
        installed(tmp_path, "python", script)
        done = subprocess.run(
            ["bash", str(CHECKOUT / "stack" / "container-health.sh")],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOSTNAME": "4F2A91", **variables}, check=False,
        )  # fmt: skip
        return done.returncode, calls.read_text().splitlines()

    worker, agent = "-m stack.container_watch worker", "-m stack.container_agent 4f2a91"
    assert health() == (0, [worker, agent])
    assert health("stack.container_watch")[0] != 0
    assert health("stack.container_agent")[0] != 0
    assert health("stack.container_agent", COLLECT_WORKER_QUEUES="control") == (0, [worker])


def test_what_can_live_and_do_nothing_is_ended_by_its_health_check(services: dict[str, Any]) -> None:
    """Compose restarts what ends; the check must have the time to end it, and its looks must be a series."""
    jobs = {"scheduler": "SchedulerJob", "dag-processor": "DagProcessorJob", "triggerer": "TriggererJob"}
    for name, job in jobs.items():
        assert services[name]["healthcheck"]["test"] == ["CMD", "python", "-m", "stack.container_watch", job]
        assert seconds(services[name]["healthcheck"]["timeout"]) > container_watch.JOB_ENDS_WITHIN_S + 10
    for name in ("worker", "control"):
        assert services[name]["healthcheck"]["test"][-1].endswith("container-health.sh")
        assert seconds(services[name]["healthcheck"]["timeout"]) > container_watch.WORKER_ENDS_WITHIN_S + 10
        assert seconds(services[name]["stop_grace_period"]) < container_watch.IDLE_WORKER_S
    for name in (*jobs, "worker", "control"):
        assert services[name]["restart"] == "unless-stopped"
        assert seconds(services[name]["healthcheck"]["interval"]) == container_watch.LOOK_EVERY_S
        assert services[name].get("init") is not True, (
            "the image's entry point is the init: its child is ended"
        )


def test_an_old_container_does_not_execute_what_a_pull_brings(services: dict[str, Any]) -> None:
    """include/ is mounted: who executes our statements has read them at its start (see test_preloading)."""
    executing = {"worker", "control", "dag-processor", "triggerer"}
    for name in executing:
        command = services[name]["command"]
        words = ["airflow", *(command.split() if isinstance(command, str) else command)]
        assert forks(words, services[name]["environment"]["AIRFLOW__CORE__EXECUTOR"]) or "triggerer" in words


def test_an_image_can_be_built_before_the_checkout_changes() -> None:
    """docs/upgrading.md: of `git archive`, which holds what is committed."""
    sources = re.findall(
        r"^COPY(?: --\S+)* (.+) \S+$", (CHECKOUT / "Dockerfile").read_text(), flags=re.MULTILINE
    )
    named = [word for line in sources for word in line.split()]
    tracked = subprocess.run(
        ["git", "ls-files", *named], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert named
    assert all(any(path == name or path.startswith(f"{name}/") for path in tracked) for name in named)
    tag = yaml.safe_load((CHECKOUT / "docker-compose.yaml").read_text())["x-airflow"]["image"]
    assert f"docker build --tag {tag} -" in (CHECKOUT / "docs" / "upgrading.md").read_text()


def seconds(text: str) -> float:
    """Of a duration as Compose writes it: 1m30s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", text))


def test_redis_container_lets_in_whom_the_native_stack_does(tmp_path: Path) -> None:
    written = tmp_path / "redis.conf"
    installed(tmp_path, "redis-server", f'#!/bin/sh\ncp "$1" {written}\n')
    script = (
        (CHECKOUT / "stack" / "container-redis.sh")
        .read_text()
        .replace("/tmp/redis.conf", str(tmp_path / "own"))
    )
    secrets = {"REDIS_PASSWORD": "a", "REDIS_CONTROL_PASSWORD": "b", "REDIS_NODE_PASSWORD": "c"}
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **secrets}
    subprocess.run(["sh", "-c", script], env=environment, check=True)
    lines = written.read_text().splitlines()
    users = {words[1]: words[2:] for words in map(str.split, lines) if words[0] == "user"}
    control = access.redis_users({**credentials.generate(), **secrets})[0]
    assert users.pop("collect_control") == ["reset", "on", ">b", *control.rules]
    node = access.node_redis_user(credentials.generate(), "*", 0)
    ((name, rules),) = users.items()
    assert name == container_privileges.NODE
    assert rules[:3] == ["reset", "on", ">c"]
    assert sorted(rules[3:]) == sorted(node.rules)
    assert written.stat().st_mode & 0o077 == 0


def test_any_other_command_is_handed_over_as_it_is(tmp_path: Path) -> None:
    assert entrypoint(tmp_path, "scheduler")[0] == ["scheduler"]
