"""What a walk through the pages of a span remembers, and what it makes of a page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from collect_ops.collectors.conditional import Recall, Validator
from collect_ops.collectors.content import ShardReader
from collect_ops.collectors.page import Position, Span
from collect_ops.collectors.paging import Reply, Step, names_itself
from collect_ops.collectors.totals import NamedTotal
from collect_ops.sources.request import RenderedRequest

#: What a position holds beside its pager's own fields.
OWN_FIELDS: Final = ("page", "rows", "total")


@dataclass(slots=True, kw_only=True)
class Walk:
    """What a walk remembers: to notice when it goes in circles, and when it has come to its end.

    Args:
        reader: Reads its pages as rows; None parses them.
        resumed: It goes on from a stored position.
        start_over: Where that position is refused, the shard may begin anew.
        scope: What pages must have in common beside their rows to be equal, where they are all of the shard.
        rows: Rows so far, those before a resume included.
        total: The newest total that a page has named.
        previous: What the rows of the page before are known by.
    """

    span: Span
    request: RenderedRequest
    recall: Recall | None = None
    reader: ShardReader | None = None
    resumed: bool = False
    start_over: bool = False
    scope: bytes = b""
    seen: set[int] = field(default_factory=set)
    requests: int = 0
    empty_in_a_row: int = 0
    rows: int = 0
    total: int | None = None
    previous: bytes | Sequence[Any] | None = None

    def go_on_from(self, position: Position) -> None:
        """Take over what a stored position says of the pages before it."""
        self.resumed = True
        self.rows = _stored_count(position, "rows") or 0
        self.total = _stored_count(position, "total")

    def ends_at_itself(self, asked: Position, url: str, looked: Looked) -> bool:
        """Whether a page names itself as the next one, and means by it that there is none.

        It may when it holds other rows than the page before, and does when as many rows have come as there are. A first
        page that names itself, or a page with the rows of the one before, is no end: what paging asks for is ignored.

        Args:
            asked: The position that the page was asked for at.
            url: The URL that was asked.
            looked: The page.
        """
        following = looked.step.next
        if following is None or not looked.own:
            return False
        if following.get("url") == url:
            first = asked.get("url") is None
        elif names_itself(asked, following):
            first = False
        else:
            return False
        known = looked.known
        return self.complete or (not first and known is not None and known != self.previous)

    @property
    def complete(self) -> bool:
        """Whether as many rows have come as the source has named."""
        return self.total is not None and self.rows >= self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """What a page holds, or held when it is unchanged.

    Args:
        ended: It says that there are no more rows.
    """

    records: Sequence[Any]
    reply: Reply
    named: NamedTotal = field(default_factory=NamedTotal)
    ended: bool = False
    unchanged: Validator | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What came of looking through a page.

    Args:
        step: Where paging goes on.
        kept: The records to land.
        sent: How many records of the shard the server sent.
        own: These, as sent.
        fingerprint: What they are known by.
    """

    got: Got
    step: Step
    kept: Sequence[Any]
    sent: int
    own: Sequence[Any]
    fingerprint: bytes | None

    @property
    def known(self) -> bytes | Sequence[Any] | None:
        """What its rows are known by; one row without a key by itself."""
        return self.fingerprint or (self.own if len(self.own) == 1 else None)


def _stored_count(position: Position | None, field: str) -> int | None:
    """A count that a position holds since it came from this kind of collector; None where it holds none."""
    value = None if position is None else position.get(field)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
