"""What a target's table looks like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.landing.errors import DeclarationUnusable
from collect_ops.landing.layout import (
    ExistingColumn,
    ExistingTable,
    Layout,
    aside_name,
    differences,
    fitting_name,
    layout_of,
)
from collect_ops.sources.model import Column, Disposition, Target


def a_layout(
    key: tuple[str, ...] = (), disposition: Disposition = Disposition.APPEND, **columns: str
) -> Layout:
    declared = {name: Column(type=column) for name, column in columns.items()}
    return layout_of(Target(table="t", columns=declared, key=key, disposition=disposition))


def as_it_is(layout: Layout) -> ExistingTable:
    columns = {
        column.name: ExistingColumn(type=column.type, must_be_given=False) for column in layout.columns
    }
    return ExistingTable(
        kind="table", columns=columns, key=layout.key, key_name="t_pkey" if layout.key else None
    )


def types_of(layout: Layout) -> dict[str, str]:
    return {column.name: column.type for column in layout.columns}


def test_declared_columns_come_first_then_the_rest_and_where_it_came_from() -> None:
    layout = a_layout(key=("id",), disposition=Disposition.MERGE, id="integer", v="text")
    assert [column.name for column in layout.columns] == [
        "id", "v", "_extra", "_task_id", "_shard", "_fetched_at", "_content_hash",
    ]  # fmt: skip
    assert [column.required for column in layout.columns] == [True, False, False, True, True, True, True]


def test_a_key_means_nothing_unless_rows_are_merged() -> None:
    assert a_layout(key=("id",), id="integer").key == ()


def test_without_columns_documents_land_with_a_key_of_their_own() -> None:
    merged = a_layout(key=("id",), disposition=Disposition.MERGE)
    assert [column.name for column in merged.data] == ["_key", "document"]
    assert merged.key == ("_key",)
    assert [column.name for column in a_layout().data] == ["document"]


@pytest.mark.parametrize(("key", "columns"), [((), {"id": "integer"}), (("x",), {"id": "integer"})])
def test_a_merge_without_a_usable_key_is_refused(key: tuple[str, ...], columns: dict[str, str]) -> None:
    with pytest.raises(DeclarationUnusable, match="key"):
        a_layout(key=key, disposition=Disposition.MERGE, **columns)


def test_a_table_as_declared_has_no_differences() -> None:
    layout = a_layout(key=("id",), disposition=Disposition.MERGE, id="integer")
    assert differences(layout, types_of(layout), as_it_is(layout)) == ()


def test_a_key_of_other_columns_is_exchanged_in_one_statement() -> None:
    layout = a_layout(key=("id",), disposition=Disposition.MERGE, id="integer", v="integer")
    other = a_layout(key=("v",), disposition=Disposition.MERGE, id="integer", v="integer")
    (difference,) = differences(layout, types_of(layout), as_it_is(other))
    assert (difference.has, difference.wants) == ("PRIMARY KEY (v)", "PRIMARY KEY (id)")
    assert difference.remedy == 'ALTER TABLE landing."t" DROP CONSTRAINT "t_pkey", ADD PRIMARY KEY ("id")'


def test_the_digest_changes_with_the_types() -> None:
    assert a_layout(id="integer").digest != a_layout(id="bigint").digest
    assert a_layout(id="integer").digest == a_layout(id="integer").digest


@given(
    st.text("abc", min_size=1, max_size=63),
    st.text("abc", min_size=1, max_size=63),
    st.integers(1, 2**63 - 1),
)
def test_names_fit_and_stay_apart(one: str, other: str, task_id: int) -> None:
    names = {aside_name(one, task_id), aside_name(other, task_id)}
    assert all(len(name) <= 63 for name in names)
    assert len(names) == len({one, other})


def test_a_name_that_fits_is_not_changed() -> None:
    assert fitting_name("flights", "__7") == "flights__7"
