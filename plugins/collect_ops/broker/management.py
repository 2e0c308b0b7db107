"""What only RabbitMQ's management API tells: messages of a queue with the unacked ones."""

from __future__ import annotations

import logging
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

log = logging.getLogger(__name__)


def depths_with_unacked(api_url: str, vhost: str) -> dict[str, int] | None:
    """Messages, ready and unacked, by queue name; None when the API did not answer.

    Args:
        api_url: Management address with credentials (`http://user:password@host:15672`).
        vhost: Virtual host.
    """
    parts = urlsplit(api_url)
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
    url = f"{bare}/api/queues/{quote(vhost, safe='')}"
    try:
        answer = httpx.get(url, auth=(parts.username or "", parts.password or ""), timeout=5, trust_env=False)
        answer.raise_for_status()
        return {queue["name"]: int(queue.get("messages", 0)) for queue in answer.json()}
    except (httpx.HTTPError, ValueError) as error:
        log.warning("RabbitMQ's management API did not answer: %s", type(error).__name__)
        return None
