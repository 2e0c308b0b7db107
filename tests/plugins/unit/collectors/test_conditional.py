"""What pages are known by (RFC 9110 sections 8.8 and 13)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

from collect_ops.collectors.client import Call, HttpClient
from collect_ops.collectors.conditional import (
    Validator,
    contradicts,
    etag_of,
    fingerprint,
    last_modified_of,
)
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.sources.model import Source

DATE = "Mon, 01 Jan 2024 00:00:10 GMT"


def validator(etag: str | None = None, last_modified: str | None = None) -> Validator:
    return Validator(etag=etag, last_modified=last_modified, rows=1, total=None, following=None)


def test_the_tag_wins_over_the_date() -> None:
    assert validator('W/"a"', DATE).headers == {"If-None-Match": 'W/"a"'}
    assert validator(None, DATE).headers == {"If-Modified-Since": DATE}


@pytest.mark.parametrize("text", ['"a"', 'W/"a"', '""', '"!#~"', '"a,b"'])
def test_entity_tags(text: str) -> None:
    assert etag_of(CIMultiDict({"etag": f" {text} "})) == text


@pytest.mark.parametrize(
    "text", ["", "a", "*", "'a'", 'w/"a"', '"a', '"a" "b"', '"a b"', '"ä"', 'W/ "a"', f'"{"a" * 1001}"']
)
def test_what_is_none(text: str) -> None:
    assert etag_of(CIMultiDict({"ETag": text})) is None


@pytest.mark.parametrize(
    ("changed", "answered", "usable"),
    [
        ("Mon, 01 Jan 2024 00:00:09 GMT", DATE, True),
        (DATE, DATE, False),  # it may change once more in that very second
        ("Mon, 01 Jan 2024 00:00:11 GMT", DATE, False),
        ("Mon, 01 Jan 2024 00:00:09 GMT", "", False),
        ("yesterday", DATE, False),
        ("", DATE, False),
    ],
)
def test_dates(changed: str, answered: str, usable: bool) -> None:
    headers = CIMultiDict({"Last-Modified": changed, "Date": answered})
    assert last_modified_of(headers) == (changed if usable else None)


@pytest.mark.parametrize(
    ("named", "known", "found"),
    [
        ('"a"', '"a"', False),
        ('W/"a"', '"a"', False),
        ('"a"', 'W/"a"', False),
        ('"b"', '"a"', True),
        (None, '"a"', False),
        ('"b"', None, False),
    ],
)
def test_a_304_of_another_content(named: str | None, known: str | None, found: bool) -> None:
    headers = CIMultiDict({} if named is None else {"ETag": named})
    assert contradicts(headers, validator(known, DATE)) == found


PARTS = st.tuples(
    st.sampled_from(["GET", "POST"]),
    st.sampled_from(["http://h/a", "http://h/b", "http://h/a?x=1"]),
    st.dictionaries(st.sampled_from(["accept", "x-a"]), st.sampled_from(["1", "2"])),
    st.sampled_from([None, b"", b"{}"]),
    st.tuples(st.sampled_from(["none", "basic"]), st.sampled_from(["", "me"])),
)


@given(PARTS, PARTS)
def test_fingerprints_tell_requests_apart(one: tuple[object, ...], other: tuple[object, ...]) -> None:
    assert (fingerprint(*one) == fingerprint(*other)) == (one == other)  # type: ignore[arg-type]


def test_header_names_have_no_case() -> None:
    one, other = {"Accept": "a", "X": "b"}, {"x": "b", "accept": "a"}
    assert fingerprint("GET", "u", one, None, ("", "")) == fingerprint("GET", "u", other, None, ("", ""))


def client(password: str, login: str = "me", **auth: object) -> HttpClient:
    source = Source.model_validate(
        {"name": "s", "connection": "c", "target": {"table": "t"}, "auth": {"type": "none", **auth}}
    )
    headers = {"X-Token": password, "Accept-Language": "de"}
    endpoint = Endpoint(base_url="https://h", login=login, password=password, headers=headers)
    return HttpClient(source, endpoint, concurrency=1, requests_per_s=None, on_retry=None)


@pytest.mark.parametrize(
    "auth",
    [
        {"type": "basic"},
        {"type": "bearer"},
        {"type": "api_key"},
        {"type": "api_key", "name": "X-Client"},
        {"type": "api_key", "location": "query", "name": "k"},
        {"type": "oauth2", "token_url": "/token"},
    ],
)
def test_a_new_secret_changes_nothing_and_another_user_does(auth: dict[str, object]) -> None:
    plain, keyed = (Call(method="GET", url=URL(f"https://h/a{query}")) for query in ("", "?k=old"))
    call = keyed if auth.get("location") == "query" else plain
    found = client("old", **auth).fingerprint(call)
    assert client("new", **auth).fingerprint(plain if call is keyed else call) == found
    assert client("old", login="you", **auth).fingerprint(call) != found
