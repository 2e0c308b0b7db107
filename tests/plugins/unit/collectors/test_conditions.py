from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from collect_ops.collectors.conditions import described, first_met
from collect_ops.sources.model import When


def met(condition: dict[str, Any], *, status: int = 200, document: Any = None, **headers: str) -> bool:
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    found = first_met([When.model_validate(condition)], status=status, headers=named, document=document)
    return found is not None


@pytest.mark.parametrize(
    ("body", "document", "expected"),
    [
        ("Note", {"Note": "5 requests per minute"}, True),
        ("Note", {"Note": ""}, False),
        ("Note", {"Note": None}, False),
        ("Note", {"Note": []}, False),
        ("Note", {"Note": 0}, True),
        ("Note", {"rows": []}, False),
        ("Note", None, False),
        ("error.code == 'rate_limited'", {"error": {"code": "rate_limited"}}, True),
        ("has_more == `false`", {"has_more": False}, True),
        ("!has_more", {"rows": []}, True),
    ],
)
def test_a_body_holds_when_the_expression_finds_something(body: str, document: Any, expected: bool) -> None:
    assert met({"body": body}, document=document) is expected


def test_without_a_status_a_condition_is_on_success() -> None:
    assert met({"body": "Note"}, status=206, document={"Note": "x"})
    assert not met({"body": "Note"}, status=500, document={"Note": "x"})
    assert met({"status": [500, 400], "body": "Note"}, status=400, document={"Note": "x"})
    assert not met({"status": [500], "body": "Note"}, status=200, document={"Note": "x"})


@pytest.mark.parametrize(
    ("wanted", "value", "expected"),
    [
        ("false", "False", True),
        ("0", "10", False),
        ("*", "", True),
        ('*results="false"*', '<https://x/?p=2>; rel="next"; results="false"; cursor="0:100:0"', True),
        ('*results="false"*', '<https://x/?p=2>; rel="next"; results="true"', False),
        ("a*b*c", "axxbyyc", True),
        ("a*a", "a", False),
        ("ab*ba", "aba", False),
    ],
)
def test_a_header_has_a_value_in_which_a_star_stands_for_anything(
    wanted: str, value: str, expected: bool
) -> None:
    assert met({"headers": {"x-state": wanted}}, X_State=value) is expected


def test_a_header_that_is_missing_holds_nothing_and_one_sent_twice_holds_by_either() -> None:
    assert not met({"headers": {"X-State": "*"}})
    twice = CIMultiDict([("X-State", "one"), ("x-state", "two")])
    condition = When(headers={"X-STATE": "two"})
    assert first_met([condition], status=200, headers=twice, document=None) is condition


def test_all_that_a_condition_gives_must_hold_and_the_first_that_holds_is_named() -> None:
    both = When(status=(202,), headers={"X-State": "pending"}, body="id")
    alone = When(status=(202,))
    assert first_met([both, alone], status=202, headers={"X-State": "done"}, document={"id": 1}) is alone
    assert first_met([both, alone], status=202, headers={"X-State": "pending"}, document={"id": 1}) is both
    assert described(both) == "status 202 and header X-State: pending and body 'id'"


@given(parts=st.lists(st.text(alphabet="ab", max_size=3), min_size=1, max_size=6), data=st.data())
def test_what_is_made_by_a_description_fits_it(parts: list[str], data: st.DataObject) -> None:
    between = [data.draw(st.text(alphabet="ab", max_size=3)) for _ in parts[1:]]
    value = parts[0] + "".join(filler + part for filler, part in zip(between, parts[1:], strict=True))
    assert met({"headers": {"X": "*".join(parts)}}, X=value)
