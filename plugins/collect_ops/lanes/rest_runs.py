"""Airflow's runs over its REST API: for whoever is not inside an Airflow task, and for what tasks may not ask."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from collect_ops.kernel.backends import SettingMissing
from collect_ops.lanes.runs import RunState, RunsUnavailable

_ENDED = frozenset({"success", "failed"})
#: Tokens live a day by default; a new one an hour costs nothing.
_TOKEN_LIFETIME_S = 3600.0


class RestRuns:
    """`Runs` over the REST API.

    Args:
        base_url: Airflow's address, without `/api/v2`.
        user: A user that may start runs.
        password: Their password.
    """

    def __init__(self, base_url: str, user: str, password: str) -> None:
        self._client = httpx.Client(base_url=base_url.rstrip("/"), timeout=10, trust_env=False)
        self._credentials = {"username": user, "password": password}
        self._token: tuple[str, float] | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> RestRuns:
        """As COLLECT_AIRFLOW_URL, COLLECT_AIRFLOW_USER and COLLECT_AIRFLOW_PASSWORD say.

        Raises:
            SettingMissing: One of them is not set.
        """
        names = ("COLLECT_AIRFLOW_URL", "COLLECT_AIRFLOW_USER", "COLLECT_AIRFLOW_PASSWORD")
        missing = tuple(name for name in names if not environment.get(name))
        if missing:
            raise SettingMissing(missing)
        return cls(*(environment[name] for name in names))

    def start(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        """See `Runs.start`."""
        body = {"dag_run_id": run_id, "conf": conf, "logical_date": None}
        answer = self.request("POST", f"/dags/{quote(dag_id)}/dagRuns", json=body)
        if answer.status_code not in (httpx.codes.OK, httpx.codes.CREATED, httpx.codes.CONFLICT):
            raise RunsUnavailable(
                f"Airflow did not start {dag_id} {run_id}: {answer.status_code} {answer.text[:300]}"
            )

    def state(self, dag_id: str, run_id: str) -> RunState:
        """See `Runs.state`."""
        answer = self.request("GET", f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return RunState.MISSING
        if answer.status_code != httpx.codes.OK:
            raise RunsUnavailable(
                f"Airflow did not tell {run_id}'s state: {answer.status_code} {answer.text[:300]}"
            )
        return RunState.ENDED if answer.json()["state"] in _ENDED else RunState.ACTIVE

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Call `/api/v2{path}`, signed in.

        Raises:
            RunsUnavailable: Airflow did not answer, or refused the credentials.
        """
        try:
            answer = self._send(method, path, **options)
            if answer.status_code == httpx.codes.UNAUTHORIZED:
                self._token = None
                answer = self._send(method, path, **options)
        except httpx.HTTPError as error:
            raise RunsUnavailable(f"Airflow's REST API did not answer: {error!r}") from error
        return answer

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._signed_in()}"}
        return self._client.request(method, f"/api/v2{path}", headers=headers, **options)

    def _signed_in(self) -> str:
        if self._token is None or time.monotonic() > self._token[1]:
            answer = self._client.post("/auth/token", json=self._credentials)
            if answer.status_code != httpx.codes.CREATED:
                raise RunsUnavailable(
                    f"Airflow refused user {self._credentials['username']}: {answer.status_code}"
                )
            self._token = (answer.json()["access_token"], time.monotonic() + _TOKEN_LIFETIME_S)
        return self._token[0]
