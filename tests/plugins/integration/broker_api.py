"""RabbitMQ's management API, for making virtual hosts."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from http.client import HTTPConnection
from typing import Any
from urllib.parse import unquote, urlsplit


def call_broker_api(method: str, path: str, *, missing_ok: bool = False, **body: object) -> Any:
    """Call RabbitMQ's management API; returns what it answers, None when that is nothing."""
    # Not httpx: each client of it reads the list of certificate authorities, which costs more than the call.
    parts = urlsplit(os.environ["COLLECT_RABBITMQ_API_URL"])
    credentials = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    headers = {
        "Authorization": f"Basic {b64encode(credentials.encode()).decode()}",
        "Content-Type": "application/json",
    }
    connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=10)
    try:
        connection.request(method, f"/api/{path}", body=json.dumps(body) if body else None, headers=headers)
        answer = connection.getresponse()
        told = answer.read()
    finally:
        connection.close()
    if missing_ok and answer.status == 404:
        return None
    assert answer.status < 300, f"{method} {path}: {answer.status} {told[:500]!r}"
    return json.loads(told) if told else None
