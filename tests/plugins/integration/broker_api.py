"""RabbitMQ's management API, for making virtual hosts."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import httpx


def call_broker_api(method: str, path: str, **body: object) -> None:
    """Call RabbitMQ's management API."""
    parts = urlsplit(os.environ["COLLECT_RABBITMQ_API_URL"])
    answer = httpx.request(
        method,
        f"{parts.scheme}://{parts.hostname}:{parts.port}/api/{path}",
        auth=(parts.username or "", parts.password or ""),
        json=body or None,
        timeout=10,
        trust_env=False,
    )
    answer.raise_for_status()
