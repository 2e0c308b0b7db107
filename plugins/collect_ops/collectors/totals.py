"""The total a source names, and what it promises by it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from collect_ops.collectors.page import Json
from collect_ops.kernel.masking import mask_beginning
from collect_ops.sources.model import Total, UnknownTotal

_CONTENT_RANGE = re.compile(r"[^/]*/\s*(\d{1,18}|\*)\s*")
_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedTotal:
    """What a source says of its number of rows.

    Args:
        rows: How many; None when it does not say, or says that it does not know.
        at_least: There may be more.
        problem: What stands where the total is due and is none, as half a sentence; None where nothing is wrong.
        pages_tell_end: The pages say themselves whether there are more rows, so the total need not be believed.
    """

    rows: int | None = None
    at_least: bool = False
    problem: str | None = None
    pages_tell_end: bool = False

    @property
    def exact(self) -> int | None:
        """The number of rows, when there are neither more nor fewer."""
        return None if self.at_least else self.rows


def total_of(
    value: Json, declared: Total, *, where: str, quote: Callable[[str, int], str] = mask_beginning
) -> NamedTotal:
    """What `value` says.

    What is no number of rows (`-1`, `"1,234"`, `true`) names no total: then paging goes on until the end, as it does
    for a source that declares none.

    Args:
        value: From a body or a header: a number, its text, `items 0-24/1000` as in `Content-Range`, or an object with
            `value` and `relation` as search engines write it.
        declared: The source's `total`.
        where: Where it stands, for people.
        quote: Makes the value showable.
    """
    relation = None
    if isinstance(value, dict) and "value" in value:
        value, relation = value["value"], value.get("relation", "eq")
    if value is None:
        return NamedTotal()
    text = value.strip() if isinstance(value, str) else ""
    ranged = _CONTENT_RANGE.fullmatch(text)
    text = ranged[1] if ranged else text
    if text == "*":
        return NamedTotal()
    rows = _whole_number(text or value)
    if rows is None:
        return NamedTotal(problem=f"the total at {where} is {quote(repr(value), _SHOWN)}, no number of rows")
    if relation not in (None, "eq"):
        return NamedTotal(problem=f"the total at {where} is {rows:,} or more")
    return NamedTotal(rows=rows, at_least=is_at_least(declared, rows))


def is_at_least(declared: Total, rows: int) -> bool:
    """Whether there may be more rows than a total names."""
    if isinstance(declared, UnknownTotal):
        return False
    return declared.at_least or (declared.capped_at is not None and rows >= declared.capped_at)


def _whole_number(value: Json) -> int | None:
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) <= 18 else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # A number that no bigint holds is as odd as a negative one.
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18
    return value if whole else None
