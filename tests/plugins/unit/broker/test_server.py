"""What is declared where: by what a server says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from collect_ops.broker.server import QuorumUnsupported, Server

LANE = {"x-queue-type": "quorum", "x-max-priority": 10, "x-message-ttl": 1000}
PLAIN = {"x-queue-type": "quorum"}


def rabbitmq(version: str) -> Server:
    return Server(product="RabbitMQ", version=version)


@pytest.mark.parametrize("version", ["3.10.8", "3.13.7", "4.0.5", "4.2.1", "4.2.0-rc.1"])
def test_quorum_queues_with_priorities_are_refused_by_releases_without(version: str) -> None:
    with pytest.raises(QuorumUnsupported) as caught:
        rabbitmq(version).arguments("lane", LANE)
    assert (caught.value.queue, caught.value.server) == ("lane", rabbitmq(version))
    assert all(part in str(caught.value) for part in (version, "4.3", "queue_type: classic"))


@pytest.mark.parametrize("version", ["4.3.0", "4.10.0", "5.0.0"])
def test_releases_that_have_them_declare_them(version: str) -> None:
    assert rabbitmq(version).arguments("lane", LANE) == {**LANE, "x-delivery-limit": -1}
    with pytest.raises(QuorumUnsupported, match="at most 31"):
        rabbitmq(version).arguments("lane", {**LANE, "x-max-priority": 32})


@pytest.mark.parametrize(
    ("version", "arguments"),
    [("3.10.8", PLAIN), ("3.13.7", PLAIN), ("4.0.0", {**PLAIN, "x-delivery-limit": -1})],
)
def test_the_delivery_limit_is_lifted_where_there_is_one(version: str, arguments: dict[str, Any]) -> None:
    assert rabbitmq(version).arguments("q", PLAIN) == arguments
    assert rabbitmq(version).arguments("q", {**PLAIN, "x-delivery-limit": 5})["x-delivery-limit"] == 5


@pytest.mark.parametrize("arguments", [{}, {"x-queue-type": "classic", "x-max-priority": 10}])
@pytest.mark.parametrize("version", ["3.10.8", "4.0.5", "4.3.0"])
def test_other_queues_are_the_same_everywhere(version: str, arguments: dict[str, Any]) -> None:
    assert rabbitmq(version).arguments("q", arguments) == arguments


@pytest.mark.parametrize(
    "server", [Server(product="LavinMQ", version="2.1.0"), Server(product="", version=""), rabbitmq("soon")]
)
def test_a_server_that_nothing_is_known_of_decides_itself(server: Server) -> None:
    assert server.arguments("lane", LANE) == LANE
