"""Endpoint, Link header, decoding, totals, retries: the small pure parts."""

from __future__ import annotations

import gzip
import json
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from collect_ops.collectors.decoding import BrokenEncoding, OverLimit, TooManyMembers, decoder_for
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.collectors.errors import HostBusy, NotJson, ServerFailed
from collect_ops.collectors.links import next_link
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
    ],
)
def test_link_headers(headers: list[str], target: str | None) -> None:
    assert next_link(headers) == target


@given(st.text(max_size=300))
def test_any_link_header_is_read_without_an_error(header: str) -> None:
    next_link([header])


@pytest.mark.timeout(10)
def test_a_hostile_link_header_takes_no_time() -> None:
    for header in (
        "<a>" + ";a" * 30_000,
        "<a>; " + " " * 60_000,
        '<a>; rel="' + '\\"' * 30_000,
        "<" * 60_000,
    ):
        next_link([header])


PIECES = st.lists(st.binary(max_size=2000), max_size=20)


@given(
    PIECES, st.sampled_from(["gzip", "deflate", "raw deflate", "identity", "two members"]), st.integers(1, 50)
)
def test_decoding_gives_back_what_was_encoded(pieces: list[bytes], encoding: str, step: int) -> None:
    body = b"".join(pieces)
    wire = {
        "gzip": gzip.compress(body),
        "deflate": zlib.compress(body),
        "raw deflate": zlib.compress(body, wbits=-15),
        "identity": body,
        "two members": gzip.compress(body[:7]) + gzip.compress(body[7:]),
    }[encoding]
    name = {"raw deflate": "deflate", "two members": "gzip"}.get(encoding, encoding)
    assert decode(name, wire, len(body), step) == body
    if body:
        with pytest.raises(OverLimit):
            decode(name, wire, len(body) - 1, step)
    if encoding not in ("identity", "two members"):  # A whole member is a whole body.
        with pytest.raises(BrokenEncoding):
            decode(name, wire[: len(wire) // 2], len(body), step)


def decode(encoding: str, wire: bytes, limit: int, step: int) -> bytes:
    decoder = decoder_for(encoding, limit)
    assert decoder is not None
    for start in range(0, len(wire), step):
        decoder.feed(wire[start : start + step])
    return decoder.finish()


def test_encodings_nobody_asked_for() -> None:
    assert decoder_for("br", 1) is None
    assert decoder_for("gzip, gzip", 1) is None


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
