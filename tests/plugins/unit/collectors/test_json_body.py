from __future__ import annotations

import copy
import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.collectors.json_body import TooDeep, Truncated, Unreadable, parse
from collect_ops.kernel.json_numbers import SpelledNumber
from collect_ops.kernel.json_text import json_bytes
from collect_ops.kernel.odd_number import OddNumber
from tests.plugins.unit.cpu_deadline import ends_within

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(DOCUMENTS, st.booleans())
def test_it_reads_what_the_standard_library_writes(document: Any, ascii_only: bool) -> None:
    assert parse(json.dumps(document, ensure_ascii=ascii_only).encode(), max_depth=512) == document


@given(DOCUMENTS, st.integers(1, 6))
def test_depth_is_counted_exactly(document: Any, max_depth: int) -> None:
    raw = json.dumps(document).encode()
    if depth(document) > max_depth:
        with pytest.raises(TooDeep):
            parse(raw, max_depth=max_depth)
    else:
        assert parse(raw, max_depth=max_depth) == document


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@pytest.mark.parametrize(
    "number",
    [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**18, 10**19, 10**25, -(10**19), 10**300],
)
def test_integers_are_exact(number: int) -> None:
    for raw in (f"[{number}]", f'{{"a": {number} }}', f"[1.5,{number},2]", f"[[{number}\n]]", f"{number}"):
        assert parse(raw.encode(), max_depth=9) == json.loads(raw)


SPELLINGS = [
    "1.50",
    "-0.0",
    "1E5",
    "2e0",
    "0.12345678901234567890123",
    "9007199254740993.25",
    "1e400",
    "-1e-999",
]


@pytest.mark.parametrize("text", [*SPELLINGS, "1" * 5000])
@pytest.mark.parametrize("charset", [None, "utf-16"])
def test_numbers_are_spelled_as_they_came_and_calculate_as_doubles(text: str, charset: str | None) -> None:
    raw = f'{{"a": [{text}], "b": "ü"}}'.encode(charset or "utf-8")
    (number,) = parse(raw, max_depth=9, charset=charset)["a"]
    assert isinstance(number, SpelledNumber)
    assert number.text == text
    assert number == float(text)


def test_long_fractions_stay_on_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b'[0.12345678901234567890123, "12345678901234567890123", 1.2345678901234567890123e5]'
    monkeypatch.setattr("collect_ops.collectors.json_body.json.loads", None)
    assert parse(raw, max_depth=9) == orjson.loads(raw)


def test_lone_surrogates_survive() -> None:
    assert parse(rb'["\ud800", "\udc00x", "\ud83d\ude00"]', max_depth=9) == ["\ud800", "\udc00x", "😀"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"  \n",
        b"<html>",
        b"[1,]",
        b"{'a':1}",
        b"[1] [2]",
        b'"abc',
        b"[1, \xe9]",
        b")]}'",
    ],
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        parse(raw, max_depth=9)


@pytest.mark.parametrize(
    ("spelled", "value"),
    [
        ("NaN", math.nan),
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
    ],
)
def test_a_number_that_is_none_is_read_and_never_written_as_another(spelled: str, value: float) -> None:
    document = parse(f'{{"rows": [{{"id": 1, "x": {spelled}}}, {{"id": 2}}]}}'.encode(), max_depth=9)
    number = document["rows"][0]["x"]
    assert isinstance(number, OddNumber)
    assert number.text == spelled
    assert number == value or math.isnan(value)
    assert document["rows"][1] == {"id": 2}
    for copied in (number, copy.deepcopy(document)["rows"][0]["x"]):
        with pytest.raises(orjson.JSONEncodeError):
            orjson.dumps(copied)


@pytest.mark.parametrize("text", ["1e400", "-1.5E+999", pytest.param("1" * 5000, id="5,000 digits")])
def test_a_number_beyond_a_double_keeps_its_digits(text: str) -> None:
    (number,) = parse(f"[{text}]".encode(), max_depth=9)
    assert isinstance(number, SpelledNumber)
    assert number.text == text
    assert json_bytes([number]) == f"[{text}]".encode()


def test_control_characters_within_texts_are_read() -> None:
    raw = b'["a\tb", "c\nd", "e\x00f", "g\x7fh"]'
    assert parse(raw, max_depth=9) == ["a\tb", "c\nd", "e\0f", "g\x7fh"]


@pytest.mark.parametrize("charset", [None, "utf-8", "UTF8", "us-ascii"])
def test_a_byte_that_is_not_utf_8_is_a_lone_surrogate(charset: str | None) -> None:
    raw = '["Jos\u00e9", "é"]'.encode("latin-1")
    assert parse(raw, max_depth=9, charset=charset) == ["Jos\udce9", "\udce9"]


@pytest.mark.parametrize(
    "guard", [")]}'", ")]}',\n", ")]}\n", "while(1);", "while (1) ;\n", "for(;;);", "&&&START&&&", "{} && "]
)  # fmt: skip
def test_what_guards_a_body_from_browsers_is_left_out(guard: str) -> None:
    assert parse(f'{guard}{{"rows": [1, NaN]}}'.encode(), max_depth=9)["rows"][0] == 1
    with pytest.raises(Truncated):
        parse(f'{guard}{{"rows": [1'.encode(), max_depth=9)


def test_what_cannot_be_read_names_its_place_and_one_character() -> None:
    for raw, place in (
        (b'{"a": 1,\n "b" 2}', "line 2 column 6 (char 14), where '2' stands"),
        (b'{"a": \xe9}', "line 1 column 7 (char 6), where the byte 0xE9 stands"),
        (b"[01]", "line 1 column 3 (char 2), where '1' stands"),
    ):
        with pytest.raises(Unreadable) as caught:
            parse(raw, max_depth=9)
        assert str(caught.value).endswith(place)


@given(DOCUMENTS.filter(lambda document: isinstance(document, dict | list) and document), st.data())
def test_a_beginning_with_an_odd_number_is_truncated_too(document: Any, data: st.DataObject) -> None:
    raw = b"[NaN, " + json.dumps(document).encode() + b"]"
    with pytest.raises(Truncated):
        parse(raw[: data.draw(st.integers(5, len(raw) - 1))], max_depth=512)


@given(DOCUMENTS.filter(lambda document: isinstance(document, dict | list) and document), st.data())
def test_a_beginning_of_json_is_truncated(document: Any, data: st.DataObject) -> None:
    raw = orjson.dumps(document, option=orjson.OPT_PASSTHROUGH_DATACLASS) if _fits(document) else b"[1,2]"
    cut = raw[: data.draw(st.integers(1, len(raw) - 1))]
    try:
        cut.decode()
    except UnicodeDecodeError:
        return
    with pytest.raises(Truncated):
        parse(cut, max_depth=512)


def _fits(document: Any) -> bool:
    try:
        orjson.dumps(document)
    except TypeError:
        return False
    return True


@pytest.mark.parametrize(
    ("raw", "charset"),
    [
        ('["ü"]'.encode("latin-1"), "iso-8859-1"),
        ('["ü"]'.encode("utf-16"), None),
        ('["ü"]'.encode("utf-8-sig"), None),
        ('["ü"]'.encode(), "utf-8"),
    ],
)
def test_other_encodings(raw: bytes, charset: str | None) -> None:
    assert parse(raw, max_depth=9, charset=charset) == ["ü"]


@pytest.mark.parametrize("size", [65, 1000, 1100, 100_000])
def test_deep_documents_are_refused(size: int) -> None:
    with pytest.raises(TooDeep):
        parse(b"[" * size + b"]" * size, max_depth=64)
    with pytest.raises(TooDeep):
        parse(b'[{"a":"[[[[]]]]"},' + b'{"a":' * size + b"1" + b"}" * size + b"]", max_depth=64)


# What orjson refuses, so that the charset counts.
NOT_UTF8 = '["\u00fc"]'.encode("latin-1")


@pytest.mark.parametrize(
    "charset",
    [
        "undefined", "hex", "rot13", "base64", "zlib", "bz2", "idna", "punycode", "unicode_escape",
        "raw_unicode_escape", "utf-7", "mbcs", "no-such-charset", "a\0b", "../../etc/passwd", "\u00e9", "x" * 100_000,
    ],
)  # fmt: skip
def test_a_charset_that_is_none_is_a_clear_error(charset: str) -> None:
    with pytest.raises(Unreadable, match="not text"):
        parse(NOT_UTF8, max_depth=9, charset=charset)


def test_no_charset_takes_for_ever_on_a_long_text() -> None:
    long = b'["' + b"\xfca-" * 500_000 + b'"]'
    for charset in ("punycode", "idna", "undefined"):
        with ends_within(5), pytest.raises(Unreadable):
            parse(long, max_depth=9, charset=charset)
