"""How the body of a request is written. Pure."""

from __future__ import annotations

from urllib.parse import urlencode

from collect_ops.collectors.page import Json
from collect_ops.kernel.json_text import json_bytes
from collect_ops.sources.request import RenderedRequest
from collect_ops.sources.templates import text_of

_CONTENT_TYPES = {"json": "application/json", "form": "application/x-www-form-urlencoded"}


def written(request: RenderedRequest) -> tuple[bytes | None, dict[str, str]]:
    """The bytes of a request's body, and its headers with the type of the body."""
    headers = dict(request.headers)
    if request.body is None:
        return None, headers
    if not any(name.lower() == "content-type" for name in headers):
        headers = {"Content-Type": _CONTENT_TYPES[request.body_type], **headers}
    return (form(request.body) if request.body_type == "form" else json_bytes(request.body)), headers


def form(fields: dict[str, Json]) -> bytes:
    """Fields as a form: a list gives a field several times, null leaves it out."""
    pairs = [
        (name, text_of(item))
        for name, value in fields.items()
        for item in (value if isinstance(value, list | tuple) else [value])
        if item is not None
    ]
    return urlencode(pairs).encode()
