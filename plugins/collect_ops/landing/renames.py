"""What has to be done to a table so that it fits, columns that only have another name renamed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from collect_ops.landing.errors import Difference
from collect_ops.landing.layout import ExistingColumn, ExistingTable, Layout, differences, quoted
from collect_ops.sources.model import Target


def mending(
    target: Target,
    layout: Layout,
    types: Mapping[str, str],
    existing: ExistingTable,
    earlier: Sequence[Target],
    *,
    rename: bool = True,
) -> tuple[Difference, ...]:
    """Where a table is not as declared; a column that only has another name is a rename.

    Args:
        target: What is declared.
        layout: Its layout.
        types: The layout's types in PostgreSQL's own words.
        existing: What is there.
        earlier: What the source has declared before, the newest first.
        rename: False adds a column for each one that is missing.
    """
    if not rename or existing.kind != "table":
        return differences(layout, types, existing)
    renames = proposed_renames(target, types, existing, earlier)
    where = quoted(layout.table)
    renamed = [
        Difference(
            part=new,
            has=f"it as column {old}",
            wants=f"column {new}",
            remedy=f'ALTER TABLE {where} RENAME COLUMN "{old}" TO "{new}"',
        )
        for new, old in renames.items()
    ]
    return (*renamed, *differences(layout, types, after_renames(existing, renames)))


def proposed_renames(
    target: Target, types: Mapping[str, str], existing: ExistingTable, earlier: Sequence[Target]
) -> dict[str, str]:
    """Declared columns that the table has under another name: new names with old ones.

    An old column is one that nobody declares any more. It is the new one when its values stood at the same place of a
    record; else when it stands at the same place of the table and has the same type.
    """
    found: dict[str, str] = {}
    for new, old in (*_by_path(target, existing, earlier), *_by_position(target, types, existing)):
        if new not in found and old not in found.values():
            found[new] = old
    return found


def after_renames(existing: ExistingTable, renames: Mapping[str, str]) -> ExistingTable:
    """The table as it is when columns have been renamed."""
    new_names = {old: new for new, old in renames.items()}
    return replace(
        existing,
        columns={new_names.get(name, name): column for name, column in existing.columns.items()},
        key=tuple(new_names.get(name, name) for name in existing.key),
    )


def after_mending(layout: Layout, types: Mapping[str, str], renamed: ExistingTable) -> ExistingTable:
    """The table as it is when it has been mended.

    Args:
        layout: What it fits then.
        types: The layout's types in PostgreSQL's own words.
        renamed: What is there, from `after_renames`.
    """
    declared = {
        column.name: ExistingColumn(type=types[column.name], must_be_given=False) for column in layout.columns
    }
    others = {
        name: replace(column, must_be_given=False)
        for name, column in renamed.columns.items()
        if name not in declared
    }
    return replace(renamed, columns={**declared, **others}, key=layout.key)


def _by_path(target: Target, existing: ExistingTable, earlier: Sequence[Target]) -> Iterator[tuple[str, str]]:
    spare = _spare(target, existing)
    for new in _missing(target, existing):
        wanted = _path(target, new)
        for old in spare:
            declared = next((each for each in earlier if old in each.columns), None)
            # Without an earlier declaration a column holds the field of its own name.
            if wanted == (old if declared is None else _path(declared, old)):
                yield new, old


def _by_position(
    target: Target, types: Mapping[str, str], existing: ExistingTable
) -> Iterator[tuple[str, str]]:
    missing, spare = set(_missing(target, existing)), set(_spare(target, existing))
    there = [name for name in existing.columns if not name.startswith("_")]
    if [name for name in there if name in target.columns] != [
        n for n in target.columns if n in existing.columns
    ]:
        return  # the table was not made in the declared order, so places tell nothing
    for new, old in zip(target.columns, there, strict=False):
        if new in missing and old in spare and types[new] == existing.columns[old].type:
            yield new, old


def _missing(target: Target, existing: ExistingTable) -> list[str]:
    return [name for name in target.columns if name not in existing.columns]


def _spare(target: Target, existing: ExistingTable) -> list[str]:
    """Columns that may have been declared once and are not now; declared names do not begin with an underscore."""
    return [name for name in existing.columns if name not in target.columns and name[:1].islower()]


def _path(target: Target, name: str) -> str:
    return target.columns[name].path or name
