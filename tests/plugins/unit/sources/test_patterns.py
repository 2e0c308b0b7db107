"""Patterns of parameters: they mean what Python's mean, and no value makes them take for ever."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.load import load_source
from collect_ops.sources.loading_rules import warnings_of
from collect_ops.sources.params import Param, Unfit
from collect_ops.sources.patterns import MAX_SLOW_VALUE, matches, pattern_problem, slow_warning
from tests.plugins.unit.cpu_deadline import ends_within
from tests.plugins.unit.sources.factories import source_fields


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("(a+)+", "a" * 28 + "!"),
        ("(a+)+", "a" * 50_000 + "!"),
        ("(a|a)*", "a" * 200 + "!"),
        (r"(\w+\s?)*", "word " * 500 + "!"),
        ("(x+x+)+y", "x" * 5000),
        (r"^(([a-z])+.)+[A-Z]([a-z])+$", "a" * 5000),
        ("(a?){100}a{100}", "a" * 99 + "!"),
        (".*.*.*.*=.*", "x" * 10_000),
    ],
)
def test_no_value_makes_a_pattern_take_for_ever(pattern: str, value: str) -> None:
    with ends_within(2), pytest.raises(Unfit, match="must match the pattern"):
        Param(pattern=pattern).coerce(value)


def test_a_pattern_that_only_python_knows_is_given_up_after_a_while() -> None:
    """It stands in definitions that were stored before it was refused."""
    param = Param(pattern="(?=a)(a+)+")
    assert param.coerce("aaaa") == "aaaa"
    with pytest.raises(Unfit, match="takes more than"):
        param.coerce("a" * 60 + "!")


@pytest.mark.parametrize(
    ("pattern", "fits", "fails"),
    [
        ("(?!admin)[a-z]+", "user", "administrator"),
        (r"(?=.*[A-Z])(?=.*\d).{8,}", "Abcdefg1", "abcdefg1"),
        (r"([a-z])\1", "aa", "ab"),
        (r"[[:alpha:]]", "a]", "a"),
        (r"[a&&b]", "&", "c"),
        ("(?x) a b # both", "ab", "a b"),
        (r"\w{1,200}", "x" * 200, "x" * 201),
        (r"a\Z", "a", "b"),
    ],
)
def test_what_is_not_linear_keeps_its_meaning_on_short_values(pattern: str, fits: str, fails: str) -> None:
    param = Param(pattern=pattern)
    assert slow_warning(pattern) is not None
    assert param.coerce(fits) == fits
    with pytest.raises(Unfit, match="must match the pattern"):
        param.coerce(fails)
    with pytest.raises(Unfit, match=f"at most {MAX_SLOW_VALUE} characters"):
        param.coerce("x" * (MAX_SLOW_VALUE + 1))


PIECES = st.sampled_from([
    "a", "b", "[a-c]", "[^a]", ".", r"\d", r"\w", r"\s", "^", "$", r"\b", "(a|b)", "(?:ab)", "(?P<n>a)", "(?i:A)",
    r"\.", r"\x61", "é", "[]a]", r"[\w.-]", "|", "a?",
])  # fmt: skip
REPEATS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{0,3}", "{1,}", "*?", "+?"])


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(PIECES, REPEATS), max_size=5).map(
        lambda parts: "".join("".join(part) for part in parts)
    ),
    st.text(st.sampled_from("abcA1. -é\n" + string.ascii_uppercase[:2]), max_size=8),
)
def test_both_engines_mean_the_same(pattern: str, value: str) -> None:
    try:
        meant = re.compile(pattern).fullmatch(value) is not None
    except re.error:
        assert pattern_problem(pattern) is not None
        return
    assert matches(pattern, value) == meant


@settings(max_examples=300, deadline=None)
@given(
    st.text("()[]{}|*+?\\^$.,0123456789abx:=!<>PLimsxudwZ#&-~ ", max_size=30), st.text("ab1 ", max_size=20)
)
def test_any_pattern_has_a_problem_or_matches_soon(pattern: str, value: str) -> None:
    with ends_within(5):
        if pattern_problem(pattern) is None:
            matches(pattern, value)


def load(directory: Path, pattern: str) -> tuple[str, ...]:
    """Fields with warnings."""
    path = directory / "things.yaml"
    request = {"query": {"q": "{p}"}, "params": {"p": {"pattern": pattern}}}
    path.write_text(yaml.safe_dump(source_fields(request=request)))
    return tuple(warning.field for warning in warnings_of(load_source(path)))


@pytest.mark.parametrize(
    "pattern", ["(?=a)(a+)+", r"(?!x)(\w|ab)+", "(?=a)a*a*a*a*b", "x" * 1001, "(a{1000}){1000}"]
)
def test_a_new_pattern_that_may_take_for_ever_is_refused_where_files_are_loaded(
    tmp_path: Path, pattern: str
) -> None:
    with pytest.raises(ValidationFailed) as failed:
        load(tmp_path, pattern)
    assert [fault.field for fault in failed.value.faults] == ["request.params.p.pattern"]
    assert Param(pattern=pattern)  # as it was stored


def test_look_around_is_taken_with_a_warning(tmp_path: Path) -> None:
    assert load(tmp_path, "(?!admin)[a-z]+") == ("request.params.p.pattern",)
    assert load(tmp_path, "([a-z]+)+") == ()
