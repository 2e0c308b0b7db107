"""Writes pages into a target's table.

The straight way is one COPY into the table itself, behind a savepoint: half the work of staging and an INSERT
… SELECT (measured: 6.8 against 10.5 microseconds a row for a merge of new keys). Staging is for what COPY
cannot do: upserts, and rows that have to be cast one by one because one of them does not fit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from collect_ops.landing.bad_row_texts import cut_reason, without_secrets
from collect_ops.landing.encoding import Body, encoder_of, provenance
from collect_ops.landing.errors import LandingCollision, LandingRefused, OutsideTransaction
from collect_ops.landing.layout import ASIDE_SCHEMA, SCHEMA, aside_name, layout_of
from collect_ops.landing.model import BadRow, Landed, LandingPage, Origin
from collect_ops.landing.records import ascii_text
from collect_ops.landing.statements import Statements
from collect_ops.sources.model import Disposition, Source
from collect_ops.storage import AsyncConnection, errors, query

log = logging.getLogger(__name__)

T = TypeVar("T")

_MAX_VALUE_CHARS: Final = 200
_NOTHING_LANDED: Final = Landed(rows_landed=0, bad_rows=0, rows_written=0)

# SQLSTATE classes 22, 23 and 54: the values are at fault, not the statement or the server.
_DOES_NOT_FIT: Final = (errors.DataError, errors.IntegrityError, errors.ProgramLimitExceeded)
_KEY_IS_THERE: Final = (errors.UniqueViolation, errors.DeadlockDetected)


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
        # A merge of keys that are not there is a plain COPY. The first key that is there ends that for this
        # lander: a source that sends one again sends more, and each failed try costs a page.
        self._keys_are_new = self._merges
        self._statements: dict[str, Statements] = {}

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
        """
        if connection.info.transaction_status.name != "INTRANS":
            raise OutsideTransaction
        statements = self._statements_for(origin)
        if origin.first_page and not origin.fresh:
            await self._clear(connection, statements, origin)
        if not page.records:
            return _NOTHING_LANDED
        written, bad = await self._write(connection, statements, page, origin)
        if bad:
            # In a thread: an event loop that stands still renews no lease.
            kept = await asyncio.to_thread(without_secrets, bad, self._masked)
            await _keep(connection, kept, page, origin)
        return Landed(rows_landed=len(page.records) - len(bad), bad_rows=len(bad), rows_written=written)

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
    ) -> tuple[int, tuple[BadRow, ...]]:
        """Write the page as a whole, or row by row when that fails; returns rows written, and bad rows."""
        ending = provenance(self._encoder, origin, page.fetched_at)
        body = await self._encode(page, lambda: self._encoder.page(page.records, ending, plain=page.plain))
        try:
            return await self._write_whole(connection, statements, body), body.bad
        except _DOES_NOT_FIT as error:
            log.info(
                "page %s of shard %s is cast row by row: %s",
                page.page,
                origin.shard_no,
                self._masked(cut_reason(error.diag.message_primary or "")),
            )
        return await self._write_row_by_row(connection, statements, page, ending)

    async def _encode(self, page: LandingPage, encode: Callable[[], T]) -> T:
        """In a thread what may take long: an event loop that stands still renews no lease."""
        if self._encoder.takes_long(len(page.records), page.size_bytes):
            return await asyncio.to_thread(encode)
        return encode()

    async def _write_whole(self, connection: AsyncConnection, statements: Statements, body: Body) -> int:
        if not self._merges:
            return await _copy(connection, statements.copy, body.text)
        if self._keys_are_new:
            try:
                return await _copy(connection, statements.copy, body.text)
            except _KEY_IS_THERE:
                self._keys_are_new = False
        await connection.execute(statements.prepare)
        await _copy(connection, statements.copy_staging, body.text)
        return await self._land_staged(connection, statements)

    async def _write_row_by_row(
        self, connection: AsyncConnection, statements: Statements, page: LandingPage, ending: bytes
    ) -> tuple[int, tuple[BadRow, ...]]:
        rows = await self._encode(page, lambda: self._encoder.lines(page.records, ending))
        start = self._encoder.delimiter
        numbered = zip(rows.ordinals, rows.lines, strict=True)
        text = b"".join(b"%d%b%b\n" % (ordinal, start, line) for ordinal, line in numbered)
        await connection.execute(statements.prepare)
        await connection.execute(statements.prepare_cast)
        await _copy(connection, statements.copy_texts, text)
        await connection.execute(statements.cast)
        faults = await (await connection.execute(statements.faults)).fetchall()
        written = await self._land_staged(connection, statements)
        return written, (*rows.bad, *(self._bad_row(page, fault) for fault in faults))

    async def _land_staged(self, connection: AsyncConnection, statements: Statements) -> int:
        try:
            return (await connection.execute(statements.land_staged)).rowcount
        except errors.DeadlockDetected as error:
            raise LandingCollision(self._layout.table, str(error)) from error
        except _DOES_NOT_FIT as error:
            raise LandingRefused(self._layout.table, str(error)) from error

    def _bad_row(self, page: LandingPage, fault: Mapping[str, Any]) -> BadRow:
        ordinal, column = fault["ordinal"], fault["column_name"]
        record = page.records[ordinal]
        value = ascii_text(self._encoder.value(record, column), _MAX_VALUE_CHARS)
        reason = f"{column}: {value} does not fit {self._types[column]} ({fault['message']})"
        return BadRow(ordinal=ordinal, reason=reason, row_text=ascii_text(record))


async def _copy(connection: AsyncConnection, statement: bytes, text: bytes) -> int:
    """Copy, behind a savepoint; returns the number of rows."""
    async with connection.transaction(), connection.cursor() as cursor:
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
