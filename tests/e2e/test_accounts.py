"""Who may do what in Airflow's REST API: a person with `make env`, and nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from typing import Any

import httpx
import pytest

from stack import access, environment
from stack.layout import Layout
from stack.settings import Stack, load
from tests.e2e.running_stack import RunningStack
from tests.servers.paged import PagedServer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]


@pytest.fixture
def installed(stack: RunningStack) -> Stack:
    return load(Layout(home=stack.settings.home))


def log_in(stack: RunningStack, user: str, password: str) -> httpx.Response:
    url = f"{stack.settings.airflow_url}/auth/token"
    return httpx.post(url, json={"username": user, "password": password}, timeout=30, trust_env=False)


def call(stack: RunningStack, token: str, method: str, path: str, body: Any = None) -> httpx.Response:
    return httpx.request(
        method, f"{stack.settings.airflow_url}/api/v2{path}", json=body, timeout=30, trust_env=False,
        headers={"Authorization": f"Bearer {token}"},
    )  # fmt: skip


def test_what_make_env_gives_out_is_enough_for_what_people_do(
    stack: RunningStack, installed: Stack, server: PagedServer
) -> None:
    given = environment.person(installed)
    user, password = given["COLLECT_AIRFLOW_USER"], given["COLLECT_AIRFLOW_PASSWORD"]
    assert user == access.PERSON
    answer = log_in(stack, user, password)
    assert answer.status_code == 201, answer.text
    token = answer.json()["access_token"]
    run_id = f"person-{uuid.uuid4().hex}"
    conf = {"source": "example_offset", "force": True}
    body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
    started = call(stack, token, "POST", "/dags/collect_submit/dagRuns", body)
    assert started.status_code == 200, started.text
    assert started.json()["triggering_user_name"] == user, "the log tells people from the administrator"
    name = f"person_{uuid.uuid4().hex[:8]}"
    connection = {"connection_id": name, "conn_type": "http", "host": "192.0.2.1"}
    assert call(stack, token, "POST", "/connections", connection).status_code == 201
    assert call(stack, token, "DELETE", f"/connections/{name}").status_code == 204
    assert call(stack, token, "PATCH", "/dags/lane_bulk", {"is_paused": False}).status_code == 200


def test_a_person_runs_the_sweep(stack: RunningStack, installed: Stack) -> None:
    variables = {
        key: value for key, value in os.environ.items() if not key.startswith(("COLLECT_", "AIRFLOW_", "PG"))
    }
    command = [sys.executable, "-m", "collect_ops.cli", "sweep"]
    done = subprocess.run(
        command,
        env={**variables, **environment.person(installed), "COLLECT_EXAMPLES": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"outbox", "repair", "run_notes", "table_events", "ended_runs"} <= json.loads(done.stdout).keys()


def test_nodes_have_no_account(stack: RunningStack, installed: Stack) -> None:
    accounts = json.loads((stack.settings.home / "airflow" / "passwords.json").read_text())
    assert set(accounts) == {"admin", "viewer", "collect_service", access.PERSON}
    for password in ("", *accounts.values()):
        assert log_in(stack, "collect_node", password).status_code in (400, 401)
