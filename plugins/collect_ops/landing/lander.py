"""Writes pages into a target's table.

The straight way is one COPY into the table itself, behind a savepoint: half the work of staging and an INSERT
… SELECT (measured: 6.8 against 10.5 microseconds a row for a merge of new keys). Staging is for what COPY
cannot do: upserts, and rows that have to be cast one by one because one of them does not fit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from collect_ops.collectors.content import Records
from collect_ops.landing.bad_row_texts import cut_reason, without_secrets
from collect_ops.landing.encoding import Body, encoder_of, kind_of_record, provenance
from collect_ops.landing.errors import (
    LandingCollision,
    LandingRefused,
    OutsideTransaction,
    RecordsNotObjects,
)
from collect_ops.landing.layout import ASIDE_SCHEMA, SCHEMA, aside_name, layout_of
from collect_ops.landing.model import BadRow, Json, Landed, LandingPage, Origin
from collect_ops.landing.records import ascii_text
from collect_ops.landing.statements import Statements
from collect_ops.landing.typed_rows import RowType
from collect_ops.sources.model import Disposition, Source
from collect_ops.storage import AsyncConnection, errors, query

log = logging.getLogger(__name__)

T = TypeVar("T")

_MAX_VALUE_CHARS: Final = 200
_NOTHING_LANDED: Final = Landed(rows_landed=0, bad_rows=0, rows_written=0)

# SQLSTATE classes 22, 23 and 54: the values are at fault, not the statement or the server.
_DOES_NOT_FIT: Final = (errors.DataError, errors.IntegrityError, errors.ProgramLimitExceeded)
_KEY_IS_THERE: Final = (errors.UniqueViolation, errors.DeadlockDetected)


@dataclass(frozen=True, slots=True)
class _Written:
    rows: int
    repeated: int = 0


class PlainTries:
    """When a merge tries to be a plain COPY, which succeeds as long as its keys are new.

    A failed try costs a page, so after a collision that page is staged, and after another the next ones as well: 2, 4
    and up to 64 pages before the next try. So a key that is sent twice costs its page and not the run, and a refresh of
    rows that are all there costs hardly more than staging.
    """

    def __init__(self) -> None:
        self._staged_next = 0
        self._stretch = 1

    def is_due(self) -> bool:
        """Whether the next page is tried as a plain COPY; counts the page."""
        if self._staged_next > 0:
            self._staged_next -= 1
            return False
        return True

    def collided(self) -> None:
        """A try has met a key that is there."""
        self._staged_next = self._stretch - 1
        self._stretch = min(_MAX_STRETCH, 2 * self._stretch)

    def succeeded(self) -> None:
        """A try has met none."""
        self._stretch = max(1, self._stretch // 2)


#: Pages that are staged in a row at most before a merge is tried as a plain COPY again.
_MAX_STRETCH: Final = 64


class Lander:
    """Lands the pages of one source. Made once, used for every page, on any number of connections.

    Args:
        source: What is collected. Its target's table is there (`ensure_target`, `ensure_aside`).
        masked: Masks the secrets that the server was sent: it may repeat them in records that do not fit.

    Raises:
        DeclarationUnusable: The target declares what no table can be made of.
    """

    def __init__(self, source: Source, *, masked: Callable[[str], str] = str) -> None:
        self._masked = masked
        self._layout = layout_of(source.target)
        self._encoder = encoder_of(source.target, self._layout)
        self._types = {column.name: column.type for column in self._layout.columns}
        self._merges = self._layout.disposition is Disposition.MERGE
        self._plain = PlainTries()
        self._records = source.records
        self._needs_objects = bool(source.target.columns or self._layout.key)
        self._statements: dict[str, Statements] = {}

    @property
    def row_type(self) -> RowType | None:
        """What pages may be read as, to land without being parsed; None where the target needs records."""
        return self._encoder.row_type

    async def land(self, connection: AsyncConnection, page: LandingPage, origin: Origin) -> Landed:
        """Write a page, within the caller's transaction.

        Args:
            connection: In the transaction that has fenced the shard and will commit its progress.
            page: The records.
            origin: Whose they are.

        Returns:
            What became of the records.

        Raises:
            OutsideTransaction: The connection is in no transaction.
            LandingCollision: Equal keys of another page; the caller rolls back and lands the page again.
            LandingRefused: Something on the table that is not ours refuses the rows.
            RecordsNotObjects: The records are lists, texts or numbers, and the target has columns.
        """
        if connection.info.transaction_status.name != "INTRANS":
            raise OutsideTransaction
        statements = self._statements_for(origin)
        if origin.first_page and not origin.fresh:
            await self._clear(connection, statements, origin)
        if not page.records:
            return _NOTHING_LANDED
        self._refuse_shapeless(page)
        written, bad = await self._write(connection, statements, page, origin)
        if bad:
            # In a thread: an event loop that stands still renews no lease.
            kept = await asyncio.to_thread(without_secrets, bad, self._masked)
            await _keep(connection, kept, page, origin)
        return Landed(
            rows_landed=len(page.records) - len(bad),
            bad_rows=len(bad),
            rows_written=written.rows,
            rows_repeated=written.repeated,
        )

    def _refuse_shapeless(self, page: LandingPage) -> None:
        """A page without a single object is no page of bad rows: the declaration looks in the wrong place."""
        if not self._needs_objects or isinstance(page.records, Records):
            return
        for record in page.records:
            if isinstance(record, dict):
                return
        shaped = next((record for record in page.records if record is not None), None)
        if shaped is not None:
            raise RecordsNotObjects(self._layout.table, kind_of_record(shaped), self._records)

    def _statements_for(self, origin: Origin) -> Statements:
        aside = self._layout.disposition is Disposition.REPLACE
        schema = ASIDE_SCHEMA if aside else SCHEMA
        name = aside_name(self._layout.table, origin.task_id) if aside else self._layout.table
        if name not in self._statements:
            encoder = self._encoder
            self._statements = {
                name: Statements.compose(self._layout, (schema, name), encoder.columns, encoder.copy_options)
            }
        return self._statements[name]

    async def _clear(self, connection: AsyncConnection, statements: Statements, origin: Origin) -> None:
        shard = {"task_id": origin.task_id, "shard_no": origin.shard_no}
        await connection.execute(query("landing/clear_bad_rows"), shard)
        if not self._merges:
            await connection.execute(statements.clear, shard)

    async def _write(
        self, connection: AsyncConnection, statements: Statements, page: LandingPage, origin: Origin
    ) -> tuple[_Written, tuple[BadRow, ...]]:
        """Write the page as a whole, or row by row when that fails; returns what was written, and bad rows."""
        ending = provenance(self._encoder, origin, page.fetched_at)
        body = self._body_of_rows(page, ending)
        if body is None:
            body = await self._encode(
                page, lambda: self._encoder.page(_parsed(page), ending, plain=page.plain)
            )
        try:
            return await self._write_whole(connection, statements, body, origin), body.bad
        except _DOES_NOT_FIT as error:
            log.info(
                "page %s of shard %s is cast row by row: %s",
                page.page,
                origin.shard_no,
                self._masked(cut_reason(error.diag.message_primary or "")),
            )
        return await self._write_row_by_row(connection, statements, page, ending, origin)

    def _body_of_rows(self, page: LandingPage, ending: bytes) -> Body | None:
        return self._encoder.typed_page(page.records, ending) if isinstance(page.records, Records) else None

    async def _encode(self, page: LandingPage, encode: Callable[[], T]) -> T:
        """In a thread what may take long: an event loop that stands still renews no lease."""
        if self._encoder.takes_long(len(page.records), page.size_bytes):
            return await asyncio.to_thread(encode)
        return encode()

    async def _write_whole(
        self, connection: AsyncConnection, statements: Statements, body: Body, origin: Origin
    ) -> _Written:
        if not self._merges:
            return _Written(await _copy(connection, statements.copy, body.text))
        if self._plain.is_due():
            try:
                written = _Written(await _copy(connection, statements.copy, body.text))
            except _KEY_IS_THERE:
                self._plain.collided()
            else:
                self._plain.succeeded()
                return written
        async with connection.transaction():
            await connection.execute(statements.prepare)
            staged = await _send(connection, statements.copy_staging, body.text)
            return await self._land_staged(connection, statements, origin, staged)

    async def _write_row_by_row(
        self,
        connection: AsyncConnection,
        statements: Statements,
        page: LandingPage,
        ending: bytes,
        origin: Origin,
    ) -> tuple[_Written, tuple[BadRow, ...]]:
        rows = await self._encode(page, lambda: self._encoder.lines(page.records, ending))
        start = self._encoder.delimiter
        numbered = [
            b"%d%b%b\n" % (ordinal, start, line)
            for ordinal, line in zip(rows.ordinals, rows.lines, strict=True)
        ]
        written, faults = await self._cast(connection, statements, numbered, rows.ordinals, origin)
        return written, (*rows.bad, *(self._bad_row(page, fault) for fault in faults))

    async def _cast(
        self,
        connection: AsyncConnection,
        statements: Statements,
        lines: Sequence[bytes],
        ordinals: Sequence[int],
        origin: Origin,
    ) -> tuple[_Written, list[Mapping[str, Any]]]:
        """Cast and land rows; those that are too large for PostgreSQL are found by halving."""
        if not lines:
            return _Written(0), []
        try:
            async with connection.transaction():
                await connection.execute(statements.prepare)
                await connection.execute(statements.prepare_cast)
                await _send(connection, statements.copy_texts, b"".join(lines))
                await connection.execute(statements.cast)
                found = await (await connection.execute(statements.faults)).fetchall()
                staged = len(lines) - len(found)
                return await self._land_staged(connection, statements, origin, staged), list(found)
        except errors.ProgramLimitExceeded as error:
            if len(lines) == 1:
                fault = {"ordinal": ordinals[0], "column_name": None, "message": error.diag.message_primary}
                return _Written(0), [fault]
        half = len(lines) // 2
        first, faults = await self._cast(connection, statements, lines[:half], ordinals[:half], origin)
        second, more = await self._cast(connection, statements, lines[half:], ordinals[half:], origin)
        return _Written(first.rows + second.rows, first.repeated + second.repeated), [*faults, *more]

    async def _land_staged(
        self, connection: AsyncConnection, statements: Statements, origin: Origin, staged: int
    ) -> _Written:
        try:
            if not self._merges:
                return _Written((await connection.execute(statements.land_staged)).rowcount)
            landing = await connection.execute(statements.land_staged, {"since": origin.landed_since})
        except errors.DeadlockDetected as error:
            raise LandingCollision(self._layout.table, str(error)) from error
        except errors.ProgramLimitExceeded:
            raise  # a single row, which is found by casting them one by one
        except _DOES_NOT_FIT as error:
            raise LandingRefused(self._layout.table, str(error)) from error
        counts = await (await connection.execute(statements.counted)).fetchone()
        assert counts is not None  # noqa: S101 - counts are one row
        # Of equal keys within the page one was chosen, and that was written or left.
        doubles = staged - landing.rowcount - counts["skipped"]
        return _Written(landing.rowcount, counts["repeated"] + doubles)

    def _bad_row(self, page: LandingPage, fault: Mapping[str, Any]) -> BadRow:
        ordinal, column = fault["ordinal"], fault["column_name"]
        record = page.records[ordinal]
        if column is None:
            reason = f"PostgreSQL cannot store the row ({fault['message']})"
            return BadRow(ordinal=ordinal, reason=reason, row_text=ascii_text(record))
        value = ascii_text(self._encoder.value(record, column), _MAX_VALUE_CHARS)
        reason = f"{column}: {value} does not fit {self._types[column]} ({fault['message']})"
        return BadRow(ordinal=ordinal, reason=reason, row_text=ascii_text(record))


def _parsed(page: LandingPage) -> Sequence[Json]:
    return page.records.parsed() if isinstance(page.records, Records) else page.records


async def _copy(connection: AsyncConnection, statement: bytes, text: bytes) -> int:
    """Copy, behind a savepoint; returns the number of rows."""
    async with connection.transaction():
        return await _send(connection, statement, text)


async def _send(connection: AsyncConnection, statement: bytes, text: bytes) -> int:
    async with connection.cursor() as cursor:
        async with cursor.copy(statement) as copy:
            await copy.write(text)
        return cursor.rowcount


async def _keep(
    connection: AsyncConnection, bad: tuple[BadRow, ...], page: LandingPage, origin: Origin
) -> None:
    await connection.execute(
        query("landing/insert_bad_rows"),
        {
            "task_id": origin.task_id,
            "shard_no": origin.shard_no,
            "page": page.page,
            "ordinals": [row.ordinal for row in bad],
            "reasons": [row.reason for row in bad],
            "row_texts": [row.row_text for row in bad],
        },
    )
