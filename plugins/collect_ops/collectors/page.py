"""What goes into a collector and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from collect_ops.collectors.conditional import Known

Json: TypeAlias = Any
"""A parsed JSON value: what a server sends has no type before it is looked at."""

Position: TypeAlias = Mapping[str, Any]
"""Where to go on: JSON, written by a collector and read only by the same kind of collector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A shard's range of rows.

    Args:
        offset: First row.
        size: Number of rows; None means until the end.
    """

    offset: int = 0
    size: int | None = None

    @property
    def end(self) -> int | None:
        """The row after the last one; None when nobody knows it yet."""
        return None if self.size is None else self.offset + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page as it came.

    Args:
        records: The rows, in the source's order. Those of a page that was read straight as rows (`content.Records`) are
            parsed when somebody looks at them; their number is known.
        raw: The body, decompressed.
        sent_at: `time.monotonic()` when the request that brought it was sent.
        received_at: `time.monotonic()` when the last byte was there.
        number: 0 for the shard's first page; goes on counting after a resume.
        next_position: What to resume from after this page; None when the shard is finished.
        total: The source's total, when this page names it.
        wire_bytes: Size of the body as it travelled.
        attempts: 1, and one more for each request that failed before it came.
        request: Masked description: method, url, headers.
        response: Masked description: status, headers of interest.
        unchanged_rows: How many rows of the shard an unchanged page has, which has no records; None for one that came.
        known: What it is known by, when the source asks conditionally.
        sent_rows: How many rows of the shard the server sent, where a `select` may have kept fewer or made more of
            them; None: as many as there are records.
        seen: How many rows the source has at least, by the place of this page's last one; 0 where nothing tells it.
        fingerprint: What its rows are known by, so that an equal page is noticed; None where that says nothing, or
            where the source allows equal pages.
    """

    records: Sequence[Any]
    raw: bytes
    sent_at: float
    received_at: float
    number: int
    next_position: dict[str, Any] | None
    total: int | None
    wire_bytes: int
    attempts: int
    request: dict[str, Any]
    response: dict[str, Any]
    unchanged_rows: int | None = None
    known: Known | None = None
    sent_rows: int | None = None
    seen: int = 0
    fingerprint: bytes | None = None

    @property
    def unchanged(self) -> bool:
        """Whether its rows are those that have landed before."""
        return self.unchanged_rows is not None

    @property
    def evident_total(self) -> int | None:
        """The total that it names, or what its rows say instead: a last page may hold more than that."""
        return None if self.total is None else max(self.total, self.seen)

    @property
    def rows(self) -> int:
        """How many rows of the source it stands for, come or unchanged."""
        if self.unchanged_rows is not None:
            return self.unchanged_rows
        return len(self.records) if self.sent_rows is None else self.sent_rows
