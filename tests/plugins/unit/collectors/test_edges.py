"""Endpoint, Link header, decoding, totals, retries: the small pure parts."""

from __future__ import annotations

import contextlib
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from collect_ops.collectors.decoding import BrokenEncoding, OverLimit, TooManyMembers, decoder_for
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import HostBusy, NotJson, ServerFailed
from collect_ops.collectors.links import LinkMalformed, find_next
from collect_ops.collectors.retry import retry_after_s, wait_before_retry
from collect_ops.collectors.totals import NamedTotal, total_of
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.model import BodyTotal, Retries
from tests.plugins.unit.cpu_deadline import ends_within


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({"host": "api.example.com"}, "http://api.example.com"),
        ({"host": "api.example.com", "schema": "https", "port": 8443}, "https://api.example.com:8443"),
        ({"host": "https://api.example.com/v1/", "schema": "http"}, "https://api.example.com/v1"),
        ({"host": "http://127.0.0.1", "port": "8001"}, "http://127.0.0.1:8001"),
        ({"host": "http://[::1]:81"}, "http://[::1]:81"),
    ],
)
def test_base_urls(fields: dict[str, Any], base_url: str) -> None:
    assert Endpoint.from_mapping({"conn_type": "http", **fields}).base_url == base_url


def test_a_connection_is_read_whole() -> None:
    extra = {"headers": {"X-A": "1"}, "allow_private_networks": True, "timeout": 5}
    fields = {"conn_type": "http", "host": "h", "login": "me", "password": "secret", "extra": extra}
    for given_extra in (extra, json.dumps(extra)):
        read = Endpoint.from_connection_json(json.dumps({**fields, "extra": given_extra}))
        assert (read.login, read.password, read.headers) == ("me", "secret", {"X-A": "1"})
        assert read.allow_private_networks
        assert "secret" not in repr(read)


def test_all_faults_of_a_connection_are_named_and_no_secret() -> None:
    fields = {
        "host": "http://u:s3cret@h",
        "port": 70000,
        "password": "s3cret\n",
        "extra": {
            "allow_private_network": True,
            "allow_private_networks": "yes",
            "headers": {"A": "s3cret\r\n"},
        },
    }
    with pytest.raises(ValidationFailed) as caught:
        Endpoint.from_mapping(fields, connection="example_api")
    assert [fault.field for fault in caught.value.faults] == [
        "host",
        "extra.allow_private_networks",
        "extra.headers.A",
        "extra.allow_private_network",
        "password",
    ]
    assert "s3cret" not in str(caught.value)
    assert "connection example_api" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "host"),
        ({"host": "h", "port": 0}, "port"),
        ({"host": "ftp://h"}, "schema"),
        ({"host": "http://h?x=1"}, "host"),
        ({"host": "h", "extra": "[]"}, "extra"),
        ({"host": "h", "login": 5}, "login"),
    ],
)
def test_a_fault_names_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        Endpoint.from_mapping(fields)
    assert [fault.field for fault in caught.value.faults] == [field]


@pytest.mark.parametrize("text", ["", "[]", '{"password": "s3cret"', "http://h"])
def test_what_is_no_connection(text: str) -> None:
    with pytest.raises(ValidationFailed, match="must be a JSON object") as caught:
        Endpoint.from_connection_json(text)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "target"),
    [
        (['<https://h/?page=2>; rel="next"'], "https://h/?page=2"),
        (['<a>; rel="prev", <b?x=1,2;3>; rel=next; title="a, b; c"'], "b?x=1,2;3"),
        (['<a>; rel="first last"', '<b>; REL="last Next"'], "b"),
        (['<a>; title="rel=next"; rel="prev"'], None),
        (['<a>; rel="prev"; rel="next"'], None),
        (['<a>; rel="next"; anchor="#x"'], None),
        (["<>; rel=next"], ""),
        (["garbage"], None),
        ([], None),
        # As servers write them.
        (["<a>; rel='next'"], "a"),
        (["<a>; rel='prev', <b>; rel = 'next'; title='x'"], "b"),
        (['<a>; rel="next last"'], "a"),
        (['<a>; rel="last,next"'], "a"),
        (["<a>; rel=last next; title=x"], "a"),
        (["<a>; rel = next , <b>; rel=prev"], "a"),
        (['<a>; title=Hello, world; rel="next"'], "a"),
        (["<a>; title=it's; rel=next, <b>; title='x'"], "a"),
        (['<a>; title="<b>, c"; rel="next"'], "a"),
        (['<https://h/?x=a,b;c&y=%2F>;rel="next"'], "https://h/?x=a,b;c&y=%2F"),
        ([' , ,<a>; rel="prev" , , <b>;; rel="next";'], "b"),
        (["garbage, <b>; rel=next"], "b"),
        (["https://h/?page=1; rel=prev, <b>; rel=next"], "b"),
        (["https://h/?page=2; rel=next, <b>; rel=next"], "b"),
        (["https://h/?page=1; rel=prev"], None),
        (['<a>; rel="next'], "a"),
        (['<a>; rel="previous"; results="true", <b>; rel="next"; results="false"'], None),
    ],
)
def test_link_headers(headers: list[str], target: str | None) -> None:
    link = find_next(headers)
    assert (None if link is None else link.target) == target


@pytest.mark.parametrize(
    "header",
    [
        'https://h/items?page=2; rel="next"',
        "/items?page=2; rel='next'",
        "?page=2;rel=next",
        "<a>; rel=prev, https://h/items?page=2; rel=next",
        "https://h/items?a=1,2; rel=next",
        "</items?page=2; rel=next",
    ],
)
def test_a_next_link_whose_address_cannot_be_told_is_not_the_end(header: str) -> None:
    with pytest.raises(LinkMalformed):
        find_next([header])


def test_a_link_tells_its_parameters() -> None:
    link = find_next(['<https://h/?cursor=0:100:0>; rel="next"; results="true"; cursor="0:100:0"'])
    assert link is not None
    assert link.params == {"rel": "next", "results": "true", "cursor": "0:100:0"}


@given(st.text(max_size=300) | st.text(alphabet="<>;,='\"\\\\ relnxt/", max_size=60))
def test_any_link_header_is_read(header: str) -> None:
    with contextlib.suppress(LinkMalformed):
        find_next([header])


@pytest.mark.timeout(10)
def test_a_hostile_link_header_takes_no_time() -> None:
    for header in (
        "<a>" + ";a" * 30_000,
        "<a>; " + " " * 60_000,
        '<a>; rel="' + '\\"' * 30_000,
        "<" * 60_000,
        "<a>" + "," * 60_000 + "b",
        "<a>; b='" + "='" * 30_000,
        "," * 60_000 + "x" + ", " * 30_000,
        "a<" * 30_000,
    ):
        find_next([header])


PIECES = st.lists(st.binary(max_size=2000), max_size=20)


@given(
    PIECES,
    st.sampled_from(
        ["gzip", "deflate", "raw deflate", "identity", "two members", "br", "zstd", "two frames"]
    ),
    st.integers(1, 50),
)
def test_decoding_gives_back_what_was_encoded(pieces: list[bytes], encoding: str, step: int) -> None:
    body = b"".join(pieces)
    if encoding == "identity":
        body = b"x" + body  # what begins as gzip does is gzip, whatever it is called
    wire = {
        "gzip": gzip.compress(body),
        "deflate": zlib.compress(body),
        "raw deflate": zlib.compress(body, wbits=-15),
        "identity": body,
        "two members": gzip.compress(body[:7]) + gzip.compress(body[7:]),
        "br": brotli.compress(body),
        "zstd": zstd.compress(body),
        "two frames": zstd.compress(body[:7]) + zstd.compress(body[7:]),
    }[encoding]
    name = {"raw deflate": "deflate", "two members": "gzip", "two frames": "zstd"}.get(encoding, encoding)
    assert decode(name, wire, len(body), step) == body
    if body:
        with pytest.raises(OverLimit):
            decode(name, wire, len(body) - 1, step)
    # A whole member is a whole body, and so is nothing.
    if encoding not in ("identity", "two members", "two frames") and len(wire) > 1:
        with pytest.raises(BrokenEncoding):
            decode(name, wire[: len(wire) // 2], len(body), step)


@given(
    st.binary(max_size=500),
    st.lists(st.sampled_from(["gzip", "br", "zstd", "deflate"]), min_size=1, max_size=3),
    st.sampled_from(["", "identity", "utf-8"]),
    st.integers(1, 50),
)
def test_several_encodings_are_undone_from_the_last(
    body: bytes, names: list[str], nothing: str, step: int
) -> None:
    wire = body
    for name in names:
        wire = COMPRESS[name](wire)
    assert decode(", ".join([nothing, *names]), wire, len(body) + 1000, step) == body


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "deflate": zlib.compress,
}
ROWS = b'{"rows": [1, 2, 3]}'
#: Without the time, which would be part of the tests' names.
GZIPPED = gzip.compress(ROWS, mtime=0)


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(
    ("encoding", "wire"),
    [
        ("gzip", GZIPPED + b"\n"),
        ("gzip", GZIPPED + b"\0" * 500),
        ("gzip", GZIPPED + b"\x1f"),
        ("gzip", GZIPPED + gzip.compress(b"", mtime=0) + b"<!-- -->"),
        ("zstd", zstd.compress(ROWS) + b"\n"),
        ("deflate", zlib.compress(ROWS) + b"\n"),
        ("gzip", ROWS),
        ("zstd", ROWS),
        ("gzip, gzip", GZIPPED),
        ("gzip, gzip", ROWS),
        ("", GZIPPED),
        ("identity", GZIPPED),
        *(
            (name, ROWS)
            for name in ("utf-8", "UTF8", "none", "binary", "identity, none", "aws-chunked", '"utf-8"')
        ),
    ],
)
def test_encodings_as_servers_get_them_wrong(encoding: str, wire: bytes, step: int) -> None:
    assert decode(encoding, wire, 100, step) == ROWS


def test_a_body_that_is_shorter_than_a_magic_number_is_read() -> None:
    assert decode("zstd", b"[]", 100, 1) == b"[]"
    assert decode("gzip", b"", 100, 1) == b""


@pytest.mark.parametrize("name", ["gzip", "br", "zstd"])
def test_a_bomb_gets_no_more_memory_than_a_step(name: str) -> None:
    wire = COMPRESS[name](b" " * (200 << 20))
    tracemalloc.start()
    decoder = decoder_for(name, 1 << 20)
    assert decoder is not None
    with pytest.raises(OverLimit):
        decoder.feed(wire)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
    assert decoder_for(name, 4096).beginning(wire) == b" " * 4096  # type: ignore[union-attr]


def decode(encoding: str, wire: bytes, limit: int, step: int) -> bytes:
    decoder = decoder_for(encoding, limit)
    assert decoder is not None
    for start in range(0, len(wire), step):
        decoder.feed(wire[start : start + step])
    return decoder.finish()


def test_encodings_nobody_asked_for() -> None:
    assert decoder_for("compress", 1) is None
    assert decoder_for("gzip, gzip, gzip, gzip", 1) is None


TOTAL = BodyTotal(type="body", path="total")


@pytest.mark.parametrize(
    ("value", "total"),
    [
        (0, 0),
        (7, 7),
        (7.0, 7),
        ("12", 12),
        (" 12 ", 12),
        ("items 0-24/1000", 1000),
        ("0-24/*", None),
        ("*", None),
        (None, None),
        ({"value": 12, "relation": "eq"}, 12),
        ({"value": "12"}, 12),
    ],
)
def test_totals(value: Any, total: int | None) -> None:
    assert total_of(value, TOTAL, where="w") == NamedTotal(rows=total)


@pytest.mark.parametrize(
    "value",
    [
        -1, 1.5, True, "many", "", [], {}, "-3", "1,234", "1 234", "12.5", "1e3", 10**18, "9" * 19,
        {"value": "many"}, {"value": 10_000, "relation": "gte"}, {"value": 1, "relation": 7},
    ],
)  # fmt: skip
def test_what_is_no_total_names_none_and_says_what_stands_there(value: Any) -> None:
    named = total_of(value, TOTAL, where="w")
    assert (named.rows, named.exact) == (None, None)
    assert named.problem is not None
    assert "the total at w is" in named.problem


@pytest.mark.parametrize(
    ("declared", "rows", "at_least"),
    [
        ({}, 10_000, False),
        ({"at_least": True}, 3, True),
        ({"capped_at": 10_000}, 9_999, False),
        ({"capped_at": 10_000}, 10_000, True),
        ({"capped_at": 10_000}, 12_000, True),
    ],
)
def test_totals_that_are_a_lower_bound(declared: dict[str, Any], rows: int, at_least: bool) -> None:
    named = total_of(rows, BodyTotal(type="body", path="t", **declared), where="w")
    assert named == NamedTotal(rows=rows, at_least=at_least)
    assert named.exact == (None if at_least else rows)


NOW = datetime(2024, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"Retry-After": "Mon, 01 Jan 2024 12:00:30 GMT"}, 30),
        ({"Retry-After": "Mon, 01 Jan 2024 11:00:00 GMT"}, 0),
        ({"Retry-After": "Mon, 01 Jan 2024 12:00:30 GMT", "Date": "Mon, 01 Jan 2024 12:00:25 GMT"}, 5),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        # As servers write it.
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "120s"}, 120),
        ({"Retry-After": "2 minutes"}, 120),
        ({"Retry-After": "1500 ms"}, 1.5),
        ({"Retry-After": '"30"'}, 30),
        ({"Retry-After": "30, 60"}, 30),
        ({"Retry-After": "2024-01-01T12:00:30Z"}, 30),
        ({"Retry-After": "2024-01-01T14:00:30+02:00"}, 30),
        ({"Retry-After": "2024-01-01 12:00:30"}, 30),
        ({"Retry-After": "1704110430"}, 30),
        ({"Retry-After": "1704110430.5"}, 30.5),
        ({"Retry-After": "1704110430000"}, 30),
        ({"Retry-After": "1704110430000000"}, 30),
        ({"Retry-After": "1704110400"}, 0),
        ({"Retry-After": "1704110430", "Date": "Mon, 01 Jan 2024 12:00:25 GMT"}, 5),
        ({"Retry-After": "999999999"}, 999_999_999),
        ({"Retry-After": "120 bananas"}, None),
        ({"Retry-After-Ms": "1500", "Retry-After": "2"}, 1.5),
        ({"X-Retry-After": "9"}, 9),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(CIMultiDict(headers), NOW) == seconds


@given(st.integers(1, 30), st.floats(0, 1, exclude_max=True))
def test_backoff_is_jittered_below_a_doubling_ceiling(attempt: int, chance: float) -> None:
    retries = Retries(http_attempts=20, http_backoff_s=0.5, http_max_backoff_s=8)
    wait = wait_before_retry(ServerFailed("u", 500, ""), attempt, retries, lambda: chance)
    if attempt >= 20:
        assert wait is None
    else:
        assert wait is not None
        assert 0 <= wait <= min(8, 0.5 * 2 ** (attempt - 1))


def test_when_it_is_not_tried_again() -> None:
    retries = Retries(http_attempts=3, http_max_backoff_s=30)
    assert wait_before_retry(NotJson("u", "", "", ""), 1, retries, lambda: 0.5) is None
    assert wait_before_retry(HostBusy("u", 429, 31), 1, retries, lambda: 0.5) is None
    assert wait_before_retry(HostBusy("u", 429, 30), 1, retries, lambda: 0.5) == 30
    assert wait_before_retry(HostBusy("u", 429, 10), 1, retries, lambda: 0.5) == 10.25
    assert wait_before_retry(HostBusy("u", 429, None), 1, retries, lambda: 0.5) == 0.25


def test_a_gzip_body_of_many_members_is_refused_before_it_takes_for_ever() -> None:
    body = gzip.compress(b"") * 500_000
    decoder = decoder_for("gzip", 1024)
    assert decoder is not None
    pieces = [body[start : start + 256 * 1024] for start in range(0, len(body), 256 * 1024)]
    with ends_within(20), pytest.raises(TooManyMembers):
        list(map(decoder.feed, pieces))


def test_a_gzip_body_of_some_members_is_read() -> None:
    decoder = decoder_for("gzip", 10_000)
    assert decoder is not None
    decoder.feed(gzip.compress(b"ab") * 2000)
    assert decoder.finish() == b"ab" * 2000
