"""Services for integration tests: a database, a virtual host and a Redis database of the test's own.

They live on the servers that the environment names (`make env ALL=1`); databases are cloned from a template that is
migrated once a worker, and emptied for the next test.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
import redis

from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import LaneRules, lane_rules
from collect_ops.storage import Connection, connect
from collect_ops.storage.migrate import migrate
from tests.plugins.integration.broker_api import call_broker_api
from tests.plugins.integration.databases import Databases, new_database
from tests.plugins.integration.vhosts import CleanVhost
from tests.plugins.integration.world import World
from tests.servers.paged import PagedServer


@pytest.fixture(scope="session")
def template_database() -> Iterator[str]:
    """The name of a migrated database that nobody uses."""
    with new_database("template") as (name, dsn):
        with connect(dsn) as connection:
            migrate(connection)
        yield name


@pytest.fixture(scope="session")
def databases(template_database: str) -> Iterator[Databases]:
    """This worker's databases."""
    found = Databases(template_database)
    yield found
    found.close()


@pytest.fixture
def postgres_dsn(databases: Databases) -> Iterator[str]:
    """A migrated, empty database."""
    with databases.lend() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def session_vhost() -> Iterator[str]:
    """A virtual host for this worker's tests."""
    name = f"tests-{uuid.uuid4().hex[:12]}"
    user = urlsplit(os.environ["COLLECT_RABBITMQ_API_URL"]).username
    call_broker_api("PUT", f"vhosts/{name}")
    call_broker_api("PUT", f"permissions/{name}/{user}", configure=".*", write=".*", read=".*")
    yield name
    call_broker_api("DELETE", f"vhosts/{name}")


@pytest.fixture(scope="session")
def clean_vhost(session_vhost: str, rules: LaneRules) -> Iterator[CleanVhost]:
    """The same with the topology in it."""
    url = urlsplit(os.environ["COLLECT_AMQP_URL"])._replace(path=f"/{session_vhost}").geturl()
    vhost = CleanVhost(url, rules.topology())
    yield vhost
    vhost.close()


@pytest.fixture
def collect_amqp_url(clean_vhost: CleanVhost) -> str:
    """A broker with the topology declared and every queue empty."""
    clean_vhost.empty()
    return clean_vhost.url


@pytest.fixture
def redis_url(worker_id: str) -> str:
    """An empty Redis database: number 1 and up, one a worker."""
    number = 1 + (int(worker_id.removeprefix("gw")) if worker_id.startswith("gw") else 0)
    url = urlsplit(os.environ["COLLECT_REDIS_URL"])._replace(path=f"/{number}").geturl()
    client = redis.Redis.from_url(url)
    client.flushdb()
    client.close()
    return url


@pytest.fixture(scope="session")
def rules() -> LaneRules:
    """The rules as shipped."""
    return lane_rules()


@pytest.fixture
def backends(postgres_dsn: str, redis_url: str, collect_amqp_url: str) -> Backends:
    """All three services, empty."""
    return Backends(postgres_dsn=postgres_dsn, redis_url=redis_url, amqp_url=collect_amqp_url)


@pytest.fixture
def db(backends: Backends) -> Iterator[Connection]:
    """A connection to the test's database."""
    with connect(backends.postgres_dsn, application_name="test") as connection:
        yield connection


@pytest.fixture
def serve() -> Iterator[Callable[..., PagedServer]]:
    """Starts source servers; they end with the test."""
    started: list[PagedServer] = []

    def start(**options: object) -> PagedServer:
        server = PagedServer(**options)  # type: ignore[arg-type]
        server.__enter__()
        started.append(server)
        return server

    yield start
    for server in started:
        server.__exit__(None, None, None)


@pytest.fixture
def world(backends: Backends, rules: LaneRules) -> World:
    """The main path without Airflow: submit, claim, run, settle."""
    return World(backends, rules)


@pytest.fixture(autouse=True)
def patient_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a claim takes in one pass depends on what waits, not on how fast this machine is."""
    monkeypatch.setattr(sys.modules["collect_ops.lanes.claim"], "TIME_LIMIT_S", 20.0)
