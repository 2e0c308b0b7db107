"""The running stack as the tests use it: its REST API, its services, its processes."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psycopg
import pytest
import redis
from psycopg.rows import dict_row

from demo.airflow_api import AirflowApi
from demo.settings import NEEDED, DemoSettings
from tests.kept_python import KEPT

CHECKOUT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def wait_for(
    what: str, look: Callable[[], T | None], timeout_s: float, *, poll_s: float = 0.2, patient: bool = False
) -> T:
    """What `look` finds, as soon as it is something true.

    Args:
        what: For the failure's message.
        look: Returns what is waited for, or something false.
        timeout_s: Seconds until the test fails.
        poll_s: Seconds between two looks.
        patient: Whether a service that does not answer is one more reason to look again.
    """
    away = (psycopg.OperationalError, redis.RedisError, httpx.TransportError) if patient else ()
    deadline = time.monotonic() + timeout_s
    seen: object = None
    while time.monotonic() < deadline:
        try:
            found = look()
        except away as error:
            seen = error
        else:
            if found:
                return found
            seen = found
        time.sleep(poll_s)
    return pytest.fail(f"{what} did not come about within {timeout_s:.0f} s; last seen: {seen!r}")


@dataclass(slots=True, kw_only=True)
class RunningStack:
    """The stack that `stack env` describes.

    Args:
        settings: Addresses and credentials.
        airflow: The REST calls that the demo makes.
    """

    settings: DemoSettings
    airflow: AirflowApi
    _client: httpx.Client = field(init=False)
    _tokens: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._client = httpx.Client(base_url=self.settings.airflow_url, timeout=30, trust_env=False)

    @classmethod
    def from_environment(cls) -> RunningStack:
        """Fails when the environment does not name a running stack: nothing here is skipped."""
        missing = [name for name in NEEDED if not os.environ.get(name)]
        if missing:
            pytest.fail(
                f"not set: {', '.join(missing)}. These tests run on a stack: make test starts one; by hand: "
                'make up && eval "$(make -s env ALL=1)"'
            )
        settings = DemoSettings.load()
        return cls(settings=settings, airflow=settings.airflow())

    def close(self) -> None:
        """Close what is open."""
        self._client.close()

    # Airflow's REST API

    def rest(self, method: str, path: str, *, body: object = None, user: str = "admin") -> httpx.Response:
        """Call `/api/v2{path}`; errors come back as they are."""
        if user not in self._tokens:
            self._tokens[user] = self._log_in(user)
        headers = {"Authorization": f"Bearer {self._tokens[user]}"}
        return self._client.request(method, f"/api/v2{path}", json=body, headers=headers)

    def _log_in(self, user: str) -> str:
        password = self.settings.airflow_password
        if user != self.settings.airflow_user:
            password = json.loads((self.settings.home / "airflow/passwords.json").read_text())[user]
        answer = self._client.post("/auth/token", json={"username": user, "password": password})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["access_token"])

    def trigger(self, dag_id: str, conf: Mapping[str, Any], *, run_id: str | None = None) -> httpx.Response:
        """Ask for a run, as anybody would."""
        run_id = run_id or f"rest__{uuid.uuid4().hex}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        return self.rest("POST", f"/dags/{dag_id}/dagRuns", body=body)

    @contextmanager
    def paused(self, *dag_ids: str) -> Iterator[None]:
        """DAGs that start no runs until the block ends."""
        for dag_id in dag_ids:
            self._pause(dag_id, is_paused=True)
        try:
            yield
        finally:
            for dag_id in dag_ids:
                self._pause(dag_id, is_paused=False)

    def _pause(self, dag_id: str, *, is_paused: bool) -> None:
        answer = self.rest("PATCH", f"/dags/{dag_id}", body={"is_paused": is_paused})
        assert answer.status_code == 200, answer.text

    def run_ended(self, dag_id: str, run_id: str, timeout_s: float = 60) -> dict[str, Any]:
        """The run once it is over."""
        return self.airflow.wait_for_run(dag_id, run_id, timeout_s)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The run's task instances, mapped ones included."""
        answer = self.rest("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=200")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["task_instances"]
        return found

    def log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1) -> str:
        """A task instance's log, as text."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        answer = self.rest("GET", f"{path}?map_index={map_index}&full_content=true")
        assert answer.status_code == 200, answer.text
        return "\n".join(json.dumps(line) for line in answer.json()["content"])

    def submit(self, conf: Mapping[str, Any], timeout_s: float = 60) -> dict[str, Any]:
        """Submit through `collect_submit`; returns its answer, with the run's id as `run_id`."""
        answer = self.trigger("collect_submit", conf)
        assert answer.status_code == 200, answer.text
        run_id = answer.json()["dag_run_id"]
        run = self.run_ended("collect_submit", run_id, timeout_s)
        assert run["state"] == "success", self.log("collect_submit", run_id, "submit")
        return {**self.airflow.xcom("collect_submit", run_id, "submit"), "run_id": run_id}

    # Services

    def rows(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """What a statement finds in the collect_ops database."""
        with psycopg.connect(self.settings.postgres_dsn, row_factory=dict_row, autocommit=True) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def execute(self, statement: str, *values: object) -> None:
        """Execute a statement there."""
        with psycopg.connect(self.settings.postgres_dsn, autocommit=True) as connection:
            connection.execute(statement.encode(), values)

    def task(self, task_id: int) -> dict[str, Any]:
        """A collect task's row."""
        (row,) = self.rows("SELECT * FROM collect.task WHERE id = %s", task_id)
        return row

    def task_ended(self, task_id: int, timeout_s: float = 60) -> dict[str, Any]:
        """A collect task once it is over."""
        ended = "SELECT * FROM collect.task WHERE id = %s AND finished_at IS NOT NULL"
        return wait_for(f"end of task {task_id}", lambda: self.rows(ended, task_id), timeout_s)[0]

    def redis(self) -> redis.Redis:
        """A client of the Redis database that the stack uses."""
        return redis.Redis.from_url(self.settings.redis_url, socket_timeout=5)

    def leases(self) -> list[str]:
        """The leases that somebody holds."""
        with self.redis() as client:
            return sorted(key.decode() for key in client.scan_iter("collect:lease:*"))

    def open_groups(self) -> list[dict[str, Any]]:
        """The shard groups that hold a slot."""
        return self.rows("SELECT run_id, group_no, label FROM collect.shard_group WHERE status = 'OPEN'")

    # Processes

    def services(self) -> dict[str, dict[str, Any]]:
        """What `stack status` says, by service."""
        done = self.command("stack", "status", "--json")
        return {line["service"]: line for line in json.loads(done.stdout)["services"]}

    def wait_until_healthy(self, timeout_s: float = 120) -> None:
        """Return when every service is healthy."""
        unhealthy: Callable[[], list[str]] = lambda: [  # noqa: E731
            f"{name}: {line['state']}" for name, line in self.services().items() if line["state"] != "healthy"
        ]
        wait_for("a healthy stack", lambda: not unhealthy(), timeout_s, poll_s=1)

    def command(
        self, module: str, *arguments: str, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m MODULE …` in the checkout, on this stack."""
        paths = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "plugins")])
        environment = {
            **os.environ,
            "PYTHONPATH": paths,
            "STACK_HOME": str(self.settings.home),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }
        return KEPT.run(module, *arguments, environment=environment, timeout_s=timeout_s)
