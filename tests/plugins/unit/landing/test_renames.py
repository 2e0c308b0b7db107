"""What mends a table: renames where a column only has another name, and all the rest as one statement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.landing.errors import Difference, TargetMismatch, statements_of
from collect_ops.landing.layout import ExistingColumn, ExistingTable, layout_of, quoted
from collect_ops.landing.renames import after_mending, after_renames, differences, mending, proposed_renames
from collect_ops.sources.model import Column, Disposition, Target


def a_target(key: tuple[str, ...] = (), **columns: str | tuple[str, str]) -> Target:
    """Columns by name: their type, or type and path."""
    declared = {
        name: Column(type=given) if isinstance(given, str) else Column(type=given[0], path=given[1])
        for name, given in columns.items()
    }
    disposition = Disposition.MERGE if key else Disposition.APPEND
    return Target(table="t", columns=declared, key=key, disposition=disposition)


def types_of(target: Target) -> dict[str, str]:
    return {column.name: column.type for column in layout_of(target).columns}


def made_by(target: Target) -> ExistingTable:
    layout = layout_of(target)
    columns = {
        column.name: ExistingColumn(type=column.type, must_be_given=column.required)
        for column in layout.columns
    }
    return ExistingTable(
        kind="table", columns=columns, key=layout.key, key_name="t_pkey" if layout.key else None
    )


def mends(target: Target, existing: ExistingTable, *earlier: Target) -> tuple[Difference, ...]:
    return mending(target, layout_of(target), types_of(target), existing, earlier)


def renames(target: Target, *earlier: Target) -> dict[str, str]:
    return proposed_renames(target, types_of(target), made_by(earlier[-1]), earlier)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # the same path, wherever it stands and whatever its type
        ({"id": "integer", "dep": ("integer", "times.dep")}, {"departure": ("bigint", "times.dep"), "id": "integer"},
         {"departure": "dep"}),
        # the field of the old name
        ({"id": "integer", "n": "integer"}, {"count": ("bigint", "n"), "id": "integer"}, {"count": "n"}),
        # the same place and type
        ({"id": "integer", "name": "text"}, {"id": "integer", "title": "text"}, {"title": "name"}),
        # the same place, another type
        ({"id": "integer", "name": "text"}, {"id": "integer", "born": "date"}, {}),
        # a table whose columns stand in another order
        ({"at": "date", "id": "integer", "a": "text"}, {"id": "integer", "at": "date", "b": "text"}, {}),
        # another place
        ({"id": "integer", "name": "text"}, {"title": "text", "id": "integer"}, {}),
        # nothing is taken from a column that is still declared
        ({"id": "integer", "n": "integer"}, {"id": "integer", "n": "integer", "m": ("integer", "n")}, {}),
        # two that changed places by path are not renamed by place
        ({"a": ("text", "x"), "b": ("text", "y")}, {"c": ("text", "y"), "d": ("text", "x")}, {"c": "b", "d": "a"}),
    ],
)  # fmt: skip
def test_a_column_with_another_name(
    old: dict[str, str], new: dict[str, str], expected: dict[str, str]
) -> None:
    assert renames(a_target(**new), a_target(**old)) == expected


def test_an_earlier_declaration_is_found_behind_later_ones() -> None:
    first = a_target(id="integer", dep=("integer", "times.dep"))
    later = a_target(id="integer", other=("integer", "times.dep"))
    now = a_target(id="integer", departure=("integer", "times.dep"))
    assert proposed_renames(now, types_of(now), made_by(first), [now, later, first]) == {"departure": "dep"}


def test_a_renamed_key_is_still_the_key() -> None:
    old, new = a_target(("id",), id="integer"), a_target(("number",), number=("integer", "id"))
    (rename,) = mends(new, made_by(old), old)
    assert statements_of(quoted("t"), [rename]) == ('ALTER TABLE landing."t" RENAME COLUMN "id" TO "number"',)


def test_all_but_renames_is_one_statement() -> None:
    old = a_target(id="integer", name="text", code="text")
    new = a_target(("id",), id="bigint", title=("text", "name"), code="text", more="date", most="text")
    statements = statements_of(quoted("t"), mends(new, made_by(old), old))
    assert statements == (
        'ALTER TABLE landing."t" RENAME COLUMN "name" TO "title"',
        (
            'ALTER TABLE landing."t" ALTER COLUMN "id" TYPE bigint USING "id"::bigint, ADD COLUMN "more" date, '
            'ADD COLUMN "most" text, ADD PRIMARY KEY ("id")'
        ),
    )


def test_a_message_names_some_differences_and_has_the_whole_statement() -> None:
    new = a_target(**{f"column_{n:03}": "text" for n in range(300)})
    found = mends(new, made_by(a_target(id="integer")))
    error = TargetMismatch("t", found, statements_of(quoted("t"), found))
    (statement,) = error.statements
    assert statement.count("ADD COLUMN") == 300
    assert str(error).endswith(statement)
    assert len(str(error)) < len(statement) + 1500


names = st.sampled_from(["a", "b", "c", "d", "e"])
kinds = st.sampled_from(["text", "integer", "date"])
tables = st.dictionaries(names, st.tuples(kinds, names), min_size=1)


@given(old=tables, new=tables, earlier=st.lists(tables, max_size=3), rename=st.booleans())
def test_a_mended_table_fits(
    old: dict[str, tuple[str, str]],
    new: dict[str, tuple[str, str]],
    earlier: list[dict[str, tuple[str, str]]],
    *,
    rename: bool,
) -> None:
    target, existing = a_target(**new), made_by(a_target(**old))
    layout, types, declared = layout_of(target), types_of(target), [a_target(**each) for each in earlier]
    found = proposed_renames(target, types, existing, declared) if rename else {}
    assert len(set(found.values())) == len(found), "no column is renamed twice"
    assert set(found) <= set(new) - set(old)
    assert set(found.values()) <= set(old) - set(new)
    mended = after_mending(layout, types, after_renames(existing, found))
    assert differences(layout, types, mended) == ()
    fitting = differences(layout, types, existing) == ()
    assert (mending(target, layout, types, existing, declared, rename=rename) == ()) == fitting
