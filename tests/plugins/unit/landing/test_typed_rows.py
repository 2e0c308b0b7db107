"""Rows that are read straight from a page's bytes make the lines that its records make."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collect_ops.collectors import json_body
from collect_ops.collectors.content import (
    MAX_ODD_PAGES,
    Content,
    Records,
    RowReader,
    Rows,
    ShardReader,
    stands_beside,
    text_of,
    values_of,
)
from collect_ops.collectors.repeated_pages import PagePrints
from collect_ops.landing.encoding import Encoder, encoder_of
from collect_ops.landing.layout import layout_of
from collect_ops.landing.records import json_text
from collect_ops.sources.file_defaults import with_file_defaults
from collect_ops.sources.model import Column, Disposition, Target
from tests.factories import source

ENDING = b",1,2,2026-11-24T12:00:00+00:00"
COLUMNS = {
    "i": Column(type="bigint"),
    "n": Column(type="numeric"),
    "d": Column(type="double precision"),
    "t": Column(type="text"),
    "b": Column(type="boolean"),
    "at": Column(type="timestamptz", format="iso"),
    "c": Column(type="text", path="class"),
}
MORE = ("more", "méhr", "per%cent%b", "a:", "@type")
FIELDS = ("i", "n", "d", "t", "b", "at", "class")


def an_encoder(columns: dict[str, Column] = COLUMNS) -> Encoder:
    target = Target(table="t", columns=columns, disposition=Disposition.APPEND)
    return encoder_of(target, layout_of(target))


def known_by(*key: str) -> PagePrints:
    """What pages of such rows are known by: their keys, or whole rows."""
    encoder = an_encoder()
    target = Target(table="t", columns=COLUMNS, key=key)
    declared = source(paging={"type": "page"}).model_copy(update={"target": target})
    return PagePrints(with_file_defaults(declared), encoder.row_type)


KNOWN_BY = (known_by(), known_by("i"), known_by("c", "n"))


# --- every spelling that JSON allows ---

_NUMBERS = (
    "0 -0 1 -12 1.0 1.50 -0.0 2e0 1E5 1e-7 123456789.123456789123456789 9007199254740993 9007199254740993.25 "
    "18446744073709551616 1e400 1111111111111111111111111111111111111111"
)
_CHARACTERS = (
    r"a Z é 😀 , { [ ] ],[ \n \\ \" \/ \u0041 \u00e9 \u000b \ud83d\ude00 \u2028 null -0, \b\f\r\t \u001f"
)
numbers = st.sampled_from(_NUMBERS.split())
characters = st.sampled_from([*_CHARACTERS.split(" "), " ", "\x7f"])
odd_characters = st.sampled_from(["\\u0000", "\\ud800", "\\udc00x"])
texts = st.lists(characters, max_size=4).map(lambda parts: '"' + "".join(parts) + '"')
times = st.sampled_from(
    [
        '"2024-01-02T03:04:05Z"',
        '"2024-01-02 03:04:05.25+01:00"',
        '"20240102"',
        '"01/02/2024"',
        '"today"',
        "1700000000",
    ]
)
usual = {
    "i": st.sampled_from(["0", "-12", "9007199254740993", "18446744073709551616", "null", "-0"]),
    "n": numbers | st.just("null") | st.sampled_from(['"12.50"', '"x"', '"\\u0031"', '"é"']),
    "d": numbers | st.just("null"),
    "t": texts | st.just("null"),
    "b": st.sampled_from(["true", "false", "null"]),
    "at": st.sampled_from(['"2024-01-02T03:04:05Z"', '"2024-01-02"', "null"]) | times,
    "class": texts,
}
anything = (
    numbers
    | texts
    | times
    | st.sampled_from(["null", "true", "{}", "[]", '{"a": [1, {"b": 1.50}]}', '[["", 1], ["", 2]]', '["x"]'])
    | odd_characters.map(lambda text: f'"a{text}"')
)
blanks = st.sampled_from(["", " ", "\n\t "])


@st.composite
def rows(draw: st.DrawFn) -> str:
    members = {name: draw(usual[name]) for name in FIELDS}
    for name in draw(st.lists(st.sampled_from([*FIELDS, *MORE]), max_size=2)):
        members[name] = draw(anything)
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=1)):
        members.pop(name, None)
    blank = draw(blanks)
    listed = [
        f"{json.dumps(name, ensure_ascii=draw(st.booleans()))}{blank}:{blank}{text}"
        for name, text in members.items()
    ]
    if draw(st.booleans()):
        listed.append(listed[0])  # of equal names the last counts
    return "{" + f"{blank},{blank}".join(listed) + "}"


@st.composite
def usual_rows(draw: st.DrawFn) -> str:
    members = [f'"{name}":{draw(usual[name])}' for name in FIELDS]
    members += [f'"{name}":{draw(anything)}' for name in MORE if draw(st.booleans())]
    return "{" + ",".join(draw(st.permutations(members))) + "}"


def a_row(**changes: str) -> str:
    members = {
        "i": "1", "n": "1.50", "d": "-2e0", "t": '"é\\n"', "b": "true", "at": '"2024-01-02T03:04:05Z"', "class": '"x"',
    } | changes  # fmt: skip
    return "{" + ",".join(f'"{name}":{text}' for name, text in members.items() if text) + "}"


def as_records(rows: Rows, records: Any) -> Records:
    return Records(rows.row_type, rows.rows, lambda: records, lambda: None)


def lines_of(body: Any) -> tuple[bytes, int]:
    return body.text, body.rows


@settings(max_examples=400)
@given(
    st.lists(rows() | usual_rows(), min_size=1, max_size=4) | st.lists(usual_rows(), min_size=1, max_size=4),
    st.sampled_from(["@", "rows", "data.rows"]),
)
def test_fast_and_slow_make_the_same_lines(members: list[str], path: str) -> None:
    encoder = an_encoder()
    listed = "[" + ",".join(members) + "]"
    page = {
        "@": listed,
        "rows": f'{{"n": 1.50, "rows": {listed}}}',
        "data.rows": f'{{"data": {{"rows": {listed}}}}}',
    }
    raw = page[path].encode()
    assert encoder.row_type is not None
    reader = RowReader.of(encoder.row_type, path, 64)
    assert reader is not None
    document = json_body.parse(raw, max_depth=64)
    reader.learn(document)
    records = document if path == "@" else document["rows"] if path == "rows" else document["data"]["rows"]
    found = reader.read(raw)
    typed = None if found is None else as_records(found, records)
    fast = None if typed is None else encoder.typed_page(typed, ENDING)
    slow = encoder.page(records, ENDING, plain=b"\\" not in raw)
    singly = encoder.lines(records, ENDING)
    assert slow.text == b"".join(line + b"\n" for line in singly.lines)
    assert slow.bad == singly.bad
    if typed is not None:
        assert text_of(typed, encoder.row_type) == text_of(records, encoder.row_type)
        for known in KNOWN_BY:
            assert known.of(typed) == known.of(records), (
                "an equal page is noticed though it is read otherwise"
            )
        for field in FIELDS:
            assert json_text(values_of(typed, field)) == json_text([record.get(field) for record in records])
    if fast is not None:
        assert lines_of(fast) == lines_of(slow)
        assert slow.bad == ()


# Values of numbers that nobody has looked at when a page is read as rows.
unread = numbers | st.sampled_from(
    [
        "null",
        '"12.50"',
        '"\\u0031"',
        '"é"',
        '"\udcff"',
        '"\udce9t\udce9"',
        "9" * 5_000,
        "{}",
        "[1.50]",
        '{"a": 1.50}',
    ]
)


@st.composite
def unread_rows(draw: st.DrawFn) -> str:
    members = {name: draw(usual[name]) for name in FIELDS} | {"n": draw(unread), "d": draw(unread)}
    members |= {name: draw(anything | unread) for name in MORE if draw(st.booleans())}
    return "{" + ",".join(f'"{name}":{text}' for name, text in members.items()) + "}"


KEYS = ((), ("n",), ("i", "t"), ("c",), ("d", "at"))
PRINTS = {
    key: PagePrints(
        source(
            target={
                "table": "t",
                "columns": {
                    name: column.model_dump(exclude_defaults=True) for name, column in COLUMNS.items()
                },
                "disposition": "merge" if key else "append",
                "key": list(key),
            }
        ),
        an_encoder().row_type,
    )
    for key in KEYS
}


@settings(max_examples=400)
@given(
    st.lists(rows() | usual_rows() | unread_rows(), min_size=1, max_size=4)
    | st.lists(unread_rows(), min_size=1, max_size=4),
    st.sampled_from(KEYS),
    st.sampled_from([slice(None), slice(1, None), slice(None, None, -2)]),
)
@example([a_row(n='"\udcff"')], ("n",), slice(None))
@example([a_row(n="9" * 5_000), a_row()], ("n",), slice(None))
def test_a_page_is_known_by_the_same_whichever_way_it_was_read(
    members: list[str], key: tuple[str, ...], part: slice
) -> None:
    raw = ("[" + ",".join(members) + "]").encode("utf-8", "surrogateescape")
    document = json_body.parse(raw, max_depth=64)
    prints = PRINTS[key]
    row_type = an_encoder().row_type
    assert row_type is not None
    reader = RowReader.of(row_type, "@", 64)
    assert reader is not None
    reader.learn(document)
    found = reader.read(raw)
    if found is None:
        return
    odd: list[bool] = []
    typed = Records(found.row_type, found.rows, lambda: document, lambda: odd.append(True))
    assert prints.of(typed[part]) == prints.of(document[part])
    assert prints.of(typed) == prints.of(document)
    # Whether its rows can be used is for who lands them to find out.
    assert odd == []


def test_a_fingerprint_of_usual_rows_parses_none() -> None:
    def parse() -> Any:
        raise AssertionError("nobody needs the records")

    raw = f"[{a_row(n='123456789.123456789123456789')}, {a_row(t='null', n='1.50')}]".encode()
    _, found = read(raw.decode())
    typed = Records(found.row_type, found.rows, parse, lambda: None)
    document = json_body.parse(raw, max_depth=64)
    other = json_body.parse(raw.replace(b"1.50", b"1.5"), max_depth=64)
    for key in ((), ("n",), ("c",)):
        assert PRINTS[key].of(typed) == PRINTS[key].of(document)
    assert PRINTS[("n",)].of(typed) != PRINTS[("n",)].of(other)


def read(raw: str, path: str = "@") -> tuple[Encoder, Any]:
    encoder = an_encoder()
    assert encoder.row_type is not None
    reader = RowReader.of(encoder.row_type, path, 64)
    assert reader is not None
    reader.learn(json_body.parse(raw.encode(), max_depth=64))
    return encoder, reader.read(raw.encode())


def test_usual_pages_take_the_fast_way() -> None:
    encoder, found = read(f"[{a_row()}, {a_row(n='null', t='null')}]")
    body = encoder.typed_page(as_records(found, None), ENDING)
    assert body is not None
    assert body.rows == 2
    encoder, found = read(f"[{a_row()}, {a_row(i='', n='')}]")
    assert encoder.typed_page(as_records(found, None), ENDING) is not None
    assert b'1,1.50,-2e0,"\xc3\xa9\n",true,"2024-01-02T03:04:05Z","x",null,1,2,' in body.text


@pytest.mark.parametrize(
    "change",
    [
        {"i": '"1"'}, {"i": "1.0"}, {"t": "5"}, {"t": "{}"}, {"b": "1"}, {"at": "5"}, {"more": "1"},
        {"t": '"\\ud800"'}, {"n": "NaN"},
    ],
)  # fmt: skip
def test_odd_pages_are_parsed(change: dict[str, str]) -> None:
    encoder = an_encoder()
    assert encoder.row_type is not None
    reader = RowReader.of(encoder.row_type, "@", 64)
    assert reader is not None
    assert reader.read(f"[{a_row()}, {a_row(**change)}]".encode()) is None


@pytest.mark.parametrize(
    "change",
    [
        {"n": "{}"},
        {"n": "[1]"},
        {"n": "-0"},
        {"d": '"\\u0031"'},
        {"t": '"\\u0000"'},
        {"at": '"today"'},
        {"at": '"01/02/2024"'},
    ],
)
def test_rows_that_need_a_look_are_parsed(change: dict[str, str]) -> None:
    encoder, found = read(f"[{a_row()}, {a_row(**change)}]")
    assert encoder.typed_page(as_records(found, None), ENDING) is None


def test_what_stands_beside_the_rows_is_kept() -> None:
    raw = f'{{"next": {{"url": "u"}}, "data": {{"total": 2.50, "rows": [{a_row()}]}}, "ok": null}}'
    _, found = read(raw, "data.rows")
    assert found.envelope == {"next": {"url": "u"}, "data": {"total": 2.5}, "ok": None}


def test_a_field_that_comes_later_is_learnt_and_is_not_odd() -> None:
    encoder = an_encoder()
    assert encoder.row_type is not None
    reader = RowReader.of(encoder.row_type, "rows", 64)
    assert reader is not None
    shard = ShardReader(reader)
    bodies = [f'{{"f{number}": 1, "rows": [{a_row()}]}}'.encode() for number in range(2 * MAX_ODD_PAGES)]
    contents = [
        Content(body, lambda body=body: json_body.parse(body, max_depth=9), shard)
        for body in [*bodies, *bodies]
    ]
    assert [content.rows is not None for content in contents] == [False] * len(bodies) + [True] * len(bodies)


def test_after_three_odd_pages_a_shard_gives_up() -> None:
    encoder = an_encoder()
    assert encoder.row_type is not None
    reader = RowReader.of(encoder.row_type, "@", 64)
    assert reader is not None
    shard = ShardReader(reader)
    odd, usual_page = f"[{a_row(t='5')}]".encode(), f"[{a_row()}]".encode()
    for body in [odd] * MAX_ODD_PAGES:
        content = Content(body, lambda body=body: json_body.parse(body, max_depth=9), shard)
        assert content.rows is None
        assert len(content.document) == 1
    assert shard.read(usual_page) is None
    assert ShardReader(reader).read(usual_page) is not None


SPARSE = [
    '"rb": 1.50, "ra": "x"',
    '"ra": "y"',
    "",
    '"ra": "http:\\/\\/x", "rc": null',
    '"rb": -0, "rd": {"z": 1, "y": [1.0, "é"]}',
    '"ra": ":,", "re": "100%"',
]


def test_undeclared_fields_are_rows_of_their_own_kind() -> None:
    """Whichever of them a record has, in whatever order and spelling."""
    encoder = an_encoder()
    assert encoder.row_type is not None
    members = [a_row()[:-1] + ("," if more else "") + more + "}" for more in SPARSE]
    raw = f"[{','.join(members)}]".encode()
    records = json_body.parse(raw, max_depth=64)
    reader = RowReader.of(encoder.row_type, "@", 64)
    assert reader is not None
    assert reader.read(raw) is None
    assert reader.learn(records)
    assert not reader.learn(records)
    found = reader.read(raw)
    assert found is not None
    fast = encoder.typed_page(Records(found.row_type, found.rows, lambda: records, lambda: None), ENDING)
    assert fast is not None
    assert fast.text == encoder.page(records, ENDING, plain=False).text
    assert b'"{\\"ra\\":\\"x\\",\\"rb\\":1.50}"' in fast.text


@pytest.mark.parametrize("more", ['"\\ud800"', '"\\u0000"', '"\xff"', "[" * 9 + "]" * 9])
def test_undeclared_fields_that_cannot_be_written_are_looked_at(more: str) -> None:
    encoder = an_encoder()
    assert encoder.row_type is not None
    row_type = encoder.row_type.learnt([{"more": 1}])
    assert row_type is not None
    reader = RowReader.of(row_type, "@", 64)
    assert reader is not None
    found = reader.read(f"[{a_row(more=more)}]".encode("latin-1"))
    assert found is None or row_type.encoded(found.rows) is None


def test_too_many_or_unspeakable_fields_are_not_learnt() -> None:
    encoder = an_encoder()
    assert encoder.row_type is not None
    for record in ({f"f{number}": 1 for number in range(500)}, {'a"b': 1}, {"a\nb": 1}):
        reader = RowReader.of(encoder.row_type, "@", 64)
        assert reader is not None
        assert not reader.learn([record])
    made_up = [{f"f{number}": 1} for number in range(50)]
    reader = RowReader.of(encoder.row_type, "@", 64)
    assert reader is not None
    assert not reader.learn(made_up)


def test_a_bad_body_is_refused_as_ever() -> None:
    encoder = an_encoder()
    assert encoder.row_type is not None
    reader = RowReader.of(encoder.row_type, "@", 64)
    assert reader is not None
    for raw, error in (
        (b"[1", json_body.Truncated),
        (b"<html>", json_body.Unreadable),
        (b"[[[[]]]]", json_body.TooDeep),
    ):
        with pytest.raises(error):
            Content(raw, lambda raw=raw: json_body.parse(raw, max_depth=3), ShardReader(reader))


@pytest.mark.parametrize(
    ("expression", "records", "beside"),
    [
        ("next", "rows", True), ("meta.next", "rows", True), ("data.next", "data.rows", True), ("rows", "rows", False),
        ("rows[-1].id", "rows", False), ("length(rows)", "rows", False), ("data", "data.rows", False),
        ("rows.next", "rows", False), ("next", "@", False), ('"a b"', "rows", False),
    ],
)  # fmt: skip
def test_expressions_that_do_not_need_the_rows(expression: str, records: str, *, beside: bool) -> None:
    assert stands_beside(expression, records) is beside


@pytest.mark.parametrize(
    "columns",
    [
        {"a": Column(type="jsonb")},
        {"a": Column(type="text", path="x.y")},
        {"a": Column(type="text", path="x"), "b": Column(type="text", path="x")},
        {"a": Column(type="date", null_if=("",))},
        {"a": Column(type="timestamptz", format="epoch_s")},
        {"a": Column(type="timestamptz", format="iso", timezone="Europe/Berlin")},
    ],
)
def test_columns_that_need_a_record(columns: dict[str, Column]) -> None:
    assert an_encoder(columns).row_type is None


def test_a_records_line_is_the_same_whoever_its_page_mates_are() -> None:
    encoder = an_encoder()
    plain, mates = (
        a_row(n="1.5"),
        [a_row(), a_row(more="1"), a_row(t='"],["'), a_row(i='"3.0"'), a_row(n='"x"', t="{}")],
    )
    alone = encoder.page(json_body.parse(f"[{plain}]".encode(), max_depth=9), ENDING, plain=False).text
    for mate, first in product(mates, [True, False]):
        raw = f"[{mate},{plain}]" if first else f"[{plain},{mate}]"
        body = encoder.page(json_body.parse(raw.encode(), max_depth=9), ENDING, plain=False)
        assert alone in body.text
