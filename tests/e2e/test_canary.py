"""No secret of a connection is written anywhere by a whole stack, whatever a server does with what it was sent.

Both databases, Redis, the queues, every log file (task logs included), XComs, rendered fields, and what the REST API
shows a viewer; for each kind of authentication, each way to repeat a secret, and every end: success, retry, death.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from collect_ops.admission.service import AdmissionService
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rest_runs import RestRuns
from collect_ops.lanes.rules import lane_rules
from collect_ops.sources.file_defaults import with_file_defaults
from collect_ops.sources.model import Source
from tests.canaries import Canary, escaped
from tests.e2e.running_stack import RunningStack, wait_for
from tests.factories import source, submission
from tests.plugins.integration.canary.test_canary import DECLARED, RETRIES
from tests.plugins.integration.canary.written import in_postgres, in_rabbitmq, in_redis
from tests.servers.echo import GOOD, WAYS, EchoServer

pytestmark = [pytest.mark.stack, pytest.mark.long, pytest.mark.timeout(3600)]

AUTHS: dict[str, dict[str, Any]] = {
    "basic": {"type": "basic"},
    "bearer": {"type": "bearer"},
    "key_in_header": {"type": "api_key", "location": "header", "name": "X-Api-Key"},
    "key_in_query": {"type": "api_key", "location": "query", "name": "api_key"},
    "oauth2": {"type": "oauth2"},
    "none": {"type": "none"},
}
#: Airflow keeps a connection's login as it is; password and extra are encrypted.
ENCRYPTED_NOT = frozenset({"connection.login"})
#: It shows the login to whoever may look at connections, and keeps with what it was given who made one.
SHOWN_BY_AIRFLOW = ("airflow public.log.extra ", "viewer /eventLogs", "viewer /connections")
SEEN_BY_A_VIEWER = (
    "/dags/~/dagRuns",
    "/dags/~/dagRuns/~/taskInstances",
    "/dags/~/dagRuns/~/taskInstances/~/xcomEntries",
    "/eventLogs",
    "/importErrors",
    "/assets/events",
    "/connections",
    "/variables",
)


class Keys:
    """The secrets of one connection."""

    def __init__(self, auth: str) -> None:
        self.password, self.login = Canary.new(f"{auth} password"), Canary.new(f"{auth} login")
        self.header, self.tenant = Canary.new(f"{auth} header"), Canary.new(f"{auth} tenant")
        self.token = Canary.new(f"{auth} token", special='/+=&"\\')
        self.all = [self.password, self.login, self.header, self.tenant, self.token]
        self.sent = {
            "basic": [self.password, self.login],
            "oauth2": [self.token],
            "none": [],
        }.get(auth, [self.password])
        self.sent += [self.header, self.tenant]


@pytest.fixture
def admitting(stack: RunningStack) -> tuple[AdmissionService, dict[str, Source]]:
    """Admits sources that no file declares."""
    sources: dict[str, Source] = {}
    settings = stack.settings
    backends = Backends(
        postgres_dsn=settings.postgres_dsn, redis_url=settings.redis_url, amqp_url=settings.amqp_url
    )
    return (
        AdmissionService(backends, lane_rules(), RestRuns.from_environment(), sources=sources.__getitem__),
        sources,
    )


def connect(stack: RunningStack, connection: str, server: EchoServer, keys: Keys) -> None:
    """A connection with every kind of secret."""
    extra = {
        "headers": {"X-Tenant": keys.tenant.text, "X-Tenant-Key": keys.header.text},
        "allow_private_networks": True,
        "token_url": f"{server.base_url}/token",
    }
    fields = {
        "conn_type": "http",
        "host": server.base_url,
        "login": keys.login.text,
        "password": keys.password.text,
    }
    stack.airflow.put_connection(connection, {**fields, "extra": json.dumps(extra)})


def shown(stack: RunningStack, path: str) -> str:
    """All that Airflow's REST API shows a viewer there; it gives out a hundred at once."""
    pages: list[str] = []
    while True:
        answer = stack.rest("GET", f"{path}?limit=100&offset={100 * len(pages)}", user="viewer")
        assert answer.status_code in (200, 403), answer.text
        pages.append(answer.text)
        if answer.status_code == 403 or 100 * len(pages) >= answer.json()["total_entries"]:
            return "\n".join(pages)


def written(stack: RunningStack, since: float) -> dict[str, str]:
    """All that the stack has written, by place; of files those that were written to since."""
    settings = stack.settings
    airflow_dsn = (
        os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "").replace("+psycopg", "")
    )
    places = {
        **dict(in_postgres(settings.postgres_dsn)),
        **{f"airflow {place}": text for place, text in in_postgres(airflow_dsn, without=ENCRYPTED_NOT)},
        **dict(in_redis(settings.redis_url)),
        **dict(in_rabbitmq(settings.amqp_url)),
    }
    for folder in ("logs", "airflow", "run"):
        for path in sorted(Path(settings.home, folder).rglob("*")):
            if path.is_file() and path.stat().st_mtime >= since:
                places[f"file {path}"] = path.read_bytes().decode(errors="backslashreplace")
    for path in SEEN_BY_A_VIEWER:
        places[f"viewer {path}"] = shown(stack, path)
    return places


@pytest.mark.parametrize("auth", AUTHS)
def test_no_secret_is_written_anywhere(
    stack: RunningStack, admitting: tuple[AdmissionService, dict[str, Source]], auth: str
) -> None:
    began = time.time()
    service, sources = admitting
    keys = Keys(auth)
    tasks: dict[str, int] = {}
    with ExitStack() as opened:
        server = opened.enter_context(EchoServer(keys.token.text))
        for way in WAYS:
            if way == "final":
                continue  # where a redirect leads
            name = f"canary_{auth}_{way}"
            connect(stack, name, server, keys)
            opened.callback(stack.airflow.delete_connection, name)
            declared = {
                "connection": name,
                "request": {"path": f"/{way}"},
                "retries": RETRIES,
                "auth": AUTHS[auth],
            }
            sources[name] = with_file_defaults(source(name, **{**declared, **DECLARED.get(way, {})}))
            tasks[way] = service.admit(submission(name, force=True)).task_id
        # And one by the form, with its XComs and rendered fields.
        connect(stack, "example_api", server, keys)
        tasks["by the form"] = stack.submit(
            {"source": "example_offset", "path": "/json", "force": True}, 300
        )["task_id"]
        # A host whose answers always break off is asked again for hours: its task is HELD, and has been written of.
        unfinished = (
            "SELECT id FROM collect.task WHERE id = ANY(%s) AND finished_at IS NULL AND status <> 'HELD'"
        )
        wait_for(
            "the end of every task", lambda: not stack.rows(unfinished, list(tasks.values())), 1800, poll_s=2
        )
        ends = {way: stack.task(task_id) for way, task_id in tasks.items()}
        held = [str(task["id"]) for task in ends.values() if task["status"] == "HELD"]
        opened.callback(lambda: held and stack.command("collect_ops.cli", "cancel", *held))
        for way in WAYS:
            for canary in keys.sent:
                assert any(canary.text in text for text in server.heard[way]), (way, canary.name)
    assert {ends[way]["status"] for way in GOOD} == {"COMPLETED"}
    statuses = {task["status"] for task in ends.values()}
    assert {"COMPLETED", "DEAD"} <= statuses <= {"COMPLETED", "DEAD", "HELD"}
    assert any(task["retry_count"] > 0 for task in ends.values())

    planted = Canary.new("planted")
    answer = stack.trigger("collect_submit", {"source": "example_offset", "params": {"since": planted.text}})
    stack.run_ended("collect_submit", answer.json()["dag_run_id"], 300)

    places = written(stack, began)
    assert [
        each
        for each in escaped(keys.all, places)
        if not (each[0] == keys.login.name and each[1].startswith(SHOWN_BY_AIRFLOW))
    ] == []
    found = {place.split(" ")[0] for _, place, _ in escaped([planted], places)}
    assert found >= {"airflow", "file", "viewer"}
