"""What makes two submissions equal, and which priority one gets: pure."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Mapping
from typing import Any

import orjson

from collect_ops.admission.model import Submission
from collect_ops.kernel.errors import Fault
from collect_ops.sources.model import Source
from collect_ops.sources.request import RenderedRequest

#: Priorities that a caller may send.
PRIORITIES = range(11)


def canonical(value: Any) -> Any:
    """A JSON value in one form: keys in NFC and sorted when dumped, whole numbers as integers, strings in NFC."""
    if isinstance(value, Mapping):
        return {unicodedata.normalize("NFC", str(key)): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value


def dedup_key(source: Source, request: RenderedRequest, identity: Mapping[str, Any]) -> bytes:
    """SHA-256 of the canonical JSON of url, method, params, body and identity (DESIGN guarantee 2).

    Args:
        source: Its connection stands for the base URL, its `dedup.identity` counts as well.
        request: With the parameters filled in.
        identity: What the way in adds, such as a data interval.

    Returns:
        32 bytes.
    """
    identified = {
        "url": [source.connection, request.path],
        "method": request.method,
        "query": {name: list(values) for name, values in request.query.items()},
        "headers": dict(request.headers),
        "body": request.body,
        "target": source.target.table,
        "identity": {**source.dedup.identity, **identity},
    }
    return hashlib.sha256(
        orjson.dumps(canonical(identified), option=orjson.OPT_SORT_KEYS, default=str)
    ).digest()


def priority_of(requested: int | None, source: Source) -> int:
    """The priority a submission gets: its own, else its source's."""
    return source.priority if requested is None else requested


def priority_fault(requested: object) -> Fault | None:
    """What is wrong with a priority that a caller sent, None when nothing is."""
    if requested is None or (type(requested) is int and requested in PRIORITIES):
        return None
    return Fault(field="priority", value=requested, problem="must be a whole number from 0 to 10")


def unstorable_faults(submission: Submission) -> tuple[Fault, ...]:
    """What of a submission neither PostgreSQL nor JSON can hold: one such would fail the whole batch it comes in.

    NUL characters, lone surrogates, and whole numbers beyond 64 bits.
    """
    texts = {
        name: getattr(submission, name) for name in ("request_id", "path", "submitted_by", "submitted_via")
    }
    values = {"params": submission.params, "identity": submission.identity}
    return tuple(
        Fault(field=name, value=ascii(value)[:80], problem=problem)
        for name, value in (texts | values).items()
        if (problem := _unstorable(value)) is not None
    )


def _unstorable(value: object) -> str | None:
    try:
        encoded = orjson.dumps(canonical(value), default=str)
    except TypeError as error:
        return f"cannot be stored as JSON: {error}"
    return "must not hold NUL characters" if b"\\u0000" in encoded else None
