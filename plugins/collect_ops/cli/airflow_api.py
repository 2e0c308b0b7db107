"""What commands ask of Airflow: its REST API, as the user of the environment."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from collect_ops.kernel.errors import CollectOpsError, Fault, Permanent, Transient, ValidationFailed

_TIMEOUT_S = 30
_VARIABLES = ("COLLECT_AIRFLOW_URL", "COLLECT_AIRFLOW_USER", "COLLECT_AIRFLOW_PASSWORD")


class AirflowUnavailable(CollectOpsError, Transient):
    """Airflow's API server does not answer."""

    def __init__(self, url: str, reason: object) -> None:
        super().__init__(f"Airflow at {url} does not answer: {reason}; is the stack up (make status)?")


class AirflowRefused(CollectOpsError, Permanent):
    """Airflow answered that it will not.

    Args:
        action: What was asked.
        status: HTTP status.
        detail: What Airflow said.
    """

    def __init__(self, action: str, status: int, detail: str) -> None:
        self.status = status
        super().__init__(f"Airflow refused to {action}: HTTP {status}, {detail}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AirflowApi:
    """Airflow's REST API.

    Args:
        url: Of the API server.
        user: Name to log in with.
        password: Its password.
    """

    url: str
    user: str
    password: str = field(repr=False)

    @classmethod
    def from_environment(cls) -> AirflowApi:
        """As COLLECT_AIRFLOW_URL, COLLECT_AIRFLOW_USER and COLLECT_AIRFLOW_PASSWORD say.

        Raises:
            ValidationFailed: One of them is not set, or the URL is none.
        """
        faults = [
            Fault(field=name, value=None, problem="is not set; `make env` prints it")
            for name in _VARIABLES
            if not os.environ.get(name)
        ]
        url = os.environ.get(_VARIABLES[0], "")
        if url and urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            faults.append(
                Fault(field=_VARIABLES[0], value=url, problem="must begin with http:// or https://")
            )
        if faults:
            raise ValidationFailed("environment", faults)
        return cls(url=url.rstrip("/"), user=os.environ[_VARIABLES[1]], password=os.environ[_VARIABLES[2]])

    def set_paused(self, dag_id: str, *, paused: bool) -> None:
        """Pause or resume a DAG.

        Raises:
            AirflowRefused, AirflowUnavailable
        """
        verb = "pause" if paused else "resume"
        path = f"/api/v2/dags/{urllib.parse.quote(dag_id, safe='')}"
        self._call("PATCH", path, {"is_paused": paused}, action=f"{verb} DAG {dag_id}")

    def connection(self, connection_id: str) -> Mapping[str, Any]:
        """A connection in the fields of Airflow's JSON form, less its password, which Airflow does not tell.

        Raises:
            AirflowRefused, AirflowUnavailable
        """
        path = f"/api/v2/connections/{urllib.parse.quote(connection_id, safe='')}"
        answer = self._call("GET", path, None, action=f"show connection {connection_id}")
        return {
            name: answer.get(name)
            for name in ("conn_type", "host", "schema", "port", "login", "password", "extra")
        }

    def _call(self, method: str, path: str, body: object, *, action: str) -> Mapping[str, Any]:
        credentials = {"username": self.user, "password": self.password}
        token = self._send("POST", "/auth/token", credentials, {}, f"log in {self.user}")["access_token"]
        return self._send(method, path, body, {"Authorization": f"Bearer {token}"}, action)

    def _send(
        self, method: str, path: str, body: object, headers: Mapping[str, str], action: str
    ) -> Mapping[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked when the URL is read
            f"{self.url}{path}",
            data=data,
            method=method,
            headers={"Content-Type": "application/json", **headers},
        )
        # The system's proxy settings are not for a server on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_TIMEOUT_S) as response:
                answer: Mapping[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise AirflowRefused(action, error.code, _detail(error.read())) from error
        except (OSError, ValueError) as error:
            raise AirflowUnavailable(self.url, getattr(error, "reason", error)) from error
        return answer


def _detail(content: bytes) -> str:
    try:
        detail = json.loads(content)["detail"]
    except (ValueError, KeyError, TypeError):
        return content.decode(errors="replace")[:200]
    return detail if isinstance(detail, str) else json.dumps(detail)
