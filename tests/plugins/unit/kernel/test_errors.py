"""What faults say."""

from __future__ import annotations

from typing import Any

import pytest

from collect_ops.kernel.errors import Fault, ValidationFailed


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_fault_says_field_value_and_what_is_allowed() -> None:
    fault = Fault(field="disposition", value="apend", problem="is none", allowed=("append", "merge"))
    assert str(fault) == (
        "disposition: is none (got 'apend'); allowed: append, merge; did you mean 'append'?"
    )
    assert str(Fault(field="name", value=None, problem="is missing")) == "name: is missing"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param(2**20_000, "(got a int that is too large to show)", id="digits"),
        pytest.param(nested(3_000), "(got a list that is too large to show)", id="levels"),
        pytest.param("x" * 9_000, f"(got '{'x' * 499}…)", id="length"),
    ],
)
def test_nothing_that_is_given_makes_it_fail(value: object, shown: str) -> None:
    error = ValidationFailed("submission", [Fault(field="priority", value=value, problem="is wrong")])
    assert str(error).endswith(f"priority: is wrong {shown}")
