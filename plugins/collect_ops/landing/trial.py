"""Whether records fit a target's columns: landing's own encoding and casts, without landing anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from collect_ops.landing.encoding import encoder_of, provenance
from collect_ops.landing.layout import SCHEMA, layout_of
from collect_ops.landing.model import BadRow, Json, Origin
from collect_ops.landing.records import ascii_text
from collect_ops.landing.statements import Statements
from collect_ops.sources.model import Target
from collect_ops.storage import AsyncConnection

_MAX_VALUE_CHARS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """A record that would be a bad row.

    Args:
        ordinal: Its place in the page, from 0.
        column: The column that it does not fit; None when the record cannot be a row at all.
        type: That column's declared type.
        value: What the record gives for it, as JSON.
        problem: Why, in PostgreSQL's words or landing's.
    """

    ordinal: int
    column: str | None
    type: str | None
    value: str | None
    problem: str


async def try_casts(connection: AsyncConnection, target: Target, records: Sequence[Json]) -> list[Misfit]:
    """The records that would not fit, in their order. Writes temporary tables only, and rolls them back.

    Args:
        connection: In autocommit; its user may make temporary tables.
        target: Where they would land.
        records: JSON values.

    Raises:
        DeclarationUnusable: The target declares what no table can be made of.
    """
    layout = layout_of(target)
    encoder = encoder_of(target, layout)
    statements = Statements.compose(layout, (SCHEMA, layout.table), encoder.columns, encoder.copy_options)
    rows = encoder.lines(records, provenance(encoder, Origin(task_id=0, shard_no=0), datetime.now(UTC)))
    numbered = zip(rows.ordinals, rows.lines, strict=True)
    text = b"".join(b"%d%b%b\n" % (ordinal, encoder.delimiter, line) for ordinal, line in numbered)
    async with connection.transaction(force_rollback=True), connection.cursor() as cursor:
        await cursor.execute(statements.prepare)
        await cursor.execute(statements.prepare_cast)
        async with cursor.copy(statements.copy_texts) as copy:
            await copy.write(text)
        await cursor.execute(statements.cast)
        faults = await (await cursor.execute(statements.faults)).fetchall()
    types = {column.name: column.type for column in layout.columns}
    misfits = [
        Misfit(
            ordinal=fault["ordinal"],
            column=fault["column_name"],
            type=types[fault["column_name"]],
            value=ascii_text(
                encoder.value(records[fault["ordinal"]], fault["column_name"]), _MAX_VALUE_CHARS
            ),
            problem=fault["message"],
        )
        for fault in faults
    ]
    misfits += map(misfit_of, rows.bad)
    return sorted(misfits, key=lambda each: each.ordinal)


def misfit_of(row: BadRow) -> Misfit:
    """A record that cannot be a row at all; an ellipsis says where it was cut, to whoever masks it, too."""
    text = row.row_text
    value = text if len(text) <= _MAX_VALUE_CHARS else f"{text[:_MAX_VALUE_CHARS]}..."
    return Misfit(ordinal=row.ordinal, column=None, type=None, value=value, problem=row.reason)
