from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from collect_ops.sources.params import Param, ParamType, Unfit

FIRST, LAST = datetime(2, 1, 1), datetime(9998, 1, 1)
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
FITTING: dict[ParamType, st.SearchStrategy[Any]] = {
    ParamType.STRING: st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    ParamType.INTEGER: st.integers(-(2**63), 2**63 - 1),
    ParamType.NUMBER: st.one_of(
        st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)
    ),
    ParamType.BOOLEAN: st.booleans(),
    ParamType.DATE: st.dates(),
    ParamType.DATETIME: st.datetimes(FIRST, LAST, timezones=OFFSETS),
}


@given(st.sampled_from(ParamType).flatmap(lambda kind: st.tuples(st.just(kind), FITTING[kind])))
def test_coercing_what_was_coerced_changes_nothing_and_json_keeps_it(typed: tuple[ParamType, Any]) -> None:
    kind, value = typed
    param = Param(type=kind)
    canonical = param.coerce(value)
    assert param.coerce(canonical) == canonical
    assert param.coerce(json.loads(json.dumps(canonical))) == canonical


@given(st.integers(-(2**63), 2**63 - 1))
def test_an_integer_and_its_text_are_equal(value: int) -> None:
    assert Param(type=ParamType.INTEGER).coerce(str(value)) == value


@given(st.datetimes(FIRST, LAST, timezones=OFFSETS))
def test_equal_moments_are_one_value(moment: datetime) -> None:
    param = Param(type=ParamType.DATETIME)
    canonical = param.coerce(moment)
    assert canonical == param.coerce(moment.astimezone(UTC)) == param.coerce(moment.isoformat())
    assert isinstance(canonical, str)
    assert datetime.fromisoformat(canonical) == moment


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))
def test_anything_else_is_unfit_and_nothing_worse(value: Any) -> None:
    for kind in ParamType:
        try:
            canonical = Param(type=kind).coerce(value)
        except Unfit:
            continue
        assert isinstance(canonical, str | int | float | bool)


@pytest.mark.parametrize(
    ("kind", "given_value", "canonical"),
    [
        ("integer", "12", 12),
        ("integer", "-0", 0),
        ("number", "12.50", 12.5),
        ("number", "1e3", 1000),
        ("number", 12.0, 12),
        ("boolean", "true", True),
        ("date", "2024-02-29", "2024-02-29"),
        ("date", date(2024, 2, 29), "2024-02-29"),
        ("datetime", "2024-01-31T09:00:00+01:00", "2024-01-31T08:00:00Z"),
    ],
)
def test_exact_texts_are_taken(kind: str, given_value: Any, canonical: Any) -> None:
    result = Param(type=ParamType(kind)).coerce(given_value)
    assert (result, type(result)) == (canonical, type(canonical))


@pytest.mark.parametrize(
    ("kind", "given_value", "problem"),
    [
        ("integer", "12.0", "integer"),
        ("integer", " 12", "integer"),
        ("integer", "012", "integer"),
        ("integer", "٣", "integer"),
        ("integer", True, "integer"),
        ("integer", 1.0, "integer"),
        ("integer", 2**63, "64 bits"),
        ("number", "NaN", "finite"),
        ("number", float("inf"), "finite"),
        ("number", "", "finite"),
        ("boolean", "yes", "true or false"),
        ("boolean", 1, "true or false"),
        ("string", 7, "text"),
        ("string", "a\0b", "NUL"),
        ("string", "\ud800", "surrogates"),
        ("date", "2023-02-29", "calendar"),
        ("date", "20240101", "date such as"),
        ("date", datetime(2024, 1, 1, tzinfo=UTC), "date such as"),
        ("datetime", "2024-01-31T09:00:00", "offset"),
        ("datetime", "2024-01-31", "offset"),
        ("datetime", "0001-01-01T00:00:00+14:00", "years 1 to 9999"),
    ],
)
def test_everything_else_is_refused(kind: str, given_value: Any, problem: str) -> None:
    with pytest.raises(Unfit, match=problem):
        Param(type=ParamType(kind)).coerce(given_value)


def test_ranges_patterns_and_allowed_values() -> None:
    with pytest.raises(Unfit, match="at least 1"):
        Param(type=ParamType.INTEGER, minimum=1).coerce("0")
    with pytest.raises(Unfit, match="at most 2"):
        Param(type=ParamType.NUMBER, maximum=2).coerce(2.5)
    with pytest.raises(Unfit, match="pattern"):
        Param(pattern="[a-z]+").coerce("ab1")
    with pytest.raises(Unfit) as refused:
        Param(type=ParamType.INTEGER, allowed=("1", 2)).coerce(3)
    assert refused.value.allowed == ("1", "2")
    assert Param(type=ParamType.INTEGER, allowed=("1", 2)).coerce("1") == 1


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"type": "integer", "default": "x"}, "default: must be an integer"),
        ({"type": "integer", "default": 5, "maximum": 4}, "default: must be at most 4"),
        ({"type": "integer", "allowed": [1, "x"]}, "allowed.1: must be an integer"),
        ({"type": "string", "minimum": 1}, "minimum: is for types integer and number only"),
        ({"type": "number", "minimum": 2, "maximum": 1}, "minimum: must not be above maximum"),
        ({"type": "integer", "pattern": "a"}, "pattern: is for type string only"),
        ({"pattern": "("}, "pattern: is not a regular expression"),
        ({"required": True, "default": "a"}, "default: is never used"),
    ],
)
def test_a_parameter_fits_itself(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Param.model_validate(fields)
