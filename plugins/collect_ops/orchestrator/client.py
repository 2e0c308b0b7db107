"""Airflow's REST API: signing in, sending, and what its errors mean here."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlsplit

import httpx

from collect_ops.kernel.backends import SettingMissing
from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.orchestrator.errors import AirflowRefused, AirflowUnavailable

#: Tokens live a day by default; a new one an hour costs nothing.
_TOKEN_LIFETIME_S = 3600.0
_VARIABLES = ("COLLECT_AIRFLOW_URL", "COLLECT_AIRFLOW_USER", "COLLECT_AIRFLOW_PASSWORD")
#: The least that a request is given when the time is nearly up: less never succeeds.
_LEAST_S = 0.05


class AirflowClient:
    """Airflow's REST API as one user.

    Args:
        base_url: Airflow's address, without `/api/v2`.
        user: A user that may do what is asked.
        password: Their password.
        limit_s: Seconds that all requests together may take, counted from now; None gives each of them half a minute.
    """

    def __init__(self, base_url: str, user: str, password: str, *, limit_s: float | None = None) -> None:
        self._client = httpx.Client(base_url=base_url.rstrip("/"), timeout=30, trust_env=False)
        weakref.finalize(self, self._client.close)
        self._credentials = {"username": user, "password": password}
        self._token: tuple[str, float] | None = None
        self._until = None if limit_s is None else time.monotonic() + limit_s

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
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

    def demand(self, method: str, path: str, body: object = None, *, action: str) -> httpx.Response:
        """Call `/api/v2{path}`; the answer is a success.

        Args:
            method: HTTP method.
            path: Below `/api/v2`, quoted.
            body: Sent as JSON.
            action: What is asked, for the error: `pause DAG lane_bulk`.

        Raises:
            AirflowRefused: It is not.
            AirflowUnavailable: Airflow did not answer in time.
        """
        answer = self.request(method, path, body)
        if not answer.is_success:
            raise AirflowRefused(action, answer.status_code, detail_of(answer))
        return answer

    def request(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Call `/api/v2{path}`, signed in; once more with a new token when the old one is refused.

        Raises:
            AirflowUnavailable: Airflow did not answer in time, or did not let us in.
        """
        try:
            answer = self._send(method, path, body)
            if answer.status_code == httpx.codes.UNAUTHORIZED:
                self._token = None
                answer = self._send(method, path, body)
        except httpx.HTTPError as error:
            raise AirflowUnavailable(
                f"Airflow's REST API at {self._client.base_url} did not answer: {error!r}; "
                "is the stack up (make status)?"
            ) from error
        return answer

    def _send(self, method: str, path: str, body: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._signed_in()}"}
        return self._client.request(
            method, f"/api/v2{path}", headers=headers, json=body, timeout=self._timeout()
        )

    def _signed_in(self) -> str:
        if self._token is None or time.monotonic() > self._token[1]:
            answer = self._client.post("/auth/token", json=self._credentials, timeout=self._timeout())
            if not answer.is_success:
                action = f"log in {self._credentials['username']}"
                raise AirflowRefused(action, answer.status_code, detail_of(answer))
            self._token = (answer.json()["access_token"], time.monotonic() + _TOKEN_LIFETIME_S)
        return self._token[0]

    def _timeout(self) -> httpx.Timeout:
        """What is left for one request: a quarter of it to connect, the rest to wait for the answer."""
        if self._until is None:
            return httpx.Timeout(30)
        left = self._until - time.monotonic()
        if left <= 0:
            raise AirflowUnavailable(
                f"Airflow's REST API at {self._client.base_url} took all the time there was"
            )
        return httpx.Timeout(max(_LEAST_S, left / 4), read=max(_LEAST_S, left * 3 / 4))


def detail_of(answer: httpx.Response) -> str:
    """What an answer says went wrong."""
    try:
        return str(answer.json()["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
