"""A source's connection, with its password, as whoever runs the command may have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collect_ops.kernel.errors import CollectOpsError, Fault, Transient, ValidationFailed
from collect_ops.sources.model import AuthType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from collect_ops.collectors.endpoint import Endpoint
    from collect_ops.sources.model import Source

_REDACTED = "***"
_CHECKOUT = Path(__file__).resolve().parents[3]
_LIMIT_S = 60


class ConnectionUnreadable(CollectOpsError, Transient):
    """What knows the connections could not be asked."""

    def __init__(self, connection: str, problem: str) -> None:
        self.connection, self.problem = connection, problem
        super().__init__(f"connection {connection} could not be read: {problem}")


def endpoint_of(source: Source) -> Endpoint:
    """Where the source's requests go.

    `AIRFLOW_CONN_<CONNECTION>` (Airflow's JSON form) wins. Then who may read the secrets of the stack on this machine
    asks the stack; who has Airflow's own settings in the environment, as in a container, asks Airflow; anybody else its
    REST API, which tells everything but secrets: enough for a source without authentication.

    Raises:
        ValidationFailed: None of them has it, or it holds secrets that only Airflow knows.
        ConnectionUnreadable: The one that has it did not answer.
    """
    from collect_ops.collectors.endpoint import Endpoint

    name = source.connection
    text = os.environ.get(f"AIRFLOW_CONN_{name.upper()}")
    if text is not None:
        return Endpoint.from_connection_json(text, connection=name)
    if _stack_secrets():
        return Endpoint.from_mapping(_defined(_ask_stack(name), name), connection=name)
    if os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"):
        return Endpoint.from_mapping(_defined(_ask_airflow(name), name), connection=name)
    return Endpoint.from_mapping(_ask_rest(source), connection=name)


def _defined(fields: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    if fields is None:
        problem = f"is not defined: collect-ops connection add {name} --host https://…"
        raise ValidationFailed("connection", [Fault(field="connection", value=name, problem=problem)])
    return fields


def _stack_secrets() -> bool:
    """Whether this is a checkout's stack, as `make env` says, whose secrets are this user's to read."""
    home = os.environ.get("COLLECT_OPS_STACK")
    return (
        home is not None
        and (_CHECKOUT / "stack" / "airflow_connections.py").exists()
        and os.access(Path(home) / "secrets.env", os.R_OK)
    )


def _ask_stack(name: str) -> Mapping[str, Any] | None:
    environment = {**os.environ, "STACK_HOME": os.environ["COLLECT_OPS_STACK"]}
    fields: Mapping[str, Any] | None = json.loads(
        _output(name, [sys.executable, "-m", "stack", "connection", name], environment)
    )
    return fields


def _ask_airflow(name: str) -> Mapping[str, Any] | None:
    airflow = str(Path(sys.executable).parent / "airflow")
    done = _run(name, [airflow, "connections", "get", name, "-o", "json"], os.environ)
    if done.returncode and "not found" in done.stderr.casefold():
        return None
    (found,) = json.loads(_checked(name, done))
    names = ("conn_type", "host", "schema", "login", "password")
    port = found.get("port")
    return {
        **{field: found.get(field) for field in names},
        "port": int(port) if str(port).isdecimal() else None,
        "extra": found.get("extra_dejson"),
    }


def _output(name: str, command: Sequence[str], environment: Mapping[str, str]) -> str:
    return _checked(name, _run(name, command, environment))


def _run(
    name: str, command: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 -- programs of this environment, a name as one argument
            command,
            cwd=_CHECKOUT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConnectionUnreadable(name, f"no answer within {_LIMIT_S} s") from error


def _checked(name: str, done: subprocess.CompletedProcess[str]) -> str:
    """What a command has printed; of one that failed the last line of its errors, which holds no secrets."""
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ConnectionUnreadable(name, lines[-1])
    return done.stdout


def _ask_rest(source: Source) -> Mapping[str, Any]:
    from collect_ops.lanes.rest_runs import RestRuns

    name = source.connection
    variable = f"AIRFLOW_CONN_{name.upper()}"
    if not os.environ.get("COLLECT_AIRFLOW_URL"):
        problem = (
            f"is not set. Set it to the connection as JSON ({_example(source)}), "
            "or let Airflow's REST API be asked: "
            'eval "$(make -s env)"'
        )
        raise ValidationFailed("environment", [Fault(field=variable, value=None, problem=problem)])
    fields = dict(RestRuns.from_environment().connection(name))
    if source.auth.type is not AuthType.NONE or _REDACTED in str(fields.get("extra")):
        problem = (
            f"is not set, and connection {name} holds secrets that the request needs "
            f"(auth.type {source.auth.type}), which Airflow's REST API does not tell. "
            f"Set the variable to the connection as JSON: {_example(source)}"
        )
        raise ValidationFailed("environment", [Fault(field=variable, value=None, problem=problem)])
    return fields | {"password": None}


def _example(source: Source) -> str:
    fields: dict[str, Any] = {"conn_type": "http", "host": "https://api.example.com"}
    if source.auth.type is not AuthType.NONE:
        fields |= {"login": "…"} if source.auth.type in (AuthType.BASIC, AuthType.OAUTH2) else {}
        fields |= {"password": "…"}
    if source.auth.type is AuthType.OAUTH2 and source.auth.token_url is None:
        fields |= {"extra": {"token_url": "https://login.example.com/oauth/token"}}
    return json.dumps(fields, ensure_ascii=False)
