"""Which waiting tasks become one: all of what was asked for, nothing else, by the oldest."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.admission.merging import Waiting, joints
from collect_ops.admission.policy import merge_key
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.model import Source
from collect_ops.sources.request import check_params
from tests.factories import list_source, range_source, source

VERSION = b"v"


def waiting(declared: Source, *given: dict[str, Any]) -> list[Waiting]:
    return [
        Waiting(task_id=number, params=check_params(declared, params))
        for number, params in enumerate(given, start=1)
    ]


@given(
    lists=st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=8), min_size=1, max_size=12),
    most=st.integers(2, 40),
)
def test_lists_lose_and_gain_nothing(lists: list[list[int]], most: int) -> None:
    declared = list_source(max_values=most)
    tasks = waiting(declared, *({"ids": ",".join(map(str, ids))} for ids in lists))
    asked = {task.task_id: {str(one) for one in ids} for task, ids in zip(tasks, lists, strict=True)}
    found = joints(declared, tasks)
    named = [task_id for joint in found for task_id in (joint.survivor, *joint.merged)]
    assert len(named) == len(set(named)), "a task is in one joint at most"
    for joint in found:
        members = (joint.survivor, *joint.merged)
        assert joint.survivor == min(members)
        values = str(joint.params["ids"]).split(",")
        assert set(values) == set().union(*(asked[task_id] for task_id in members))
        assert len(values) == len(set(values)) <= most


@given(
    ranges=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 8)), min_size=1, max_size=12),
    inclusive=st.booleans(),
)
def test_ranges_join_where_they_touch_and_only_there(ranges: list[tuple[int, int]], inclusive: bool) -> None:
    declared = range_source("integer", end_inclusive=inclusive)
    spans = [(start, start + length) for start, length in ranges]
    tasks = waiting(declared, *({"first": start, "last": end} for start, end in spans))

    def values(start: int, end: int) -> set[int]:
        return set(range(start, end + inclusive))

    asked = {task.task_id: values(*span) for task, span in zip(tasks, spans, strict=True)}
    found = joints(declared, tasks)
    covered = []
    for joint in found:
        members = (joint.survivor, *joint.merged)
        span = values(int(joint.params["first"] or 0), int(joint.params["last"] or 0))
        assert span == set().union(*(asked[task_id] for task_id in members)), "no gap, nothing beyond"
        covered.append(span)
    alone = set(asked) - {task_id for joint in found for task_id in (joint.survivor, *joint.merged)}
    pieces = sorted((min(span), max(span)) for span in (*covered, *(asked[one] for one in alone)) if span)
    assert all(one[1] + 1 < other[0] for one, other in pairwise(pieces)), "what touches has been joined"


@given(order=st.permutations(list(range(6))))
def test_the_order_they_come_in_does_not_matter(order: list[int]) -> None:
    declared = range_source("date")
    days = [date(2026, 1, 1) + timedelta(days=2 * number) for number in range(6)]
    tasks = waiting(
        declared,
        *(
            {"first": day.isoformat(), "last": (day + timedelta(days=number % 2)).isoformat()}
            for number, day in enumerate(days)
        ),
    )
    assert joints(declared, [tasks[index] for index in order]) == joints(declared, tasks)


def test_datetimes_touch_at_one_moment() -> None:
    declared = range_source("datetime", end_inclusive=False)
    tasks = waiting(
        declared,
        {"first": "2026-01-01T00:00:00Z", "last": "2026-01-01T01:00:00Z"},
        {"first": "2026-01-01T02:00:00+01:00", "last": "2026-01-01T02:00:00Z"},
        {"first": "2026-01-01T03:00:00Z", "last": "2026-01-01T04:00:00Z"},
    )
    (joint,) = joints(declared, tasks)
    assert (joint.survivor, joint.merged) == (1, (2,))
    assert joint.params == {"first": "2026-01-01T00:00:00Z", "last": "2026-01-01T02:00:00Z"}


def test_a_range_grows_no_longer_than_allowed() -> None:
    declared = range_source("date", max_length=3)
    tasks = waiting(
        declared, *({"first": f"2026-01-0{day}", "last": f"2026-01-0{day}"} for day in range(1, 8))
    )
    assert [(joint.survivor, joint.merged) for joint in joints(declared, tasks)] == [(1, (2, 3)), (4, (5, 6))]


def test_only_what_is_equal_otherwise_has_one_merge_key() -> None:
    declared = list_source()

    def key(path: str | None = None, version: bytes = VERSION, **params: Any) -> bytes | None:
        return merge_key(declared, version, check_params(declared, params), path)

    assert key(ids="1", region="north") == key(ids="2,3", region="north") is not None
    others = {
        key(ids="1"),
        key(ids="1", region="north"),
        key(ids="1", path="/other"),
        key(ids="1", version=b"w"),
    }
    assert len(others) == 4
    assert key(region="north") is None, "asks for no list"
    assert merge_key(source(), VERSION, {}, None) is None, "the source does not merge"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"merge": {"type": "list", "param": "idds", "column": "id"}}, "merge.param"),
        ({"merge": {"type": "list", "param": "ids", "column": "nothing"}}, "merge.column"),
        ({"merge": {"type": "range", "start": "ids", "end": "region", "column": "id"}}, "merge.start"),
        ({"merge": {"type": "pile"}}, "merge"),
        (
            {"target": {"table": "t", "disposition": "replace", "columns": {"id": {"type": "bigint"}}}},
            "merge",
        ),
        ({"merge_window_seconds": -1}, "merge_window_seconds"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    with pytest.raises((ValidationFailed, ValueError)) as refused:
        list_source().model_validate({**list_source().model_dump(mode="json"), **fields})
    assert field in str(refused.value)
