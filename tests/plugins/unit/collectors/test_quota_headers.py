"""What hosts say of their limits, in every form that is in use, and in forms that are not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from collect_ops.collectors.quota_headers import Allowance, allowance, is_exhausted

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())


def read(headers: dict[str, str]) -> Allowance | None:
    return allowance(CIMultiDict(headers), NOW)


@pytest.mark.parametrize(
    ("headers", "remaining", "reset_s", "limit"),
    [
        ({"RateLimit": '"default";r=50;t=30', "RateLimit-Policy": '"default";q=100;w=60'}, 50, 30, 100),
        ({"RateLimit": '"burst";r=0;t=3, "daily";r=40;t=3600'}, 0, 3, None),
        ({"RateLimit": '"a";r=0;t=3, "b";r=0;t=60;pk=:dGVzdA==:'}, 0, 60, None),
        ({"RateLimit": "limit=100, remaining=3, reset=10"}, 3, 10, 100),
        ({"RateLimit-Limit": "10, 10;w=1", "RateLimit-Remaining": "0", "RateLimit-Reset": "7"}, 0, 7, 10),
        ({"X-RateLimit-Remaining": "5", "X-RateLimit-Reset": str(EPOCH + 90)}, 5, 90, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str((EPOCH + 90) * 1000)}, 0, 90, None),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "1.5"}, 0, 1.5, None),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "Thu, 01 Jan 2026 12:01:00 GMT"}, 0, 60, None),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "2026-01-01T12:00:30Z"}, 0, 30, None),
        (
            {"X-Rate-Limit-Limit": "15", "X-Rate-Limit-Remaining": "1", "X-Rate-Limit-Reset": "900"},
            1,
            900,
            15,
        ),
        # Its own clock is ten seconds behind: both times are of it.
        (
            {
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": str(EPOCH + 20),
                "Date": "Thu, 01 Jan 2026 11:59:50 GMT",
            },
            0,
            30,
            None,
        ),
    ],
)
def test_forms_in_use(headers: dict[str, str], remaining: float, reset_s: float, limit: float | None) -> None:
    found = read(headers)
    assert found is not None
    assert (found.remaining, found.reset_s, found.limit) == (remaining, pytest.approx(reset_s), limit)
    assert found.hold_s == (found.reset_s if remaining == 0 else 0)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"RateLimit": ""},
        {"RateLimit": '"default"'},
        {"RateLimit": '"default";r=x;t=1'},
        {"RateLimit-Remaining": "0"},
        {"RateLimit-Reset": "10"},
        {"RateLimit-Remaining": "none", "RateLimit-Reset": "10"},
        {"RateLimit-Remaining": "-1", "RateLimit-Reset": "10"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "soon"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999999999999999999999"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(EPOCH + 10**8)},
    ],
)
def test_what_cannot_be_read_says_nothing(headers: dict[str, str]) -> None:
    assert read(headers) is None


NAMES = ["RateLimit", "RateLimit-Policy", "Date"] + [
    f"{prefix}{name}"
    for prefix in ("RateLimit-", "X-RateLimit-", "X-Rate-Limit-")
    for name in ("Limit", "Remaining", "Reset", "Reset-After")
]


@given(
    st.dictionaries(st.sampled_from(NAMES), st.text(max_size=40) | st.from_regex(r'[";=,rtqw0-9. -]{0,40}'))
)
def test_no_header_is_an_error_or_a_hold_without_end(headers: dict[str, str]) -> None:
    found = read(headers)
    if found is not None:
        assert 0 <= found.hold_s <= 7 * 24 * 3600
        assert found.requests_per_s is None or found.requests_per_s > 0


def test_what_is_scarce_is_spread_over_its_time() -> None:
    assert Allowance(remaining=5, reset_s=10, limit=100).requests_per_s == 0.5
    assert Allowance(remaining=50, reset_s=10, limit=100).requests_per_s is None
    assert Allowance(remaining=0, reset_s=10, limit=100).requests_per_s is None
    assert Allowance(remaining=5, reset_s=0, limit=100).requests_per_s is None


@pytest.mark.parametrize("limit", ["0", "-1", "unlimited", "None", '"0"', "0.0", "0, 0;w=60"])
@pytest.mark.parametrize("prefix", ["RateLimit-", "X-RateLimit-", "X-Rate-Limit-"])
def test_a_limit_of_none_leaves_nothing_of_none(limit: str, prefix: str) -> None:
    headers = CIMultiDict({f"{prefix}Limit": limit, f"{prefix}Remaining": "0", f"{prefix}Reset": "3600"})
    assert allowance(headers, NOW) is None
    assert not is_exhausted(headers, NOW)


@pytest.mark.parametrize(
    "headers",
    [
        {"RateLimit": "limit=0, remaining=0, reset=3600"},
        {"RateLimit": '"default";r=0;t=3600', "RateLimit-Policy": '"default";q=0;w=3600'},
    ],
)
def test_a_structured_limit_of_0_is_none_too(headers: dict[str, str]) -> None:
    assert read(headers) is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-RateLimit-Remaining": "0"}, True),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Limit": "60"}, True),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9"}, True),
        ({"RateLimit": '"a";r=0;t=3'}, True),
        ({"X-RateLimit-Remaining": "1"}, False),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Limit": "0"}, False),
        ({}, False),
    ],
)
def test_nothing_may_be_left_though_nobody_says_for_how_long(headers: dict[str, str], expected: bool) -> None:
    assert is_exhausted(CIMultiDict(headers), NOW) is expected
