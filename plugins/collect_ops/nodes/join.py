"""Joining a node on another machine: the file that tells it where the services are, and whether they can be reached.

The file is a list of KEY=VALUE lines, the environment of a worker: addresses, passwords and settings. Who has it has
the stack.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

from collect_ops.broker.connection import BrokerUnavailable, connect_blocking
from collect_ops.coordination.client import RedisError
from collect_ops.coordination.client import connect as connect_redis
from collect_ops.kernel.backends import SettingMissing
from collect_ops.kernel.errors import CollectOpsError, Fault, Permanent, Transient, ValidationFailed
from collect_ops.storage import DatabaseUnavailable, connect

#: What a join file may set: nothing that changes how programs are found or loaded.
ALLOWED = re.compile(r"(AIRFLOW__[A-Z0-9_]+|AIRFLOW_CONN_[A-Z0-9_]+|COLLECT_[A-Z0-9_]+)")
NEEDED = (
    "AIRFLOW__CELERY__BROKER_URL",
    "AIRFLOW__CELERY__RESULT_BACKEND",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "COLLECT_AMQP_URL",
    "COLLECT_JOIN_AIRFLOW_VERSION",
    "COLLECT_JOIN_VERSION",
    "COLLECT_POSTGRES_DSN",
    "COLLECT_REDIS_URL",
)
TIMEOUT_S = 5.0


class ServicesUnreachable(CollectOpsError, Transient):
    """Some of the services cannot be reached from here."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        lines = "".join(f"\n  - {service}: {problem}" for service, problem in problems.items())
        super().__init__(f"not to be reached from this machine:{lines}")


class VersionMismatch(CollectOpsError, Permanent):
    """This machine has another version than the stack that it would join."""

    def __init__(self, what: str, here: str, there: str) -> None:
        super().__init__(
            f"{what} is {here} on this machine and {there} in the stack; a node must have the stack's version: "
            "check out the same commit there and run `make bootstrap`"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinFile:
    """What a join file says.

    Args:
        variables: A worker's environment.
    """

    variables: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> JoinFile:
        """Read a join file.

        Raises:
            ValidationFailed: With every fault of it.
        """
        variables, faults = {}, []
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            key, separator, value = line.partition("=")
            if not separator or not ALLOWED.fullmatch(key):
                # No value: it may be a secret.
                problem = "is not KEY=VALUE with a key of Airflow (AIRFLOW__…, AIRFLOW_CONN_…) or COLLECT_…"
                faults.append(Fault(field=f"line {number}", value=None, problem=problem))
            else:
                variables[key] = value
        faults += [
            Fault(field=name, value=None, problem="is missing") for name in NEEDED if not variables.get(name)
        ]
        if faults:
            raise ValidationFailed("join file", faults)
        return cls(variables=variables)

    def check_versions(self) -> None:
        """Whether collect-ops and Airflow are here what they were where the file was made.

        Raises:
            VersionMismatch: One of them is not.
        """
        for package, name in (
            ("collect-ops", "COLLECT_JOIN_VERSION"),
            ("apache-airflow-core", "COLLECT_JOIN_AIRFLOW_VERSION"),
        ):
            _compare(package, installed(package), self.variables[name])


def installed(package: str) -> str:
    """The version of an installed package; `none` when it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _compare(what: str, here: str, there: str) -> None:
    if here != there:
        raise VersionMismatch(what, here, there)


def check_services(variables: Mapping[str, str]) -> None:
    """Ask each service that a worker needs, with its credentials.

    Args:
        variables: A worker's environment.

    Raises:
        ServicesUnreachable: With each that does not answer, and why.
        VersionMismatch: Airflow answers, and is another version by now.
        SettingMissing: The environment does not say where they are.
    """
    missing = tuple(name for name in (*SERVICES, API_URL) if not variables.get(name))
    if missing:
        raise SettingMissing(missing)
    problems = {}
    for name, (service, check) in SERVICES.items():
        problem = _problem(lambda check=check, url=variables[name]: check(url))  # type: ignore[misc]
        if problem is not None:
            problems[_named(service, variables[name])] = problem
    api_url = variables[API_URL].partition("/execution")[0]
    found: list[str] = []
    problem = _problem(lambda: found.append(_airflow_version(api_url)))
    if problem is not None:
        problems[_named("Airflow", api_url)] = problem
    if problems:
        raise ServicesUnreachable(problems)
    _compare("apache-airflow-core", installed("apache-airflow-core"), found[0])


def _named(service: str, url: str) -> str:
    parts = urlsplit(url)
    return f"{service} at {parts.hostname}:{parts.port}{parts.path if 'RabbitMQ' in service else ''}"


def _problem(check: Callable[[], object]) -> str | None:
    try:
        check()
    except (DatabaseUnavailable, RedisError, BrokerUnavailable, OSError, ValueError, KeyError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _postgres(dsn: str) -> None:
    with connect(dsn, application_name="collect-ops join") as connection:
        connection.execute("SELECT 1")


def _redis(url: str) -> None:
    with connect_redis(url) as client:
        client.ping()


def _rabbitmq(url: str) -> None:
    connect_blocking(url).close()


#: What a worker needs, by the variable that says where it is. Celery's results and Airflow's metadata are on the same
#: PostgreSQL.
API_URL = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"
SERVICES: Mapping[str, tuple[str, Callable[[str], None]]] = {
    "COLLECT_POSTGRES_DSN": ("PostgreSQL", _postgres),
    "COLLECT_REDIS_URL": ("Redis", _redis),
    "COLLECT_AMQP_URL": ("RabbitMQ", _rabbitmq),
    "AIRFLOW__CELERY__BROKER_URL": ("RabbitMQ for Celery", _rabbitmq),
}


def _airflow_version(api_url: str) -> str:
    request = urllib.request.Request(f"{api_url}/api/v2/version")  # noqa: S310 (the stack's own address)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=TIMEOUT_S) as answer:
        return str(json.load(answer)["version"])
