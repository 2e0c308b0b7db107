"""The largest and smallest numbers that a declaration may hold: what those who work with them can bear. Pure.

They are looked at where a file is loaded, not where a stored declaration is read: a task that was admitted keeps the
numbers that it was admitted with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from collect_ops.kernel.errors import Fault
from collect_ops.sources.declaration import Declaration, Json
from collect_ops.sources.model import Source

_HOUR_S, _DAY_S = 3600, 86_400
_YEAR_S = 366 * _DAY_S
_DECADE_H = 10 * 366 * 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a number, or the length of a list, may be.

    Args:
        most: At most.
        least: At least, where the model itself allows numbers that are too small for their use.
    """

    most: float
    least: float | None = None


#: By dotted field.
NUMBERS: Mapping[str, Bound] = {
    # Pages and rows: 64-bit integers in PostgreSQL, also when they are multiplied with each other.
    "paging.first_page": Bound(most=10**9),
    "paging.first_offset": Bound(most=10**9),
    "page_size": Bound(most=10**6),
    "limits.max_pages": Bound(most=10**7),
    "limits.max_empty_pages": Bound(most=10**7),
    "total.capped_at": Bound(most=10**12),
    "shards.min_size": Bound(most=10**6),
    "shards.max_size": Bound(most=10**12),
    "shards.min_step": Bound(most=10**15),
    "shards.max_step": Bound(most=10**15),
    "max_bad_rows": Bound(most=10**12),
    "max_repeated_rows": Bound(most=10**12),
    # A page is held in memory as a whole, and so is what it is parsed to.
    "limits.max_page_bytes": Bound(most=2**30),
    # A task has 100,000 shards at most; Airflow keeps the limit of a DAG's runs in 32 bits.
    "max_failed_shards": Bound(most=100_000),
    "max_active_tasks": Bound(most=10_000),
    # Between two requests: from a microsecond, the limiter's unit, to about a day.
    "limits.requests_per_s": Bound(least=1e-5, most=10**6),
    # Waiting that holds a connection or a slot.
    "timeouts.connect_s": Bound(most=_HOUR_S),
    "timeouts.read_s": Bound(most=_HOUR_S),
    "timeouts.request_s": Bound(most=_DAY_S),
    "retries.http_backoff_s": Bound(most=_HOUR_S),
    "retries.http_max_backoff_s": Bound(most=_HOUR_S),
    # Moments and intervals in PostgreSQL, expiries in Redis.
    "retries.base_s": Bound(most=30 * _DAY_S),
    "merge_window_seconds": Bound(most=30 * _DAY_S),
    "dedup.ttl_h": Bound(least=1e-3, most=_DECADE_H),
    "conditional.full_after_h": Bound(least=1e-3, most=_DECADE_H),
    "shards.target_s": Bound(least=0.01, most=_DAY_S),
    "priority_formula.ageing.first_after_s": Bound(least=0.001, most=_YEAR_S),
    "priority_formula.ageing.every_s": Bound(least=0.001, most=_YEAR_S),
    # A double counts whole numbers up to here one by one.
    "merge.max_length": Bound(most=2**53),
}

#: How many entries, by dotted field. PostgreSQL: an index has 32 columns, a table 1,600, of which some are ours.
LENGTHS: Mapping[str, Bound] = {
    "target.key": Bound(most=32),
    "target.columns": Bound(most=1500),
    "request.params": Bound(most=200),
    "request.query": Bound(most=500),
    "request.headers": Bound(most=100),
    "total.query": Bound(most=500),
    "shards.range.query": Bound(most=500),
    "dedup.identity": Bound(most=100),
    "retry_when": Bound(most=20),
    "end": Bound(most=20),
    "placement.require": Bound(most=50),
    "placement.prefer": Bound(most=50),
}
_ALLOWED_VALUES = Bound(most=10_000)

#: Fields that hold any JSON: what is in them is sent, hashed and stored as it is.
_FREE = ("request.query", "request.body", "total.query", "shards.range.query", "shards.options", "shards.values",
         "dedup.identity")  # fmt: skip


def number_faults(source: Source, field: str) -> Iterator[Fault]:
    """Whether a number is within its bound."""
    value = value_at(source, field)
    if value is not None:
        yield from _bound_faults(field, value, NUMBERS[field], "must be")


def length_faults(source: Source, field: str) -> Iterator[Fault]:
    """Whether a list or mapping is not too long."""
    value = value_at(source, field)
    if value is not None:
        yield from _bound_faults(field, len(value), LENGTHS[field], "must have")


def allowed_faults(source: Source) -> Iterator[Fault]:
    """Whether the lists of allowed values are not too long."""
    for name, param in source.request.params.items():
        field = f"request.params.{name}.allowed"
        yield from _bound_faults(field, len(param.allowed), _ALLOWED_VALUES, "must have")


def free_number_faults(source: Source) -> Iterator[Fault]:
    """Whether the numbers in fields that hold any JSON can be written as JSON: 64 bits, and finite."""
    for field in _FREE:
        yield from _unwritable(value_at(source, field), field)


def value_at(source: Source, field: str) -> Json:
    """What stands at a dotted field; None where nothing does, or where another kind of part has no such field."""
    value: Json = source
    for name in field.split("."):
        value = getattr(value, name, None) if isinstance(value, Declaration) else None
    return value


def _bound_faults(field: str, value: float, bound: Bound, wanted: str) -> Iterator[Fault]:
    if value > bound.most:
        yield Fault(field=field, value=value, problem=f"{wanted} at most {bound.most:,}")
    elif bound.least is not None and value < bound.least:
        yield Fault(field=field, value=value, problem=f"{wanted} at least {bound.least:,}")


def _unwritable(value: Json, field: str) -> Iterator[Fault]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _unwritable(each, f"{field}.{name}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, each in enumerate(value):
            yield from _unwritable(each, f"{field}.{index}")
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        yield Fault(field=field, value=value, problem="must fit 64 bits (a longer number goes in quotes)")
    elif isinstance(value, float) and not isfinite(value):
        yield Fault(field=field, value=value, problem="must be a number that a double holds")
