"""Pages as COPY text."""

from __future__ import annotations

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.landing.encoding import Encoder, encoder_of, provenance
from collect_ops.landing.layout import layout_of
from collect_ops.landing.model import Origin
from collect_ops.sources.model import Column, Disposition, Target
from tests.plugins.unit.cpu_deadline import ends_within

ENDING = b",1,2,2026-11-24T12:00:00+00:00"

texts = st.text(max_size=8) | st.sampled_from(["null", '],["', '"', "\\", "\\u0000", "\n", "{", "[", "\0"])
scalars = (
    st.none()
    | st.booleans()
    | texts
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)


def an_encoder(columns: dict[str, Column] | None = None, key: tuple[str, ...] = ()) -> Encoder:
    disposition = Disposition.MERGE if key else Disposition.APPEND
    target = Target(table="t", columns=columns or {}, key=key, disposition=disposition)
    return encoder_of(target, layout_of(target))


def two_columns() -> Encoder:
    return an_encoder({"a": Column(type="text"), "b": Column(type="integer")})


def digest(*values: Any) -> str:
    """Version 2: of the row's values as JSON, without the brackets."""
    line = json.dumps(values, ensure_ascii=False, separators=(",", ":"))[1:-1]
    return "x" + blake2b(line.encode(), digest_size=16).hexdigest()


def parsed(text: bytes) -> list[list[str]]:
    """As CSV. Python drops the backslash of the hash's `\\x`, PostgreSQL keeps one that escapes nothing."""
    return list(csv.reader(io.StringIO(text.decode(), newline=""), escapechar="\\", doublequote=False))


def test_a_row_is_hash_values_rest_and_where_it_came_from() -> None:
    records = [{"a": "x", "b": 1}, {"b": None, "a": "y,z"}]
    body = two_columns().page(records, ENDING, plain=True)
    assert body.rows == 2
    assert parsed(body.text) == [
        [digest("x", 1), "x", "1", "null", "1", "2", "2026-11-24T12:00:00+00:00"],
        [digest("y,z", None), "y,z", "null", "null", "1", "2", "2026-11-24T12:00:00+00:00"],
    ]


def test_undeclared_fields_go_to_the_rest() -> None:
    body = two_columns().page([{"a": "x", "c": [1], "d": {}}], ENDING, plain=True)
    assert b'"x",null,"{\\"c\\":[1],\\"d\\":{}}",1,2,' in body.text


def test_a_jsonb_column_gets_json_of_the_value() -> None:
    encoder = an_encoder({"a": Column(type="jsonb")})
    records = [{"a": "x"}, {"a": None}, {"a": {"k": 1}}, {}]
    text = encoder.page(records, ENDING, plain=True).text
    assert [line.split(b",null,1,2")[0].split(b",", 1)[1] for line in text.splitlines()] == [
        b'"\\"x\\""', b"null", b'"{\\"k\\":1}"', b"null",
    ]  # fmt: skip


def test_a_single_column_is_a_row_too() -> None:
    encoder = an_encoder({"a": Column(type="text")})
    assert [row[1] for row in parsed(encoder.page([{"a": "x"}, {"a": "y"}], ENDING, plain=True).text)] == [
        "x",
        "y",
    ]


def test_a_path_reaches_into_the_record_which_keeps_its_rest() -> None:
    encoder = an_encoder({"a": Column(type="text", path="x.y"), "b": Column(type="text", path="z")})
    (row,) = parsed(encoder.page([{"x": {"y": "deep"}, "z": "flat"}], ENDING, plain=True).text)
    assert row[1:4] == ["deep", "flat", '{"x":{"y":"deep"}}']


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ([1], "the record is an array, not an object with fields"),
        ("text", "the record is a text, not an object with fields"),
        (None, "the record is null, not an object with fields"),
        (True, "the record is a boolean, not an object with fields"),
        (1.5, "the record is a number, not an object with fields"),
        ({"a": "\ud800"}, "lone surrogate (\\ud800)"),
    ],
)
def test_what_cannot_be_a_row_is_told_apart(record: Any, reason: str, plain: bool) -> None:
    body = two_columns().page([{"a": "x"}, record], ENDING, plain=plain)
    assert body.rows == 1
    (bad,) = body.bad
    assert bad.ordinal == 1
    assert reason in bad.reason
    assert json.loads(bad.row_text) == record


@pytest.mark.parametrize("record", [{"a": "\0"}, {"z": ["\0"]}, {"\0": 1}, {"a": "\\\0"}])
def test_nul_makes_a_bad_row_wherever_it_is(record: Any) -> None:
    for encoder in (two_columns(), an_encoder()):
        body = encoder.page([record], ENDING, plain=False)
        assert (body.rows, len(body.bad)) == (0, 1)
        assert "NUL" in body.bad[0].reason


def test_a_text_that_only_spells_nul_is_a_row() -> None:
    for encoder in (two_columns(), an_encoder()):
        assert encoder.page([{"a": "\\u0000"}], ENDING, plain=False).bad == ()


def test_a_merge_needs_every_key_field() -> None:
    encoder = an_encoder({"a": Column(type="text"), "b": Column(type="integer")}, key=("a", "b"))
    rows = encoder.lines([{"a": "x", "b": 0}, {"a": "x"}, {"b": None}], ENDING)
    assert rows.ordinals == [0]
    assert [bad.reason for bad in rows.bad] == [
        "key field b is missing or null",
        "key field a, b is missing or null",
    ]


@given(
    st.lists(
        st.fixed_dictionaries({"a": values}, optional={"b": values, "c": values}), min_size=1, max_size=5
    ),
    st.sampled_from(["text", "jsonb"]),
)
def test_a_page_is_its_rows_one_by_one(records: list[dict[str, Any]], declared: str) -> None:
    encoder = an_encoder({"a": Column(type=declared), "b": Column(type="text")})
    rows = encoder.lines(records, ENDING)
    body = encoder.page(records, ENDING, plain=False)
    assert body.text == b"".join(line + b"\n" for line in rows.lines)
    assert (body.rows, body.bad) == (len(rows.lines), rows.bad)


@given(st.lists(st.fixed_dictionaries({"a": texts, "b": scalars}), min_size=1, max_size=5))
def test_the_fast_way_and_the_slow_way_say_the_same(records: list[dict[str, Any]]) -> None:
    encoder = two_columns()
    rows = encoder.lines(records, ENDING)
    body = encoder.page(records, ENDING, plain=False)
    assert body.text == b"".join(line + b"\n" for line in rows.lines)


@given(st.lists(values, min_size=1, max_size=5))
def test_a_document_is_one_line_of_json(records: list[Any]) -> None:
    rows = an_encoder().lines(records, b"\x021")
    assert [json.loads(line.split(b"\x02")[0]) for line in rows.lines] == [records[i] for i in rows.ordinals]


def test_where_a_row_came_from_is_separated_as_its_values_are() -> None:
    origin, at = Origin(task_id=1, shard_no=2), datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert provenance(two_columns(), origin, at) == ENDING
    assert provenance(an_encoder(), origin, at) == ENDING.replace(b",", b"\x02")


HEAVY = "length(a[].b[].c[].d[] | [@,@][] | [@,@][] | [@,@][] | [@,@][])"


def nested(wide: int) -> Any:
    return {"a": [{"b": [{"c": [{"d": list(range(wide))}] * wide}] * wide}] * wide}


def test_the_work_of_all_columns_and_records_of_a_page_is_bounded_together() -> None:
    columns = {f"c{number}": Column(type="integer", path=HEAVY) for number in range(10)}
    encoder = an_encoder(columns)
    light, heavy = nested(1), nested(5)
    with ends_within(
        30
    ):  # each column of each record is within its own bound; together they are far above the page
        body = encoder.page([heavy] * 200, ENDING, plain=True)
    assert 0 < body.rows < 200
    assert body.rows + len(body.bad) == 200
    assert {one.ordinal for one in body.bad} == set(range(body.rows, 200))
    assert all("together" in one.reason for one in body.bad)
    # The next page has a budget of its own, and so has a message's value.
    assert encoder.value(light, "c0") == 16
    assert encoder.page([light] * 200, ENDING, plain=True).rows == 200
    assert encoder.lines([light] * 200, ENDING).bad == ()


def test_a_large_page_of_usual_records_is_within_its_budget() -> None:
    columns = {f"c{number}": Column(type="jsonb", path="tags[*].name") for number in range(6)}
    records = [{"tags": [{"name": "x"}] * 5}] * 20_000
    assert an_encoder(columns).page(records, ENDING, plain=True).rows == 20_000


FIELD, DEEP = Column(type="text"), Column(type="text", path="address.city")
JOINED = Column(type="text", path="join(',', tags[*].name)")
DOUBLED = Column(type="jsonb", path=" | ".join(["[@, @][]"] * 8))


@pytest.mark.parametrize(
    ("columns", "records", "size_bytes", "takes_long"),
    [
        ({"a": FIELD}, 100_000, 30_000_000, False),
        ({"a": FIELD, "city": DEEP}, 10, 3000, False),
        ({"a": FIELD, "city": DEEP}, 5000, 1_500_000, True),
        ({"tags": JOINED}, 10, 3000, False),
        ({"tags": JOINED}, 5000, 1_500_000, True),
        # A single record that is large, or that its path makes large.
        ({"tags": JOINED}, 1, 1_000_000, True),
        ({"twice": DOUBLED}, 10, 3000, True),
    ],
)
def test_what_takes_long_is_known_beforehand(
    columns: dict[str, Column], records: int, size_bytes: int, *, takes_long: bool
) -> None:
    assert an_encoder(columns).takes_long(records, size_bytes) is takes_long


def test_pages_in_two_threads_have_a_budget_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collect_ops.sources.expressions.PAGE_WORK", 1500)
    monkeypatch.setattr("collect_ops.sources.expressions.STEPS_A_RECORD", 0)
    encoder = an_encoder({"n": Column(type="int", path="length(items[*])")})
    records = [{"items": list(range(100))}] * 5
    with ThreadPoolExecutor(4) as pool:
        pages = pool.map(lambda _: encoder.page(records, ENDING, plain=True), range(200))
        assert {(page.rows, page.bad) for page in pages} == {(5, ())}
