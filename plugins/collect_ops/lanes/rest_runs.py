"""Airflow over its REST API: for whoever is not inside an Airflow task, and for what tasks may not ask."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from collect_ops.kernel.backends import SettingMissing
from collect_ops.kernel.errors import Fault, Permanent, ValidationFailed
from collect_ops.lanes.runs import RunState, RunsUnavailable

_ENDED = frozenset({"success", "failed"})
#: States of a task instance that no executor has been given yet.
_NOT_SENT = frozenset({None, "scheduled", "deferred", "removed", "upstream_failed"})
#: The mapped task of collect DAGs.
GROUP_TASK_ID = "collect"
#: Tokens live a day by default; a new one an hour costs nothing.
_TOKEN_LIFETIME_S = 3600.0
_VARIABLES = ("COLLECT_AIRFLOW_URL", "COLLECT_AIRFLOW_USER", "COLLECT_AIRFLOW_PASSWORD")


class AirflowRefused(RunsUnavailable, Permanent):
    """Airflow answered that it will not.

    Args:
        action: What was asked.
        status: HTTP status.
        detail: What Airflow said.
    """

    def __init__(self, action: str, status: int, detail: str) -> None:
        self.status = status
        super().__init__(f"Airflow refused to {action}: HTTP {status}, {detail}")


class RestRuns:
    """Airflow's REST API, and `Runs` over it.

    Args:
        base_url: Airflow's address, without `/api/v2`.
        user: A user that may do what is asked.
        password: Their password.
    """

    def __init__(self, base_url: str, user: str, password: str) -> None:
        self._client = httpx.Client(base_url=base_url.rstrip("/"), timeout=30, trust_env=False)
        weakref.finalize(self, self._client.close)
        self._credentials = {"username": user, "password": password}
        self._token: tuple[str, float] | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> RestRuns:
        """As COLLECT_AIRFLOW_URL, COLLECT_AIRFLOW_USER and COLLECT_AIRFLOW_PASSWORD say.

        Raises:
            SettingMissing: One of them is not set.
            ValidationFailed: The URL is none.
        """
        missing = tuple(name for name in _VARIABLES if not environment.get(name))
        if missing:
            raise SettingMissing(missing)
        url, user, password = (environment[name] for name in _VARIABLES)
        if urlsplit(url).scheme not in ("http", "https"):
            fault = Fault(field=_VARIABLES[0], value=url, problem="must begin with http:// or https://")
            raise ValidationFailed("environment", (fault,))
        return cls(url, user, password)

    def start(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        """See `Runs.start`."""
        body = {"dag_run_id": run_id, "conf": conf, "logical_date": None}
        answer = self._request("POST", f"/dags/{quote(dag_id)}/dagRuns", body)
        if not answer.is_success and answer.status_code != httpx.codes.CONFLICT:
            raise RunsUnavailable(
                f"Airflow did not start {dag_id} {run_id}: {answer.status_code} {_detail(answer)}"
            )

    def state(self, dag_id: str, run_id: str) -> RunState:
        """See `Runs.state`."""
        answer = self._request("GET", f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return RunState.MISSING
        if not answer.is_success:
            raise RunsUnavailable(
                f"Airflow did not tell {run_id}'s state: {answer.status_code} {_detail(answer)}"
            )
        return RunState.ENDED if answer.json()["state"] in _ENDED else RunState.ACTIVE

    def group_states(self, dag_id: str, run_id: str) -> Mapping[int, str]:
        """See `Runs.group_states`."""
        path = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances"
        answer = self._request("GET", f"{path}?task_id={GROUP_TASK_ID}&limit=1000")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return {}
        if not answer.is_success:
            raise RunsUnavailable(
                f"Airflow did not tell the groups of {run_id}: {answer.status_code} {_detail(answer)}"
            )
        found = answer.json()["task_instances"]
        return {each["map_index"]: each["state"] for each in found if each["state"] not in _NOT_SENT}

    def end(self, dag_id: str, run_id: str) -> None:
        """See `Runs.end`."""
        path = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"
        answer = self._request("PATCH", path, {"state": "failed"})
        if not answer.is_success and answer.status_code != httpx.codes.NOT_FOUND:
            raise RunsUnavailable(f"Airflow did not end {run_id}: {answer.status_code} {_detail(answer)}")

    def set_paused(self, dag_id: str, *, paused: bool) -> None:
        """Pause or resume a DAG.

        Raises:
            AirflowRefused: It does not exist, or the user may not.
            RunsUnavailable: Airflow did not answer.
        """
        action = f"{'pause' if paused else 'resume'} DAG {dag_id}"
        self._demand("PATCH", f"/dags/{quote(dag_id, safe='')}", {"is_paused": paused}, action=action)

    def set_slots(self, pool: str, slots: int) -> None:
        """Give a pool so many slots; see `collect_ops.lanes.pools.Pools`.

        Raises:
            AirflowRefused: It does not exist, or the user may not.
            RunsUnavailable: Airflow did not answer.
        """
        body = {"pool": pool, "slots": slots, "include_deferred": False}
        self._demand(
            "PATCH", f"/pools/{quote(pool, safe='')}", body, action=f"give pool {pool} {slots} slots"
        )

    def connection(self, connection_id: str) -> Mapping[str, Any]:
        """A connection in the fields of Airflow's JSON form, less its password, which Airflow does not tell.

        Raises:
            AirflowRefused: It does not exist, or the user may not.
            RunsUnavailable: Airflow did not answer.
        """
        path = f"/connections/{quote(connection_id, safe='')}"
        answer = self._demand("GET", path, action=f"show connection {connection_id}").json()
        names = ("conn_type", "host", "schema", "port", "login", "password", "extra")
        return {name: answer.get(name) for name in names}

    def _demand(self, method: str, path: str, body: object = None, *, action: str) -> httpx.Response:
        answer = self._request(method, path, body)
        if not answer.is_success:
            raise AirflowRefused(action, answer.status_code, _detail(answer))
        return answer

    def _request(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Call `/api/v2{path}`, signed in; once more with a new token when the old one is refused."""
        try:
            answer = self._send(method, path, body)
            if answer.status_code == httpx.codes.UNAUTHORIZED:
                self._token = None
                answer = self._send(method, path, body)
        except httpx.HTTPError as error:
            raise RunsUnavailable(
                f"Airflow's REST API at {self._client.base_url} did not answer: {error!r}; "
                "is the stack up (make status)?"
            ) from error
        return answer

    def _send(self, method: str, path: str, body: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._signed_in()}"}
        return self._client.request(method, f"/api/v2{path}", headers=headers, json=body)

    def _signed_in(self) -> str:
        if self._token is None or time.monotonic() > self._token[1]:
            answer = self._client.post("/auth/token", json=self._credentials)
            if not answer.is_success:
                action = f"log in {self._credentials['username']}"
                raise AirflowRefused(action, answer.status_code, _detail(answer))
            self._token = (answer.json()["access_token"], time.monotonic() + _TOKEN_LIFETIME_S)
        return self._token[0]


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
