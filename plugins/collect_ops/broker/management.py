"""What only RabbitMQ's management API tells: messages of a queue with the unacked ones, and bindings."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

from collect_ops.broker.topology import Binding

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeBinding:
    """A binding of an exchange to another one."""

    source: str
    destination: str
    routing_key: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


class Management:
    """Questions to the management API about one virtual host.

    Args:
        api_url: Management address with credentials (`http://user:password@host:15672`).
        vhost: Virtual host.
    """

    def __init__(self, api_url: str, vhost: str) -> None:
        parts = urlsplit(api_url)
        self._url = urlunsplit(
            (parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", "")
        )
        self._login = (parts.username or "", parts.password or "")
        self._vhost = quote(vhost, safe="")

    def depths(self) -> dict[str, int] | None:
        """Messages, ready and unacked, by queue name, some seconds old; None when the API did not answer.

        A queue that is so new that it has no figures yet is left out.
        """
        found = self._get("queues")
        if found is None:
            return None
        return {queue["name"]: int(queue["messages"]) for queue in found if "messages" in queue}

    def queue_type(self, queue: str) -> str | None:
        """`classic`, `quorum` or another; None when the API did not answer or knows no such queue."""
        found = self._get("queues") or []
        return next((str(each.get("type", "classic")) for each in found if each["name"] == queue), None)

    def bindings(self) -> list[Binding] | None:
        """Bindings of queues to exchanges, without those of the default exchange; None when it did not answer."""
        found = self._get("bindings")
        if found is None:
            return None
        return [
            Binding(
                exchange=each["source"],
                queue=each["destination"],
                routing_key=each["routing_key"],
                arguments=dict(each["arguments"]),
            )
            for each in found
            if each["destination_type"] == "queue" and each["source"]
        ]

    def exchange_bindings(self) -> list[ExchangeBinding] | None:
        """Bindings of exchanges to exchanges; None when the API did not answer."""
        found = self._get("bindings")
        if found is None:
            return None
        return [
            ExchangeBinding(
                source=each["source"],
                destination=each["destination"],
                routing_key=each["routing_key"],
                arguments=dict(each["arguments"]),
            )
            for each in found
            if each["destination_type"] == "exchange"
        ]

    def _get(self, what: str) -> list[dict[str, Any]] | None:
        try:
            answer = httpx.get(
                f"{self._url}/api/{what}/{self._vhost}",
                auth=self._login,
                timeout=5,
                trust_env=False,
                verify=_authorities(),
            )
            answer.raise_for_status()
            found = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            log.warning("RabbitMQ's management API did not answer: %s", type(error).__name__)
            return None
        return found if isinstance(found, list) else None


@cache
def _authorities() -> ssl.SSLContext:
    """Whom an answer over TLS is believed from: httpx would read the list at each call, 35 ms of CPU."""
    return httpx.create_ssl_context(trust_env=False)


def depths_with_unacked(api_url: str, vhost: str) -> dict[str, int] | None:
    """Messages, ready and unacked, by queue name; None when the API did not answer (see `Management`)."""
    return Management(api_url, vhost).depths()
