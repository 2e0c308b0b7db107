"""The few calls of Airflow's REST API that the demonstration and the benchmarks make."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from demo.errors import AirflowRefused, AirflowUnreachable, NotInTime

Json = dict[str, Any]
#: How long an Airflow that does not answer is waited for, in seconds: its supervisor starts it again.
PATIENCE_S: Final = 60.0
HTTP_NOT_FOUND: Final = 404
HTTP_CONFLICT: Final = 409
HTTP_UNAUTHORIZED: Final = 401
FINAL_STATES: Final = frozenset({"success", "failed"})


@dataclass(slots=True, kw_only=True)
class AirflowApi:
    """Airflow's REST API at `base_url`, as `user`.

    Every method raises `AirflowRefused` when the answer is an error that it does not expect, and
    `AirflowUnreachable` when there is no answer for a minute.
    """

    base_url: str
    user: str
    password: str = field(repr=False)
    _token: str = field(default="", repr=False)

    def put_connection(self, connection_id: str, settings: Mapping[str, Any]) -> None:
        """Create the connection, or change it when it is there."""
        body = {"connection_id": connection_id, **settings}
        status, answer = self._send("POST", "/api/v2/connections", body)
        if status == HTTP_CONFLICT:
            status, answer = self._send("PATCH", f"/api/v2/connections/{connection_id}", body)
        _demand_success("connections", status, answer)

    def delete_connection(self, connection_id: str) -> None:
        """Remove the connection; nothing happens when it is not there."""
        status, answer = self._send("DELETE", f"/api/v2/connections/{connection_id}")
        if status != HTTP_NOT_FOUND:
            _demand_success(f"connections/{connection_id}", status, answer)

    def wait_for_dag(self, dag_id: str, timeout_s: float) -> None:
        """Return when Airflow knows the DAG: a new file is found by the next scan of its folder.

        Raises:
            NotInTime: it was not there after `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            status, answer = self._send("GET", f"/api/v2/dags/{dag_id}")
            if status != HTTP_NOT_FOUND:
                _demand_success(f"dags/{dag_id}", status, answer)
                return
            if time.monotonic() > deadline:
                raise NotInTime(what=f"DAG {dag_id} being parsed", seconds=timeout_s, last_seen="unknown DAG")
            time.sleep(0.5)

    def unpause(self, dag_id: str) -> None:
        """Let the DAG run."""
        self._expect("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Start a run now; returns its id.

        The id is ours, so that a call whose answer was lost can be repeated: a run that exists counts as started.
        """
        run_id = f"rest__{uuid.uuid4().hex}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        status, answer = self._send("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)
        if status != HTTP_CONFLICT:
            _demand_success(f"POST dags/{dag_id}/dagRuns", status, answer)
        return run_id

    def run(self, dag_id: str, run_id: str) -> Json:
        """The run as the API shows it (`state`, `start_date`, `end_date`, …)."""
        return self._expect("GET", f"/api/v2/dags/{dag_id}/dagRuns/{_quote(run_id)}")

    def wait_for_run(self, dag_id: str, run_id: str, timeout_s: float, poll_s: float = 0.1) -> Json:
        """The run once it is over.

        Raises:
            NotInTime: it still ran after `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while (run := self.run(dag_id, run_id))["state"] not in FINAL_STATES:
            if time.monotonic() > deadline:
                raise NotInTime(what=f"end of {dag_id} {run_id}", seconds=timeout_s, last_seen=run["state"])
            time.sleep(poll_s)
        return run

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """What the task returned, as JSON gives it; None when it returned nothing."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{_quote(run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        status, answer = self._send("GET", f"{path}?deserialize=true")
        if status == HTTP_NOT_FOUND:
            return None
        _demand_success(path, status, answer)
        value = answer["value"]
        return json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value

    def run_page(self, dag_id: str, run_id: str) -> str:
        """Where a person looks at the run."""
        return f"{self.base_url}/dags/{dag_id}/runs/{_quote(run_id)}"

    def delete_dag(self, dag_id: str) -> None:
        """Forget the DAG and its runs; nothing happens when it is not known."""
        status, answer = self._send("DELETE", f"/api/v2/dags/{dag_id}")
        if status != HTTP_NOT_FOUND:
            _demand_success(f"dags/{dag_id}", status, answer)

    def _expect(self, method: str, path: str, body: Json | None = None) -> Json:
        status, answer = self._send(method, path, body)
        _demand_success(f"{method} {path}", status, answer)
        return answer

    def _send(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
        if not self._token:
            self._token = self._log_in()
        status, answer = self._request(method, path, body)
        if status == HTTP_UNAUTHORIZED:  # the token has expired
            self._token = self._log_in()
            status, answer = self._request(method, path, body)
        return status, answer

    def _log_in(self) -> str:
        status, answer = self._request(
            "POST", "/auth/token", {"username": self.user, "password": self.password}
        )
        _demand_success("POST /auth/token", status, answer)
        return str(answer["access_token"])

    def _request(self, method: str, path: str, body: Json | None) -> tuple[int, Json]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        payload = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the stack's own address, http
            self.base_url + path, data=payload, headers=headers, method=method
        )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                    return answer.status, _parse(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, _parse(error.read())
            except (OSError, http.client.HTTPException) as error:
                # The server restarts, or did in the middle of an answer. Every call made here can be repeated.
                if time.monotonic() > deadline:
                    raise AirflowUnreachable(
                        url=self.base_url, seconds=PATIENCE_S, reason=str(error)
                    ) from error
                time.sleep(0.5)


def _parse(content: bytes) -> Json:
    """The answer's JSON object; what is not one comes back under `text`."""
    if not content:
        return {}
    try:
        parsed = json.loads(content)
    except ValueError:
        return {"text": content.decode(errors="replace")}
    return parsed if isinstance(parsed, dict) else {"value": parsed}


def _demand_success(request: str, status: int, answer: Json) -> None:
    if status >= 400:
        raise AirflowRefused(request=request, status=status, answer=json.dumps(answer))


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="")
