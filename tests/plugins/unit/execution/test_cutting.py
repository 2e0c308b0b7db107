"""Cutting tasks by each rule, against a collector that answers what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.collectors.totals import NamedTotal
from collect_ops.execution.cutting import Cut, CutTask, cut, pace_unit
from collect_ops.execution.entry_point import EntryPointFailed, EntryPointPassing
from collect_ops.execution.policy import TooManyShards, group, label
from collect_ops.execution.sizing import History
from collect_ops.kernel.errors import Permanent, ValidationFailed
from collect_ops.sources.declaration import READING_STORED
from collect_ops.sources.model import Source
from collect_ops.sources.request import RenderedRequest
from tests.factories import source
from tests.plugins.unit.sources.factories import source_fields

HERE = "tests.plugins.unit.execution.entry_points"
ASKED = {"path": "/edges", "low": "low", "high": "high"}


class Told:
    """A collector that knows the answers; keeps what it was asked."""

    def __init__(self, total: int | None = None, values: tuple[Any, ...] = ()) -> None:
        self._total = total
        self._values = values
        self.counted: RenderedRequest | None = None

    async def named_total(self, counting: RenderedRequest | None = None) -> NamedTotal:
        self.counted = counting
        return NamedTotal(rows=self._total)

    async def total(self, counting: RenderedRequest | None = None) -> int | None:
        return (await self.named_total(counting)).rows

    async def values(self, request: RenderedRequest, expressions: Mapping[str, str]) -> list[Any]:
        return list(self._values)

    def excerpt(self, value: Any) -> Any:
        return value


def sharded(shards: dict[str, Any], kind: str = "integer", **fields: Any) -> Source:
    params = {"first": {"type": kind}, "last": {"type": kind}, "ids": {"type": "string"}}
    request = {"path": "/select", "params": params, "query": {name: f"{{{name}}}" for name in params}}
    return source(request=request, shards=shards, paging={"type": "none"}, page_size=None, **fields)


def cut_by(
    declared: Source, told: Told | None = None, *, history: History | None = None, **params: Any
) -> Cut:
    task = CutTask(source=declared, params=params, history=history or History(), target_s=20)
    return asyncio.run(cut(task, told or Told()))  # type: ignore[arg-type]


def asked(found: Cut) -> list[tuple[Any, ...]]:
    return [tuple((shard.params or {}).values()) for shard in found.shards]


def key(**changes: Any) -> dict[str, Any]:
    return {
        "by": "key_range",
        "low": "first",
        "high": "last",
        "bounds": "closed",
        "step": 40,
        "range": ASKED,
        **changes,
    }


def test_key_ranges_of_what_a_submission_asks_for() -> None:
    found = cut_by(sharded(key()), first=10, last=100)
    assert asked(found) == [(10, 49), (50, 89), (90, 100)]
    assert [shard.label for shard in found.shards] == ["10..49", "50..89", "90..100"]
    assert [shard.units for shard in found.shards] == [40, 40, 11]
    assert found.why == "3 key ranges, ranges of 40 keys"
    assert asked(cut_by(sharded(key(bounds="half_open")), first=10, last=90)) == [(10, 50), (50, 90)]


def test_key_ranges_of_what_the_source_says_there_is() -> None:
    assert asked(cut_by(sharded(key()), Told(values=(0, 99)))) == [(0, 39), (40, 79), (80, 99)]
    # The greatest key there is must be in: a half-open range ends after it.
    assert asked(cut_by(sharded(key(bounds="half_open")), Told(values=(0, 99)))) == [
        (0, 40),
        (40, 80),
        (80, 100),
    ]
    assert asked(cut_by(sharded(key()), Told(values=(0, 99)), first=90)) == [(90, 99)]


def test_a_source_that_holds_nothing_has_no_shards() -> None:
    for shards in (key(), key(bounds="half_open")):
        assert cut_by(sharded(shards), Told(values=(0, 99)), first=120).shards == (), "nothing new"
        found = cut_by(sharded(shards), Told(values=(None, None)))
        assert (found.shards, found.total) == ((), None)
        assert "nothing to collect" in found.why
    assert cut_by(sharded(key(bounds="half_open")), first=5, last=5).shards == ()


@pytest.mark.parametrize(
    ("values", "params", "text"),
    [
        ((0, 99), {"first": 7, "last": 3}, "params.first: must not be above last, 3 (got 7)"),
        (("a", 99), {}, "shards.range.low: for first: must be an integer (got 'a')"),
        ((0, [1]), {}, "shards.range.high: for last: must be an integer (got [1])"),
        ((0, 2**63), {}, "shards.range.high: for last: must fit 64 bits"),
    ],
)
def test_ranges_that_are_none(values: tuple[Any, ...], params: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationFailed) as failed:
        cut_by(sharded(key()), Told(values=values), **params)
    assert text in str(failed.value)
    assert isinstance(failed.value, Permanent)


def test_defaults_are_a_range_too() -> None:
    params = {"first": {"type": "integer", "default": 1}, "last": {"type": "integer", "default": 9}}
    request = {"path": "/select", "params": params, "query": {"a": "{first}", "b": "{last}"}}
    declared = source(request=request, shards=key(range=None), paging={"type": "none"}, page_size=None)
    assert asked(cut_by(declared)) == [(1, 9)], "the defaults are the range"


def test_a_step_adapts_where_it_may() -> None:
    history = History(size=40, rates=[3.0] * 20)
    assert len(cut_by(sharded(key()), history=history, first=0, last=9_999).shards) == 250
    found = cut_by(sharded(key(max_step=50)), history=history, first=0, last=9_999)
    assert (len(found.shards), found.aimed) == (200, 50)
    found = cut_by(sharded(key(max_step=500, target_s=100)), history=history, first=0, last=9_999)
    assert found.aimed == 80
    assert "3 keys/s over the last 20 shards, target 100 s; 40 before" in found.why
    assert (pace_unit(sharded(key())), pace_unit(sharded(key(max_step=50)))) == (None, "keys")


def window(**changes: Any) -> dict[str, Any]:
    return {
        "by": "date_window",
        "start": "first",
        "end": "last",
        "bounds": "half_open",
        "window": "P1M",
        **changes,
    }


def test_windows_of_dates() -> None:
    shards = window(range=ASKED)
    found = cut_by(sharded(shards, "date"), first="2024-01-31", last="2024-04-01")
    assert asked(found) == [
        ("2024-01-31", "2024-02-29"),
        ("2024-02-29", "2024-03-31"),
        ("2024-03-31", "2024-04-01"),
    ]
    closed = {**shards, "bounds": "closed", "window": None, "days": 2}
    found = cut_by(sharded(closed, "date"), first="2024-02-28", last="2024-03-01")
    assert asked(found) == [("2024-02-28", "2024-02-29"), ("2024-03-01", "2024-03-01")]
    told = Told(values=("2024-02-28", "2024-03-01"))
    assert asked(cut_by(sharded(closed, "date"), told))[-1] == ("2024-03-01", "2024-03-01")
    assert asked(cut_by(sharded(shards, "date"), told)) == [("2024-02-28", "2024-03-02")], (
        "the last day is in"
    )


def test_windows_of_datetimes() -> None:
    shards = window(window="PT12H", range=ASKED)
    day = {"first": "2024-02-29T00:00:00Z", "last": "2024-03-01T01:00:00+01:00"}
    halves = ["2024-02-29T00:00:00Z", "2024-02-29T12:00:00Z", "2024-03-01T00:00:00Z"]
    assert asked(cut_by(sharded(shards, "datetime"), **day)) == list(pairwise(halves))
    closed = sharded({**shards, "bounds": "closed", "resolution": "PT1S"}, "datetime")
    assert asked(cut_by(closed, **day)) == [
        (halves[0], "2024-02-29T11:59:59Z"), (halves[1], "2024-02-29T23:59:59Z"), (halves[2], halves[2]),
    ]  # fmt: skip


def test_values_are_dealt() -> None:
    shards = {
        "by": "values",
        "param": "ids",
        "separator": ",",
        "per_shard": 2,
        "values": ["x", "y", "x", "z"],
    }
    assert asked(cut_by(sharded(shards))) == [("x,y",), ("z",)], "each once"
    found = cut_by(sharded(shards), ids=" a,b,,c ,a,d,e")
    assert asked(found) == [("a,b",), ("c,d",), ("e",)]
    assert [shard.label for shard in found.shards] == ["a, b", "c, d", "e"]
    single = {"by": "values", "param": "first", "values": [1, 2]}
    assert asked(cut_by(sharded(single))) == [(1,), (2,)]
    assert asked(cut_by(sharded(single), first=9)) == [(9,)]


@given(many=st.integers(0, 300), size=st.integers(1, 50))
def test_every_value_is_asked_for_once(many: int, size: int) -> None:
    shards = {"by": "values", "param": "ids", "separator": ",", "per_shard": size, "values": ["never"]}
    values = [f"v{number}" for number in range(many)]
    found = cut_by(sharded(shards), ids=",".join(values) or None)
    assert [value for (text,) in asked(found) for value in text.split(",")] == (values or ["never"])


def test_a_count_request_counts_the_whole() -> None:
    total = {
        "type": "request",
        "path": "/count",
        "value": "n",
        "query": {"f": "{first}", "l": "{last}", "i": "{ids}"},
    }
    told = Told(total=77, values=(0, 99))
    assert cut_by(sharded(key(), total=total), told).total == 77
    assert told.counted is not None
    assert told.counted.query == {"f": ("0",), "l": ("99",)}
    values = {"by": "values", "param": "ids", "separator": ",", "per_shard": 2, "values": ["x", "y", "z"]}
    assert cut_by(sharded(values, total=total), told).total == 77
    assert told.counted.query == {"i": ("x,y,z",)}
    single = {"by": "values", "param": "first", "values": [1, 2]}
    assert cut_by(sharded(single, total=total), told).total is None, "no request asks for both"
    assert cut_by(sharded(key()), Told(values=(0, 99))).total is None, "each shard's pages are held to theirs"


def test_labels_say_what_a_group_asks_for() -> None:
    declared = sharded(key(), limits={"concurrency": 2})
    found = cut_by(declared, first=0, last=159)
    assert [each.label for each in group(declared, found.shards, 2)] == [
        "things 0..39 … 40..79",
        "things 80..119 … 120..159",
    ]
    assert label("things", found.shards[:1]) == "things 0..39"


def test_shards_have_a_limit() -> None:
    with pytest.raises(
        TooManyShards, match=r"asks for keys 0 to 10,000,000, which are .* a task may have 100000 shards"
    ):
        cut_by(sharded(key()), first=0, last=10_000_000)
    with pytest.raises(TooManyShards, match="in windows of PT0"):
        cut_by(
            sharded(window(window="PT0.001S", range=ASKED), "datetime"),
            first="2024-01-01T00:00:00Z",
            last="2025-01-01T00:00:00Z",
        )
    with pytest.raises(TooManyShards, match="endless"):
        cut_by(by_code("endless"))
    with pytest.raises(TooManyShards, match=r"names 1e\+09 rows, which are 1e\+07 shards of 100 rows"):
        cut_by(source(), Told(total=10**9))


def by_code(name: str, **options: Any) -> Source:
    return sharded({"by": "entry_point", "entry_point": f"{HERE}:{name}", "options": options})


def test_a_function_describes_the_shards() -> None:
    found = cut_by(by_code("thirds"))
    assert asked(found) == [(0, 33), (34, 67), (68, 99)]
    assert [shard.label for shard in found.shards] == ["0, 33", "things from 34", "things from 68"]
    assert len(cut_by(by_code("thirds", width=10)).shards) == 10
    assert asked(cut_by(by_code("with_a_loop"))) == [(5,)], "it may run an event loop"
    assert cut_by(by_code("returns", what=[])).shards == ()


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("missing", {}, "cannot be imported: AttributeError: module"),
        ("NOT_A_FUNCTION", {}, "is not a function but int"),
        ("raises", {}, "raised KeyError: 'customer'"),
        ("wants_more", {}, "raised TypeError: wants_more() takes 1 positional argument but 2 were given"),
        ("returns", {"what": None}, "must return a list of shard descriptions, returned NoneType"),
        ("returns", {"what": {"params": {}}}, "must return a list of shard descriptions, returned dict"),
        ("returns", {"what": "abc"}, "must return a list of shard descriptions, returned str"),
        ("returns", {"what": [{"params": {}}, 7]}, "described shard 1 wrong: description: Input should be"),
        ("returns", {"what": [{"parms": {}}]}, "described shard 0 wrong: params: Field required"),
        (
            "returns",
            {"what": [{"params": {"x": 1}}]},
            "params.x is not a parameter of the source; declared are first",
        ),
        ("returns", {"what": [{"params": {"first": "x"}}]}, "params.first must be an integer (got 'x')"),
    ],
)
def test_what_is_wrong_with_a_function_names_it(name: str, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(EntryPointFailed) as failed:
        cut_by(by_code(name, **options))
    assert str(failed.value).startswith(f"source things: shards.entry_point {HERE}:{name} ")
    assert problem in str(failed.value)
    assert isinstance(failed.value, Permanent)


def test_a_module_that_is_not_there() -> None:
    declared = sharded({"by": "entry_point", "entry_point": "no_such_package.module:function"})
    with pytest.raises(EntryPointFailed, match="cannot be imported: ModuleNotFoundError"):
        cut_by(declared)


def test_a_function_may_say_that_its_error_passes() -> None:
    with pytest.raises(EntryPointPassing, match="raised Busy: come back later"):
        cut_by(by_code("busy"))


def test_counted_shards_follow_the_pace() -> None:
    declared = source(page_size=10, limits={"concurrency": 1})
    found = cut_by(declared, Told(total=100_000), history=History(size=100, rates=[9.0] * 5))
    assert (found.aimed, len(found.shards)) == (180, 556)
    assert found.why == "shard size 180: 9 rows/s over the last 5 shards, target 20 s"
    slow = cut_by(declared, Told(total=1_000), history=History(size=100, rates=[0.1] * 5))
    assert (slow.aimed, len(slow.shards)) == (50, 20)
    few = cut_by(declared, Told(total=1_000), history=History(size=100, rates=[900.0] * 5))
    assert (few.aimed, few.shards[0].size) == (200, 200)
    wide = source(page_size=10, limits={"concurrency": 8})
    few = cut_by(wide, Told(total=1_000), history=History(size=100, rates=[900.0] * 5))
    assert (few.aimed, few.shards[0].size) == (200, 100)
    assert few.why.endswith("cut to 100 for 1,000 rows and 8 requests in flight")


def test_a_total_that_nobody_knows_streams() -> None:
    found = cut_by(source(), Told(total=None))
    assert [(shard.offset, shard.size, shard.params) for shard in found.shards] == [(0, None, None)]
    assert found.why == "one shard streams: the total is unknown"
    assert found.aimed is None


def test_values_of_an_admitted_task_are_judged_by_no_pattern_again() -> None:
    """Neither those that it was given nor those that its declaration holds."""
    request = {"query": {"k": "{k}"}, "params": {"k": {"pattern": "(?=a)(a+)+b"}}}
    values = ["a" * 60, "c" * 300]
    fields = source_fields(request=request, shards={"by": "values", "param": "k", "values": values})
    admitted = Source.model_validate(fields, context=READING_STORED)
    assert asked(cut_by(admitted)) == [(value,) for value in values]
    assert asked(cut_by(admitted, k="d" * 300)) == [("d" * 300,)]
