"""What the table of a target looks like: pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from collect_ops.landing.errors import DeclarationUnusable, Difference
from collect_ops.sources.model import Disposition, Target

SCHEMA: Final = "landing"
ASIDE_SCHEMA: Final = "landing_aside"

#: What is not declared goes here, as one JSON object.
EXTRA: Final = "_extra"
#: A target without columns holds whole records here.
DOCUMENT: Final = "document"
#: The key of a merged target without columns: a JSON array of the key fields' values.
DOCUMENT_KEY: Final = "_key"

#: PostgreSQL cuts longer names silently, and two that differ only beyond it would be one.
_MAX_NAME_BYTES: Final = 63

# The declaration's text goes into DDL as it stands, so nothing but a type may pass.
_TYPE: Final = re.compile(
    r"[a-z][a-z0-9_]*( [a-z]+)*( ?\( ?\d{1,4}( ?, ?\d{1,4})? ?\))?( (with|without) time zone)?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumn:
    """A column: its type as PostgreSQL is told it, and whether it may not be NULL."""

    name: str
    type: str
    required: bool = False


#: Where each row came from.
PROVENANCE: Final = (
    TableColumn(name="_task_id", type="bigint", required=True),
    TableColumn(name="_shard", type="integer", required=True),
    TableColumn(name="_fetched_at", type="timestamp with time zone", required=True),
    TableColumn(name="_content_hash", type="bytea", required=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The table of a target.

    Args:
        table: Its name in schema `landing`.
        data: The columns that hold what was collected, in order.
        key: The columns of the primary key; empty unless rows are merged.
        disposition: What landing does with rows that are there.
    """

    table: str
    data: tuple[TableColumn, ...]
    key: tuple[str, ...]
    disposition: Disposition

    @property
    def columns(self) -> tuple[TableColumn, ...]:
        """All columns, in the order of the table."""
        return (*self.data, *PROVENANCE)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that change with columns, types, key or table."""
        text = repr(
            (self.table, [(column.name, column.type, column.required) for column in self.data], self.key)
        )
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def layout_of(target: Target) -> Layout:
    """The layout of a declared target.

    Raises:
        DeclarationUnusable: A type is not one, or a key cannot be made.
    """
    merges = target.disposition is Disposition.MERGE
    if merges and not target.key:
        raise DeclarationUnusable(
            target.table, "key", "", "disposition merge needs the fields that identify a row"
        )
    if not target.columns:
        return _document_layout(target, merges=merges)
    key = target.key if merges else ()
    for name in key:
        if name not in target.columns:
            raise DeclarationUnusable(target.table, "key", name, f"allowed: {', '.join(target.columns)}")
    declared = tuple(
        TableColumn(name=name, type=_checked_type(target.table, name, column.type), required=name in key)
        for name, column in target.columns.items()
    )
    extra = TableColumn(name=EXTRA, type="jsonb")
    return Layout(table=target.table, data=(*declared, extra), key=key, disposition=target.disposition)


def _document_layout(target: Target, *, merges: bool) -> Layout:
    document = TableColumn(name=DOCUMENT, type="jsonb", required=True)
    if not merges:
        return Layout(table=target.table, data=(document,), key=(), disposition=target.disposition)
    key = TableColumn(name=DOCUMENT_KEY, type="jsonb", required=True)
    return Layout(
        table=target.table, data=(key, document), key=(DOCUMENT_KEY,), disposition=target.disposition
    )


def _checked_type(table: str, column: str, declared: str) -> str:
    if not _TYPE.fullmatch(declared):
        raise DeclarationUnusable(
            table,
            f"columns.{column}.type",
            declared,
            "it must be a PostgreSQL type such as integer or numeric(10, 2)",
        )
    return declared


def aside_name(table: str, task_id: int) -> str:
    """The name, in schema `landing_aside`, of the table that a task of disposition replace lands in."""
    return fitting_name(table, f"__{task_id}")


def fitting_name(stem: str, ending: str) -> str:
    """`stem + ending`; when PostgreSQL would cut that, what fits of the stem and a digest of it."""
    if len(stem) + len(ending) <= _MAX_NAME_BYTES:
        return stem + ending
    digest = hashlib.blake2b(stem.encode(), digest_size=4).hexdigest()
    return f"{stem[: _MAX_NAME_BYTES - len(ending) - len(digest) - 1]}_{digest}{ending}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingColumn:
    """A column that is there: its type in PostgreSQL's own words, and whether an INSERT must give it."""

    type: str
    must_be_given: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingTable:
    """A relation that is there.

    Args:
        kind: `table`, or what it is instead (`view`, …).
        columns: By name, in the table's order.
        key: The columns of its primary key.
        key_name: The primary key's constraint, None without one.
    """

    kind: str
    columns: Mapping[str, ExistingColumn]
    key: tuple[str, ...]
    key_name: str | None


def differences(layout: Layout, types: Mapping[str, str], existing: ExistingTable) -> tuple[Difference, ...]:
    """Where a table is not as declared.

    Columns beyond the declared ones are allowed as long as an INSERT need not give them, so that a person may
    add some, and a column may leave the declaration.

    Args:
        layout: What is wanted.
        types: The wanted columns' types in PostgreSQL's own words (`int` is `integer` there).
        existing: What is there.
    """
    where = quoted(layout.table)
    if existing.kind != "table":
        remedy = f"ALTER {existing.kind.upper()} {where} RENAME TO …"
        return (Difference(part="table", has=f"a {existing.kind}", wants="a table", remedy=remedy),)
    found = [
        difference
        for column in layout.columns
        if (
            difference := _column_difference(
                where, column.name, types[column.name], existing.columns.get(column.name)
            )
        )
    ]
    found += _undeclared_required(where, layout, existing)
    return (*found, *_key_difference(where, layout, existing))


def _column_difference(where: str, name: str, wants: str, has: ExistingColumn | None) -> Difference | None:
    if has is None:
        return _difference(where, name, "no such column", wants, f'ADD COLUMN "{name}" {wants}')
    if has.type == wants:
        return None
    action = f'ALTER COLUMN "{name}" TYPE {wants} USING "{name}"::{wants}'
    return _difference(where, name, has.type, wants, action, rewrites=True)


def _difference(
    where: str, part: str, has: str, wants: str, action: str, *, rewrites: bool = False
) -> Difference:
    remedy = f"ALTER TABLE {where} {action}"
    return Difference(part=part, has=has, wants=wants, remedy=remedy, action=action, rewrites=rewrites)


def _undeclared_required(where: str, layout: Layout, existing: ExistingTable) -> list[Difference]:
    declared = {column.name for column in layout.columns}
    return [
        _difference(
            where,
            name,
            f"{column.type} NOT NULL without a default",
            "no such column",
            f"ALTER COLUMN {_quoted(name)} DROP NOT NULL",
        )
        for name, column in existing.columns.items()
        if name not in declared and column.must_be_given
    ]


def _key_difference(where: str, layout: Layout, existing: ExistingTable) -> tuple[Difference, ...]:
    if set(layout.key) == set(existing.key):
        return ()
    drop = f"DROP CONSTRAINT {_quoted(existing.key_name)}" if existing.key_name else ""
    names = ", ".join(f'"{name}"' for name in layout.key)
    add = f"ADD PRIMARY KEY ({names})" if layout.key else ""
    action = ", ".join(part for part in (drop, add) if part)
    return (_difference(where, "key", _key_words(existing.key), _key_words(layout.key), action),)


def quoted(table: str) -> str:
    """A target's name as statements write it."""
    return f"{SCHEMA}.{_quoted(table)}"


def _quoted(name: str) -> str:
    """Of what people have made by hand any name may be one."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _key_words(key: tuple[str, ...]) -> str:
    return f"PRIMARY KEY ({', '.join(key)})" if key else "no primary key"
