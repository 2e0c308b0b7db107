"""A virtual host of its own on the broker that COLLECT_AMQP_URL names."""

from __future__ import annotations

import os
import ssl
import uuid
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from collect_ops.broker.topology import Queue, Topology, declare
from tests.plugins.integration.broker.link import Link, airflow_connection, collect_lost_connections
from tests.plugins.integration.broker_api import call_broker_api


@pytest.fixture(autouse=True)
def lost_connections_are_collected() -> Iterator[None]:
    """Those of this test, before the next one is told of them."""
    yield
    collect_lost_connections()


@pytest.fixture(scope="session")
def broker_api() -> Callable[..., None]:
    """Calls RabbitMQ's management API: method, path, fields of the body."""
    return call_broker_api


@pytest.fixture
def vhost() -> Iterator[str]:
    """A virtual host, deleted afterwards with everything in it."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    user = urlsplit(os.environ["COLLECT_RABBITMQ_API_URL"]).username
    call_broker_api("PUT", f"vhosts/{name}")
    call_broker_api("PUT", f"permissions/{name}/{user}", configure=".*", write=".*", read=".*")
    yield name
    call_broker_api("DELETE", f"vhosts/{name}")


@pytest.fixture
def amqp_url(vhost: str) -> str:
    """The broker's address with the test's virtual host."""
    return urlsplit(os.environ["COLLECT_AMQP_URL"])._replace(path=f"/{vhost}").geturl()


@pytest.fixture
def make_link(amqp_url: str) -> Iterator[Callable[..., Link]]:
    """Makes links to the broker."""
    parts = urlsplit(amqp_url)
    links: list[Link] = []

    def make(tls: ssl.SSLContext | None = None) -> Link:
        links.append(Link((parts.hostname or "127.0.0.1", parts.port or 5672), tls))
        return links[-1]

    yield make
    for link in links:
        link.close()


@pytest.fixture
def queue(amqp_url: str) -> str:
    """A queue with priorities; what it rejects goes to `rejected`."""
    arguments = {
        "x-max-priority": 10,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "rejected",
    }
    queues = (Queue(name="inbox", arguments=arguments), Queue(name="rejected"))
    declare(amqp_url, Topology(exchanges=(), queues=queues, bindings=()))
    return "inbox"


@pytest.fixture
def connection_id(amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An Airflow connection to the test's virtual host."""
    return airflow_connection(monkeypatch, amqp_url)
