"""The memory of pages that have landed: kept, recalled and vouched for, so that an unchanged page need not come again.

Promises: what is remembered was committed with its rows; it counts no more once rows were deleted, the table was
emptied or made anew, or another declaration has landed in it. Does not see rows that a person has changed in place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

from collect_ops.collectors.conditional import Known, Validator
from collect_ops.kernel.backends import Backends
from collect_ops.sources.model import Source
from collect_ops.sources.paging_rules import counts_rows
from collect_ops.storage import AsyncConnection, Jsonb, connect, query

#: How long a page is remembered that nobody asks for, in seconds.
KEEP_S: Final = 90 * 86_400.0
#: Of a target that another declaration lands in at this moment: nothing is remembered of it.
_NO_EPOCH: Final = -1
#: Beside where paging goes on.
_FINGERPRINT: Final = "fingerprint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """A time in which nothing has happened to a target that would make remembered pages wrong."""

    memory: PageMemory
    number: int

    async def recall(self, request: bytes) -> Validator | None:
        """What a request's page was known by when it landed; None when it is not known, or must come in full again."""
        return await self.memory.recall(request, self.number)

    async def vouch(self, connection: AsyncConnection, known: Known) -> bool:
        """Whether an unchanged page's rows are still there as they landed.

        Args:
            connection: In the transaction that counts the page.
            known: The page.
        """
        validator = known.validator
        if validator is None:
            return False
        values = {"etag": validator.etag, "last_modified": validator.last_modified}
        cursor = await connection.execute(query("landing/vouch_page"), {**self._key(known), **values})
        return await cursor.fetchone() is not None

    async def remember(
        self, connection: AsyncConnection, known: Known, fetched_at: datetime, *, whole: bool
    ) -> None:
        """Keep what a page is known by, or forget what it was known by before.

        Args:
            connection: In the transaction that lands the page.
            known: The page.
            fetched_at: When it was asked for, in database time.
            whole: Whether all its rows have landed.
        """
        values = {**self._key(known), "fetched_at": fetched_at}
        validator = known.validator
        if validator is None or not whole:
            await connection.execute(query("landing/forget_page"), values)
            return
        await connection.execute(
            query("landing/remember_page"),
            {
                **values,
                "source": self.memory.source,
                "etag": validator.etag,
                "last_modified": validator.last_modified,
                "rows": validator.rows,
                "total": validator.total,
                "following": _stored(validator, counted=self.memory.counted),
            },
        )

    def _key(self, known: Known) -> dict[str, Any]:
        return {"table_name": self.memory.table, "request": known.request, "epoch": self.number}


class PageMemory:
    """What is remembered of the pages of one source; an async context manager around one connection for recalling.

    Args:
        source: A conditional source.
        version: The hash of its declaration.
        connect: Opens a connection.
    """

    def __init__(
        self, source: Source, version: bytes, connect: Callable[[], Awaitable[AsyncConnection]]
    ) -> None:
        if source.conditional is None:
            raise ValueError(f"source {source.name} does not ask conditionally")
        self.source = source.name
        self.table = source.target.table
        self.counted = counts_rows(source.paging)
        self.version = version
        self._full_after_s = source.conditional.full_after_h * 3600
        self._connect = connect
        self._connection: AsyncConnection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def begin(self, connection: AsyncConnection) -> Epoch:
        """The target's epoch, before anything of a shard lands.

        Args:
            connection: In no transaction.
        """
        target = {"table_name": self.table, "version": self.version}
        row = await (await connection.execute(query("landing/select_epoch"), target)).fetchone()
        if row is None:
            await connection.execute(query("landing/take_epoch"), target)
            row = await (await connection.execute(query("landing/select_epoch"), target)).fetchone()
        return Epoch(memory=self, number=_NO_EPOCH if row is None else row["epoch"])

    async def recall(self, request: bytes, epoch: int) -> Validator | None:
        """What a request's page was known by when it landed in this epoch.

        Raises:
            psycopg.OperationalError: The database went away.
            DatabaseUnavailable: Likewise.
        """
        # A connection of its own: the shard's is in the middle of landing the page before.
        if self._connection is None or self._connection.closed:
            self._connection = await self._connect()
        values = {
            "table_name": self.table,
            "request": request,
            "epoch": epoch,
            "full_after_s": self._full_after_s,
        }
        cursor = await self._connection.execute(query("landing/recall_page"), values)
        row = await cursor.fetchone()
        return None if row is None else _recalled(row)


def _stored(validator: Validator, *, counted: bool) -> Jsonb | None:
    """Where paging goes on, and beside it what the page's rows are known by.

    Processes of release 0.1.0 take nothing from it where paging counts rows, and elsewhere only what they know. To them
    anything would be a next page, where a page that names none is the last one: that is stored as it is.
    """
    following, fingerprint = validator.following, validator.fingerprint
    if fingerprint is not None and (counted or following is not None):
        following = {**(following or {}), _FINGERPRINT: fingerprint.hex()}
    return None if following is None else Jsonb(following)


def _recalled(row: Mapping[str, Any]) -> Validator:
    following = {**(row["following"] or {})}
    fingerprint = following.pop(_FINGERPRINT, None)
    known_by = None if fingerprint is None else bytes.fromhex(fingerprint)
    return Validator(**{**row, "following": following or None, "fingerprint": known_by})


def prune(backends: Backends, *, keep_s: float = KEEP_S) -> int:
    """Forget pages that nobody has asked for in so many seconds; returns how many. Safe to run twice at once."""
    with connect(backends.postgres_dsn, application_name="collect-ops prune") as connection:
        return connection.execute(query("landing/prune_validators"), {"keep_s": keep_s}).rowcount
