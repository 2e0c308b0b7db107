"""Files of KEY=VALUE lines, and the template of Airflow connections that both stacks fill in.

Standard library only: the containers of docker-compose.yaml run it too
(`python -m stack.env_files connections` prints shell exports).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from string import Template
from urllib.parse import quote

CONFIG = Path(__file__).resolve().parent.parent / "config"
LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
DATABASE_KEY = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
AIRFLOW_CONNECTION = "AIRFLOW_CONN_COLLECT_AIRFLOW"


def parse(path: Path) -> dict[str, str]:
    """The variables of an environment file, read as Docker does: no quotes, no expansion, `#` begins a line.

    Raises:
        ValueError: a line is neither a comment nor KEY=VALUE; the message names file and line.
    """
    variables: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{path.name}, line {number}: {line!r} is not KEY=VALUE")
        variables[match[1]] = match[2]
    return variables


def fill(value: object, places: Mapping[str, str]) -> object:
    """A JSON value with `${NAME}` in its strings replaced.

    Filled in after parsing, so that a quote in a password cannot break out of its string.

    Raises:
        KeyError: a name in the template has no value in `places`.
    """
    if isinstance(value, str):
        return Template(value).substitute(places)
    if isinstance(value, list):
        return [fill(item, places) for item in value]
    if isinstance(value, dict):
        return {key: fill(item, places) for key, item in value.items()}
    return value


def connections(places: Mapping[str, str], template: Path = CONFIG / "connections.env") -> dict[str, str]:
    """AIRFLOW_CONN_* variables in Airflow's JSON form; none to Airflow's REST API for who has no account there.

    Args:
        places: Values for the template's `${NAME}`s; an empty AIRFLOW_SERVICE_USER is no account.
        template: A file of AIRFLOW_CONN_NAME=JSON lines.
    """
    filled = {}
    for key, text in parse(template).items():
        if key == AIRFLOW_CONNECTION and not places["AIRFLOW_SERVICE_USER"]:
            continue
        connection = fill(json.loads(text), places)
        if isinstance(connection, dict) and str(connection.get("port", "")).isdecimal():
            connection["port"] = int(connection["port"])
        filled[key] = json.dumps(connection, separators=(",", ":"))
    return filled


def addresses(places: Mapping[str, str]) -> dict[str, str]:
    """The COLLECT_* addresses that programs outside Airflow read, from the same values as the connections."""

    def part(name: str) -> str:
        return quote(places[name], safe="")

    def server(prefix: str) -> str:
        return f"{places[f'{prefix}_HOST']}:{places[f'{prefix}_PORT']}"

    postgres_login = f"{part('POSTGRES_COLLECT_USER')}:{part('POSTGRES_COLLECT_PASSWORD')}"
    rabbitmq_login = f"{part('RABBITMQ_USER')}:{part('RABBITMQ_PASSWORD')}"
    monitor_login = f"{part('RABBITMQ_MONITOR_USER')}:{part('RABBITMQ_MONITOR_PASSWORD')}"
    redis_login = f"{part('REDIS_USER')}:{part('REDIS_PASSWORD')}"
    management = f"{places['RABBITMQ_HOST']}:{places['RABBITMQ_MANAGEMENT_PORT']}"
    return {
        "COLLECT_POSTGRES_DSN": f"postgresql://{postgres_login}@{server('POSTGRES')}/{part('POSTGRES_COLLECT_DB')}",
        "COLLECT_REDIS_URL": f"redis://{redis_login}@{server('REDIS')}/0",
        "COLLECT_AMQP_URL": f"amqp://{rabbitmq_login}@{server('RABBITMQ')}/{part('RABBITMQ_VHOST')}",
        "COLLECT_RABBITMQ_API_URL": f"http://{monitor_login}@{management}",
        "COLLECT_AIRFLOW_URL": f"http://{places['AIRFLOW_HOST']}:{places['AIRFLOW_PORT']}",
    }


def database(places: Mapping[str, str]) -> str:
    """SQLAlchemy address of Airflow's metadata database."""
    user, password, name = (
        quote(places[f"POSTGRES_AIRFLOW_{key}"], safe="") for key in ("USER", "PASSWORD", "DB")
    )
    server = f"{places['POSTGRES_HOST']}:{places['POSTGRES_PORT']}"
    return f"postgresql+psycopg2://{user}:{password}@{server}/{name}"


def celery(places: Mapping[str, str]) -> dict[str, str]:
    """Where CeleryExecutor keeps its messages (RabbitMQ, a virtual host of their own) and its results."""
    login = ":".join(quote(places[f"RABBITMQ_{key}"], safe="") for key in ("USER", "PASSWORD"))
    server = f"{places['RABBITMQ_HOST']}:{places['RABBITMQ_PORT']}"
    return {
        "AIRFLOW__CELERY__BROKER_URL": f"amqp://{login}@{server}/{quote(places['RABBITMQ_CELERY_VHOST'], safe='')}",
        "AIRFLOW__CELERY__RESULT_BACKEND": database(places).replace("postgresql+psycopg2", "db+postgresql"),
    }


def passwords(places: Mapping[str, str]) -> dict[str, str]:
    """Passwords of the UI's users by name, as Airflow's simple auth manager keeps them in its file."""
    return {
        "admin": places["AIRFLOW_ADMIN_PASSWORD"],
        "viewer": places["AIRFLOW_VIEWER_PASSWORD"],
        places["AIRFLOW_SERVICE_USER"]: places["AIRFLOW_SERVICE_PASSWORD"],
        "collect_person": places["AIRFLOW_PERSON_PASSWORD"],
    }


def exports(variables: Mapping[str, str]) -> str:
    """Shell lines that export `variables`, safe to `eval`."""
    return "\n".join(f"export {key}={shlex.quote(value)}" for key, value in variables.items())


def main(arguments: list[str]) -> int:
    """Print what a container needs, from its own environment.

    `connections` prints exports; `server` those of them that the api-server gets, which hands connections of its
    environment to any task; `passwords` prints the JSON of the UI's users.
    """
    if arguments in (["connections"], ["server"]):
        own = {} if arguments == ["server"] else {**connections(os.environ), **addresses(os.environ)}
        print(exports({**own, **celery(os.environ), DATABASE_KEY: database(os.environ)}))
    elif arguments == ["passwords"]:
        print(json.dumps(passwords(os.environ)))
    else:
        print("usage: python -m stack.env_files connections|server|passwords", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
