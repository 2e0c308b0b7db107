"""Files of params: what is read, and what is said of lines that cannot be."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.admission import params_file
from collect_ops.admission.params_file import Format, Line, format_of, read_lines
from collect_ops.kernel.errors import ValidationFailed


def lines(content: bytes, format_: Format, *, tabs: bool = False) -> list[Line]:
    return list(read_lines(io.BytesIO(content), format_, tabs=tabs))


def problems(line: Line) -> list[str]:
    return [str(fault) for fault in line.faults]


def test_csv() -> None:
    content = b'\xef\xbb\xbfday, carrier\r\n2013-01-01,AA\r\n\r\n2013-01-02,\r\n"a\nb","c,d"\r\nlast,x'
    assert [(line.number, line.params) for line in lines(content, Format.CSV)] == [
        (2, {"day": "2013-01-01", "carrier": "AA"}),
        (4, {"day": "2013-01-02"}),
        (5, {"day": "a\nb", "carrier": "c,d"}),
        (7, {"day": "last", "carrier": "x"}),
    ]
    [line] = lines(b"day\tcarrier\n1\tb,c\n", Format.CSV, tabs=True)
    assert line.params == {"day": "1", "carrier": "b,c"}


def test_bad_csv_lines_are_told_of_and_the_others_read() -> None:
    content = b'a,b\n1\n1,2,3\n1,\xff\n"x"y,1\n5,6\n"unclosed,1\n'
    found = lines(content, Format.CSV)
    assert [(line.number, bool(line.faults)) for line in found] == [
        (2, True), (3, True), (4, True), (5, True), (6, False), (7, True),
    ]  # fmt: skip
    assert problems(found[0]) == ["line: must have 2 cells like the header (got 1)"]
    assert problems(found[2]) == [r"b: is no UTF-8 (got '\\xff')"]
    assert "expected after" in problems(found[3])[0]
    assert "unexpected end" in problems(found[5])[0]
    assert found[4].params == {"a": "5", "b": "6"}


def test_an_unclosed_quote_says_which_lines_it_takes_with_it() -> None:
    content = b'a,b\n1,2\n"unclosed,0\n' + b"".join(b"%d,x\n" % number for number in range(1000))
    good, bad = lines(content, Format.CSV)
    assert good.number == 2
    assert (bad.number, bad.spans, bad.raw) == (3, 1001, '"unclosed,0')
    assert "lines to 1003 are part of it" in problems(bad)[0]
    longer = content + b"y" * 200_000 + b"\n5,6\n"
    *_, last = lines(longer, Format.CSV)
    assert last.params == {"a": "5", "b": "6"}, "beyond the longest field it is read again"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("größe,b\n1,2\n".encode("latin-1"), "is no UTF-8"),
        (b"", "must name a parameter in each column"),
        (b"a,,b\n1,2,3\n", "must name a parameter in each column"),
        (b"a,b,a\n1,2,3\n", "names a twice"),
    ],
)
def test_a_header_that_cannot_be_used(content: bytes, problem: str) -> None:
    with pytest.raises(ValidationFailed, match=problem):
        lines(content, Format.CSV)


def test_ndjson() -> None:
    content = b'\xef\xbb\xbf{"day": "1", "n": [1, 2.5]}\n\n  \n{"day": "\xc3\xa9"}\r\n{"last": null}'
    assert [(line.number, line.params) for line in lines(content, Format.NDJSON)] == [
        (1, {"day": "1", "n": [1, 2.5]}),
        (4, {"day": "é"}),
        (5, {"last": None}),
    ]


def test_bad_ndjson_lines_are_told_of_and_the_others_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(params_file, "MAX_LINE_BYTES", 50)
    long = b'{"a": "' + b"x" * 200 + b'"}\n'
    content = b'{"a": 1\n[1]\n"text"\n\xff\n' + long + b'{"a": 2}\n' + long.strip()
    found = lines(content, Format.NDJSON)
    assert [line.number for line in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [bool(line.faults) for line in found] == [True, True, True, True, True, False, True]
    assert "is no JSON" in problems(found[0])[0]
    assert problems(found[1]) == ["line: must be an object of parameters (got 'list')"]
    assert problems(found[4]) == ["line: is longer than 50 bytes"]
    assert (found[3].raw, found[5].params) == (r"\xff", {"a": 2})


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1)
RECORDS = st.lists(st.fixed_dictionaries({"a": TEXT, "b": TEXT}), min_size=1)


@given(RECORDS)
def test_what_python_writes_is_read_back(records: list[dict[str, str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["a", "b"])
    writer.writeheader()
    writer.writerows(records)
    assert [line.params for line in lines(text.getvalue().encode(), Format.CSV)] == records
    ndjson = "".join(json.dumps(record) + "\n" for record in records)
    assert [line.params for line in lines(ndjson.encode(), Format.NDJSON)] == records


@given(st.binary(), st.sampled_from(Format))
def test_any_bytes_are_read_or_refused(content: bytes, format_: Format) -> None:
    try:
        found = lines(content, format_)
    except ValidationFailed as refused:
        assert refused.faults[0].field == "header"
        return
    assert all(line.params == {} for line in found if line.faults)
    assert [line.number for line in found] == sorted({line.number for line in found})
    for line in found:
        line.raw.encode()  # can be written to a file of errors


def test_the_name_tells_the_format(tmp_path: Path) -> None:
    assert [format_of(name) for name in ("a.csv", "A.TSV", "x/b.ndjson", "c.jsonl")] == [
        Format.CSV, Format.CSV, Format.NDJSON, Format.NDJSON,
    ]  # fmt: skip
    for name in ("data", "a.json", "a.xlsx"):
        with pytest.raises(ValidationFailed, match=r"its name tells no format.*\.ndjson"):
            format_of(name)
