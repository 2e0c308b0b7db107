"""What makes two submissions equal, and which priority one gets: pure."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

import orjson

from collect_ops.admission.model import Submission
from collect_ops.kernel.errors import Fault
from collect_ops.lanes.priority import PriorityRules
from collect_ops.sources.merging import merge_params, part_of
from collect_ops.sources.model import Source
from collect_ops.sources.request import RenderedRequest

#: Priorities that a caller may send.
PRIORITIES = range(11)
#: Levels of objects and lists in what a caller sends; Python's own recursion ends at a thousand.
MAX_DEPTH = 64
_MAX_BITS = 10_000

#: The escape of a NUL; after an odd number of backslashes it is a text that spells it out.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def canonical(value: Any) -> Any:
    """A JSON value in one form: keys sorted when dumped, whole numbers as integers.

    Texts stay as they are. `José` composed and decomposed are two texts: what is sent differs, and so may the answers.
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, dict | Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value


def canonical_path(path: str) -> str:
    """A path in one form (RFC 3986 section 6.2.2): escapes in capitals and only where needed.

    Args:
        path: Percent-encoded, as it goes on the wire.
    """
    # Latin-1 gives each byte back as it was: not every path is UTF-8.
    segments = (unquote(segment, encoding="latin-1") for segment in path.split("/"))
    return "/".join(quote(segment, safe="", encoding="latin-1") for segment in segments)


def dedup_key(source: Source, request: RenderedRequest, identity: Mapping[str, Any]) -> bytes:
    """SHA-256 of the canonical JSON of url, method, params, body and identity (DESIGN guarantee 2).

    Args:
        source: Its connection stands for scheme, host and port, however they are written there; its `dedup.identity`
            counts as well.
        request: With the parameters filled in.
        identity: What the way in adds, such as a data interval.

    Returns:
        32 bytes.
    """
    identified = {
        "url": [source.connection, canonical_path(request.path)],
        "method": request.method,
        "query": {name: list(values) for name, values in request.query.items()},
        "headers": dict(request.headers),
        "body": request.body,
        "target": source.target.table,
        "identity": {**source.dedup.identity, **identity},
    }
    if request.body_type != "json":
        identified["body_type"] = request.body_type
    # Nearly all are in their one form already.
    if request.body is None and _is_plain(identified["identity"]):
        encoded = orjson.dumps(identified, option=orjson.OPT_SORT_KEYS)
    else:
        encoded = orjson.dumps(canonical(identified), option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.sha256(encoded).digest()


def merge_key(source: Source, version: bytes, params: Mapping[str, Any], path: str | None) -> bytes | None:
    """SHA-256 of everything in which tasks that may be merged are equal; None for a task that cannot be merged.

    Args:
        source: The source.
        version: SHA-256 of its declaration: tasks of two declarations are not similar.
        params: Checked parameters.
        path: Instead of the source's path.
    """
    if source.merge is None or part_of(source, params) is None:
        return None
    free = merge_params(source.merge)
    fixed = {name: value for name, value in params.items() if name not in free}
    identified = {"version": version.hex(), "path": path, "params": fixed}
    return hashlib.sha256(orjson.dumps(canonical(identified), option=orjson.OPT_SORT_KEYS)).digest()


def base_priority(requested: int | None, source: Source, formula: PriorityRules) -> int:
    """The priority that the formula starts from: the submission's own, else its source's, else the rules'."""
    if requested is not None:
        return requested
    return formula.base if source.priority is None else source.priority


def priority_fault(requested: object) -> Fault | None:
    """What is wrong with a priority that a caller sent, None when nothing is."""
    if requested is None or (type(requested) is int and requested in PRIORITIES):
        return None
    return Fault(field="priority", value=requested, problem="must be a whole number from 0 to 10")


def too_deep(value: object) -> bool:
    """Whether a JSON value nests deeper than `MAX_DEPTH`."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [item for each in level for item in _items(each)]
        if not level:
            return False
    return True


def unreadable_faults(submission: Submission) -> tuple[Fault, ...]:
    """What of a submission cannot even be looked at: what nests too deep, and numbers of thousands of digits."""
    values = {"params": submission.params, "identity": submission.identity}
    if all(map(_is_plain, values.values())):
        return ()
    faults = []
    for name, value in values.items():
        if too_deep(value):
            faults.append(Fault(field=name, value=None, problem=f"nests deeper than {MAX_DEPTH}"))
        elif _holds_huge_number(value):
            faults.append(Fault(field=name, value=None, problem="holds a number of thousands of digits"))
    return tuple(faults)


def _items(value: object) -> Iterable[object]:
    if value is None or isinstance(value, str | int | float):
        return ()
    if isinstance(value, dict | Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _holds_huge_number(value: object) -> bool:
    if isinstance(value, int):
        return value.bit_length() > _MAX_BITS
    return any(_holds_huge_number(item) for item in _items(value))


def unstorable_faults(submission: Submission) -> tuple[Fault, ...]:
    """What of a submission neither PostgreSQL nor JSON can hold: one such would fail the whole batch it comes in.

    NUL characters, lone surrogates, and whole numbers beyond 64 bits.
    """
    values: dict[str, object] = {
        "request_id": submission.request_id,
        "path": submission.path,
        "submitted_by": submission.submitted_by,
        "submitted_via": submission.submitted_via,
        "params": submission.params,
        "identity": submission.identity,
    }
    plain = _is_plain(submission.params) and _is_plain(submission.identity)
    if (_not_json(values) if plain else _unstorable(values)) is None:
        return ()
    return tuple(
        Fault(field=name, value=ascii(value)[:80], problem=problem)
        for name, value in values.items()
        if (problem := _unstorable(value)) is not None
    )


def _is_plain(members: Mapping[str, Any]) -> bool:
    """Whether all members are texts, truth values, None or numbers of 64 bits: nothing within them to look into."""
    return all(
        member is None
        or isinstance(member, str | bool)
        or (isinstance(member, int) and member.bit_length() < 64)
        for member in members.values()
    )


def _unstorable(value: object) -> str | None:
    return _not_json(canonical(value))


def _not_json(value: object) -> str | None:
    try:
        encoded = orjson.dumps(value, default=str)
    except TypeError as error:
        return f"cannot be stored as JSON: {error}"
    return "must not hold NUL characters" if _NUL.search(encoded) else None
