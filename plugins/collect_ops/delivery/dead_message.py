"""What is kept of a message from the dead-letter queue, and what it looks like again. Pure.

Nobody promises what such a message holds: no UTF-8, headers of every AMQP type, bodies of any size.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from collect_ops.broker.consumer import Delivery
from collect_ops.broker.message import OutgoingMessage
from collect_ops.kernel.masking import mask, mask_beginning
from collect_ops.lanes.rules import LaneRules

#: Bytes of a body that are kept.
MAX_BODY_BYTES = 1024 * 1024
#: Characters of a body, and bytes of one that is no text, that are shown.
MAX_SHOWN_CHARS = 4000
MAX_SHOWN_BYTES = 512
_MAX_TEXT_CHARS = 4000
_MAX_DEPTH = 20
# Control characters, and what stands for bytes that no charset has.
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
_LAST_SECOND = 253_402_300_799.0  # 9999-12-31
#: Headers that were put on the way here: not the sender's.
_OURS = frozenset(
    {
        "error-message", "failed-time", "retry-count", "producer", "collect-batch-index", "x-death",
        "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason", "x-last-death-exchange",
        "x-last-death-queue", "x-last-death-reason", "original-routing-key", "original-message-id",
        "original-correlation-id", "original-reply-to",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadMessage:
    """A message as it is kept.

    Args:
        letter_id: The dead letter of a task that it says it is, None for any other message.
        key: What tells it from others: SHA-256 of id, routing key, headers and body.
        failed_at: Seconds since 1970; None when it does not say.
        body: At most `MAX_BODY_BYTES` of it.
        body_bytes: Of the whole body.
        exchange: Where it was before it died, None when that is not known.
        send_routing_key: With this routing key.
    """

    letter_id: int | None
    key: bytes
    message_id: str | None
    routing_key: str
    headers: dict[str, Any]
    properties: dict[str, Any]
    x_death: list[Any] | None
    error_message: str
    failed_at: float | None
    retry_count: int
    body: bytes
    body_bytes: int
    exchange: str | None
    send_routing_key: str | None


def dead_message(delivery: Delivery, rules: LaneRules) -> DeadMessage:
    """What is kept of a message; never fails, whatever it holds."""
    headers = {storable(str(name)): _json(value) for name, value in delivery.headers.items()}
    x_death = headers.get("x-death")
    deaths = x_death if isinstance(x_death, list) else None
    exchange, routing_key = _origin(delivery, headers, deaths, rules)
    properties = {
        name: storable(value)
        for name in ("correlation_id", "reply_to", "app_id", "user_id")
        if (value := getattr(delivery, name)) is not None
    }
    return DeadMessage(
        letter_id=_letter_id(delivery),
        key=_key(delivery, headers),
        message_id=None if delivery.message_id is None else storable(delivery.message_id),
        routing_key=storable(delivery.routing_key),
        headers=headers,
        properties={**properties, "priority": delivery.priority},
        x_death=deaths,
        error_message=_error(headers, deaths),
        failed_at=_seconds(headers.get("failed-time")),
        retry_count=_count(headers.get("retry-count")),
        body=delivery.body[:MAX_BODY_BYTES],
        body_bytes=len(delivery.body),
        exchange=exchange,
        send_routing_key=routing_key,
    )


def bare_message(delivery: Delivery, problem: str) -> DeadMessage:
    """The least that can be kept of a message whose properties the database refuses."""
    return DeadMessage(
        letter_id=None,
        key=hashlib.sha256(
            repr((delivery.message_id, delivery.routing_key)).encode() + delivery.body
        ).digest(),
        message_id=None,
        routing_key="",
        headers={},
        properties={},
        x_death=None,
        error_message=storable(f"its headers could not be kept: {problem}")[:_MAX_TEXT_CHARS],
        failed_at=None,
        retry_count=0,
        body=delivery.body[:MAX_BODY_BYTES],
        body_bytes=len(delivery.body),
        exchange=None,
        send_routing_key=None,
    )


def again(letter: Mapping[str, Any]) -> OutgoingMessage:
    """The message of a dead letter without a task, as it was before it died, or as it was edited.

    Args:
        letter: Its row, from `delivery/lock_letters`.
    """
    headers, properties = letter["headers"] or {}, letter["properties"] or {}
    kept: dict[str, str | int | float] = {
        name: value
        for name, value in headers.items()
        # What pika can write: no floats, for instance.
        if name not in _OURS and isinstance(value, str | int) and len(name.encode()) < 128
    }
    priority = properties.get("priority", 0)
    return OutgoingMessage(
        exchange=letter["send_exchange"],
        routing_key=letter["send_routing_key"] or "",
        body=bytes(letter["body"]),
        priority=priority if isinstance(priority, int) and 0 <= priority <= 255 else 0,
        headers=kept,
        message_id=_short(headers.get("original-message-id", letter["message_id"])),
        content_type="application/octet-stream",
        correlation_id=_short(headers.get("original-correlation-id", properties.get("correlation_id"))),
        reply_to=_short(headers.get("original-reply-to", properties.get("reply_to"))),
        app_id=_short(headers.get("producer", properties.get("app_id"))),
    )


def shown_body(body: bytes | None) -> dict[str, Any] | None:
    """A body for people: JSON or text, masked and cut, or hexadecimal digits; None when there is none."""
    if body is None:
        return None
    text = _text_of(body)
    if text is None:
        # Also the digits of a password are one.
        masked = mask_beginning(body.decode("latin-1"), MAX_SHOWN_BYTES)
        return {"hex": masked.encode("latin-1").hex(" "), "cut": len(body) > MAX_SHOWN_BYTES}
    try:
        value = orjson.loads(text) if len(body) <= MAX_SHOWN_CHARS else None
    except orjson.JSONDecodeError:
        value = None
    if value is not None:
        return {"json": mask(value), "cut": False}
    return {"text": mask_beginning(storable(text), MAX_SHOWN_CHARS), "cut": len(text) > MAX_SHOWN_CHARS}


def _text_of(body: bytes) -> str | None:
    """A body as the text that it most likely is: UTF-8, or what Windows and Latin-1 have; None where it is none."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        text = body.decode("cp1252", errors="replace")
        return None if _NO_TEXT.search(text) else text


def storable(text: str) -> str:
    """A text without what PostgreSQL refuses: NUL characters and lone surrogates show as escapes."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def _json(value: Any, depth: int = 0) -> Any:
    """A header's value as JSON that can be stored."""
    if isinstance(value, Mapping | list | tuple):
        return _nested(value, depth) if depth < _MAX_DEPTH else "…"
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return storable(_told(value))


def _nested(value: Mapping[Any, Any] | Sequence[Any], depth: int) -> Any:
    if isinstance(value, Mapping):
        return {storable(str(name)): _json(item, depth + 1) for name, item in value.items()}
    return [_json(item, depth + 1) for item in value]


def _told(value: Any) -> str:
    match value:
        case bytes() | bytearray():
            return bytes(value).decode("utf-8", "backslashreplace")
        case datetime():
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return str(value)


def _letter_id(delivery: Delivery) -> int | None:
    """The dead letter of a task that the message names, in its id and in its body: anybody may publish here."""
    name, _, number = (delivery.message_id or "").partition("-")
    if name != "dead" or not number.isascii() or not number.isdigit() or len(number) > 18:
        return None
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError:
        return None
    named = body.get("dead_letter_id") if isinstance(body, dict) else None
    return named if type(named) is int and named == int(number) else None


def _key(delivery: Delivery, headers: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256()
    # Python's own repr: unlike JSON's it is total.
    digest.update(
        repr((delivery.message_id, delivery.routing_key, sorted(headers.items(), key=str))).encode(
            "utf-8", "backslashreplace"
        )
    )
    digest.update(b"\0")
    digest.update(delivery.body)
    return digest.digest()


def _origin(
    delivery: Delivery, headers: Mapping[str, Any], deaths: list[Any] | None, rules: LaneRules
) -> tuple[str | None, str | None]:
    """Exchange and routing key that the message had before it died."""
    if delivery.routing_key == rules.broker.inbox:
        return rules.broker.inbox, _text(headers.get("original-routing-key")) or ""
    if delivery.routing_key in {rules.routing_key(lane) for lane in rules.lanes}:
        return rules.broker.exchange, delivery.routing_key
    # The last of the list is the first death: where the sender had sent it.
    first = deaths[-1] if deaths and isinstance(deaths[-1], dict) else {}
    keys = first.get("routing-keys")
    key = _text(keys[0]) if isinstance(keys, list) and keys else None
    exchange = _text(first.get("exchange"))
    return (None, None) if exchange is None or key is None else (exchange, key)


def _error(headers: Mapping[str, Any], deaths: list[Any] | None) -> str:
    said = _text(headers.get("error-message"))
    if said:
        return said[:_MAX_TEXT_CHARS]
    if deaths and isinstance(deaths[0], dict):
        return f"{deaths[0].get('reason', 'dead-lettered')} in queue {deaths[0].get('queue', 'unknown')}"[
            :_MAX_TEXT_CHARS
        ]
    return "it does not say why"


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _short(value: Any) -> str | None:
    """A property that AMQP takes: a text of at most 255 bytes."""
    return value if isinstance(value, str) and value and len(value.encode()) <= 255 else None


def _seconds(value: Any) -> float | None:
    """A time in seconds since 1970, also one that came as an ISO text."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST_SECOND:
        return None
    return float(value)


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else 0
