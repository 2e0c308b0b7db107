"""The same fault is one group, another fault is another."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.collectors import errors
from collect_ops.delivery.fingerprint import MAX_PATTERN_CHARS, fingerprint, normalised

API = "https://api.example.org/v1/flights"


def of(error: Exception) -> str:
    return fingerprint(type(error).__name__, str(error)).value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (errors.ServerFailed(f"{API}?day=1", 503, "<html>"), errors.ServerFailed(f"{API}?day=2&a=b", 503, "x")),
        (errors.HostBusy(API, 429, 1.5), errors.HostBusy(f"{API}/", 429, 120)),
        (errors.UrlNotFound(f"{API}/17/legs", 404, ""), errors.UrlNotFound(f"{API}/a81f9c/legs", 404, "")),
        (
            errors.NotJson(f"{API}?page=1", "text/html", "<!doctype html>it's down", "line 1 column 1 (char 0)"),
            errors.NotJson(f"{API}?page=9", "text/html", "<html>", "line 3 column 7 (char 55)"),
        ),
        (errors.TruncatedBody(API, 12), errors.TruncatedBody(f"{API}?x=1", 99_999)),
        (
            errors.PagingValueUnusable(API, "cursor", "'many'", "text or a number"),
            errors.PagingValueUnusable(f"{API}?b=2", "cursor", "'-3'", "text or a number"),
        ),
        (errors.PageTooLarge(API, 1000, None), errors.PageTooLarge(f"{API}?o=5", 2000, None)),
        (
            ValueError(f"3 of 40 shards failed; shard 7: {API}?p=1: answered 502"),
            ValueError(f"1 of 2 shards failed; shard 0: {API}?p=4: answered 502"),
        ),
        (
            ValueError("row 550e8400-e29b-41d4-a716-446655440000 at 2024-01-02T03:04:05.123Z: 1,234 rows"),
            ValueError("row 0a1b2c3d-e29b-41d4-a716-446655440abc at 2025-11-30 23:59:59+01:00: 7 rows"),
        ),
        (ValueError("message b'{\"x\"': is not JSON (char 3)"), ValueError("message b'\\xff': is not JSON (char 12)")),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_one_fault_is_one_group(one: Exception, other: Exception) -> None:
    assert normalised(str(one)) == normalised(str(other))
    assert of(one) == of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (errors.ServerFailed(API, 503, ""), errors.ServerFailed(API, 500, "")),
        (
            errors.ServerFailed(API, 503, ""),
            errors.ServerFailed("https://api2.example.org/v1/flights", 503, ""),
        ),
        (
            errors.ServerFailed(API, 503, ""),
            errors.ServerFailed("https://api.example.org/v1/planes", 503, ""),
        ),
        (ValueError("http://10.0.0.1:80/: [Errno 111]"), ValueError("http://10.0.0.1:80/: [Errno 113]")),
        (ValueError("http://10.0.0.1:80/: refused"), ValueError("http://10.0.0.2:80/: refused")),
        (ValueError("same words"), TypeError("same words")),
    ],
)
def test_another_fault_is_another_group(one: Exception, other: Exception) -> None:
    assert of(one) != of(other)


def test_quoted_values_and_what_is_cut_within_them_do_not_count() -> None:
    whole = "the answer begins '<html>it was 12 o\\'clock' here"
    assert normalised(whole) == "the answer begins … here"
    assert normalised("the answer begins '<html>it was cu") == "the answer begins …"
    assert normalised("it isn't the server's fault") == "it isn't the server's fault"


def test_credentials_of_urls_are_not_in_the_pattern() -> None:
    assert "hush" not in normalised("https://user:hush@host.example/path?token=hush: refused")


WORDS = st.lists(
    st.sampled_from(["planning failed:", "answered", "no", "rows", "of", "shard"]), min_size=1, max_size=6
)
VARIABLES = (
    st.integers(0, 10**12).map(str)
    | st.uuids().map(str)
    | st.text("0123456789abcdef", min_size=8).filter(str.isdigit),
    st.datetimes().map(lambda at: at.isoformat(sep=" ", timespec="seconds")),
    st.text("abcdefgh ", max_size=20).map(lambda text: f"'{text}'"),
)


@given(WORDS, st.sampled_from(VARIABLES).flatmap(lambda kind: st.tuples(kind, kind)))
def test_what_differs_from_case_to_case_does_not_count(words: list[str], pair: tuple[str, str]) -> None:
    # A number straight behind "answered" is a status, which counts.
    one, other = (normalised(f"{' '.join(words)} at {value} end") for value in pair)
    assert one == other


@given(st.text(max_size=3000))
def test_any_text_has_a_fingerprint(text: str) -> None:
    found = fingerprint(None, text)
    assert len(found.value) == 16
    assert len(found.pattern) <= MAX_PATTERN_CHARS
    assert fingerprint(None, text) == found
    found.pattern.encode()


@pytest.mark.parametrize(
    "text", ["'" * 5000, "http://" + "a" * 5000, "0x" + "f" * 5000, "\\'" * 2000, "1," * 2000]
)
def test_hostile_messages_take_no_time(text: str) -> None:
    began = time.perf_counter()
    fingerprint("E", text)
    assert time.perf_counter() - began < 0.5
