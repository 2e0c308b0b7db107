"""Conditions that a source declares on answers: by status, headers and body. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from collect_ops.collectors.page import Json
from collect_ops.sources.expressions import compiled
from collect_ops.sources.model import When

W = TypeVar("W", bound=When)


def first_met(
    conditions: Iterable[W], *, status: int, headers: Mapping[str, str], document: Json
) -> W | None:
    """The first condition that an answer meets; None when it meets none.

    Args:
        conditions: What the source declares.
        status: HTTP status.
        headers: Response headers, case-insensitive; of one that is sent several times, every value counts.
        document: The parsed body; None where there is none.

    Raises:
        ExpressionFails: An expression cannot be applied to the body.
    """
    for condition in conditions:
        if (
            _has_status(condition, status)
            and _has_headers(condition, headers)
            and _has_body(condition, document)
        ):
            return condition
    return None


def body_expressions(conditions: Iterable[When]) -> tuple[str, ...]:
    """The expressions that are applied to a body."""
    return tuple(condition.body for condition in conditions if condition.body is not None)


def named_statuses(conditions: Iterable[When]) -> frozenset[int]:
    """Every status that a condition names."""
    return frozenset(status for condition in conditions for status in condition.status)


def described(condition: When) -> str:
    """A condition in words, for the reason of a failure."""
    parts = []
    if condition.status:
        parts.append(f"status {', '.join(map(str, condition.status))}")
    parts += [f"header {name}: {value}" for name, value in condition.headers.items()]
    if condition.body is not None:
        parts.append(f"body {condition.body!r}")
    return " and ".join(parts)


def _has_status(condition: When, status: int) -> bool:
    return status in condition.status if condition.status else 200 <= status < 300


def _has_headers(condition: When, headers: Mapping[str, str]) -> bool:
    return all(
        any(_fits(value.strip().lower(), wanted.lower()) for value in _values(headers, name))
        for name, wanted in condition.headers.items()
    )


def _values(headers: Mapping[str, str], name: str) -> list[str]:
    # aiohttp's headers hold each value of a header that was sent several times.
    if hasattr(headers, "getall"):
        found: list[str] = headers.getall(name, [])
        return found
    return [headers[name]] if name in headers else []


def _fits(value: str, wanted: str) -> bool:
    """Whether a value is what a text with `*` describes; linear in it, since the value is the server's."""
    first, *others = wanted.split("*")
    if not others:
        return value == first
    if not value.startswith(first):
        return False
    position = len(first)
    *middle, last = others
    for part in middle:
        found = value.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return len(value) - position >= len(last) and value.endswith(last)


def _has_body(condition: When, document: Json) -> bool:
    return condition.body is None or _is_true(compiled(condition.body).search(document))


def _is_true(value: Json) -> bool:
    """As JMESPath tells it: 0 is something."""
    return not (value is None or value is False or value in ("", [], {}))
