"""Values of landing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

#: What JSON can say: an object, array, text, number, boolean or null.
Json: TypeAlias = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LandingPage:
    """The records of one page.

    Args:
        records: JSON values in the order they came; no NaN or infinity, which JSON does not have. `content.Records`
            land as the rows that were read, and are looked at only where these cannot be used.
        fetched_at: When the page was asked for, in database time, with its zone. Decides which of two fetches
            of a key is the later one.
        page: The page's number within its shard, from 0.
        plain: The raw body held no backslash, so no string can hold NUL or a lone surrogate: JSON can only
            spell them as escapes. False costs a look at every record.
        size_bytes: Of the raw body; decides whether it is looked through beside the event loop. 0 is not known.
    """

    records: Sequence[Json]
    fetched_at: datetime
    page: int
    plain: bool = False
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a page comes from.

    Args:
        task_id: The collect task.
        shard_no: The shard within it.
        first_page: Nothing of this shard has been landed by this run of it: what an earlier run left is
            cleared.
        fresh: The shard's very first run: there is nothing to clear.
        landed_since: When the shard started over, None when it never did. What a merge has landed of it before stays in
            the table, and is not counted as fetched twice.
    """

    task_id: int
    shard_no: int
    first_page: bool = False
    fresh: bool = False
    landed_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """What became of a page; `rows_landed + bad_rows` is the number of its records.

    Args:
        rows_landed: Records that were taken.
        bad_rows: Records that did not fit; `collect.bad_row` holds them.
        rows_written: Rows inserted or replaced in the table. Lower than `rows_landed` when a merge met equal
            keys within the page, or rows that were fetched later.
        rows_repeated: Of a merge, rows whose key the task has fetched before; others are counted when the task ends
            (`repeated`).
    """

    rows_landed: int
    bad_rows: int
    rows_written: int
    rows_repeated: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A record that does not fit: its place in the page from 0, why (for people), itself as ASCII JSON."""

    ordinal: int
    reason: str
    row_text: str


class Swap(StrEnum):
    """What became of the rows that a task of disposition replace has collected.

    They are the target's now; or a newer task's are, and these were dropped; or the target keeps its old ones, since
    these were not all.
    """

    SWAPPED = "SWAPPED"
    SUPERSEDED = "SUPERSEDED"
    KEPT = "KEPT"
