"""Patterns of parameters: they mean what Python's mean, and no value makes them take for ever."""

from __future__ import annotations

import re
import string
import time
from pathlib import Path
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.backtracking import most_steps
from collect_ops.sources.load import load_source
from collect_ops.sources.loading_rules import warnings_of
from collect_ops.sources.params import Param, Unfit
from collect_ops.sources.patterns import PATIENCE_S, matches, pattern_problem, slow_warning, unbounded_problem
from tests.examples import examples
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


#: For Python's engine alone, and without end there.
ENDLESS = [
    "(?=a)(a+)+",
    r"(?!x)(\w|ab)+",
    "(?=a)(a{1,60}){1,60}b",
    r"^(?!-)[a-z0-9]{1,63}(-?[a-z0-9]{1,20}){0,9}$",
    r"(?!x)(\w+\s?){1,20}!",
    "(?=a)(a?){40}a{40}c",
    "(?=.*.*.*.*.*.*x)a.*",
    "(?=(a|aa)+$)b?a",
    "(?=a)(?:a|ab?|a?)*c",
    "(?=a)(a{0,2}?){30,}c",
    "(?=a)((((a?)*)?)*)+c",
    r"(a*)(\1a*)*b",
    "(?=a)a*a*a*a*b",
]


@pytest.mark.parametrize("pattern", ENDLESS)
def test_a_pattern_that_only_python_knows_is_given_up_after_a_while(pattern: str) -> None:
    """It stands in definitions that were stored before it was refused."""
    param = Param(pattern=pattern)
    started = time.monotonic()
    with ends_within(2), pytest.raises(Unfit, match=r"takes more than|must match"):
        param.coerce("a" * 250 + "?")
    assert time.monotonic() - started < PATIENCE_S + 10
    for value in ("a", "aab", "aaac", "axa", "a b!"):
        assert matches(pattern, value) == (re.fullmatch(pattern, value) is not None)


@pytest.mark.parametrize("pattern", [r"([a-z]+\s?){1,2000}!", r"(?:[a-z]{1,40}\s?){1,90}[!?]"])
def test_a_pattern_for_the_linear_engine_is_given_up_as_well_when_both_it_and_the_value_are_long(
    pattern: str,
) -> None:
    assert slow_warning(pattern) is None
    with ends_within(2), pytest.raises(Unfit, match=r"takes more than|must match"):
        Param(pattern=pattern).coerce("a" * 100_000)
    assert Param(pattern=pattern).coerce("ab " * 10 + "!")


@pytest.mark.parametrize(
    ("pattern", "value", "miss"),
    [
        (r"[\w,-]{1,2000}", "x" * 300, "!"),
        (r"(\d{1,9},?){1,50}", "1" * 320, "!"),
        (r"\w{1,500}", "x" * 300, "!"),
        ("(?!admin)[a-z]+", "x" * 300, "!"),
        ("(?!admin)[a-z]+", "x" * 90_000, "!"),
        (r"(?=.*[A-Z])(?=.*\d).{8,}", "aB1" * 10_000, "\n"),
        (r"(\w+)@\1", f"{'éx' * 150}@{'éx' * 150}", "!"),
    ],
)
def test_a_harmless_pattern_takes_long_values(pattern: str, value: str, miss: str) -> None:
    assert unbounded_problem(pattern) is None
    assert Param(pattern=pattern).coerce(value) == value
    with pytest.raises(Unfit, match="must match the pattern"):
        Param(pattern=pattern).coerce(value + miss)


@pytest.mark.parametrize(
    "pattern",
    ["(?!admin)[a-z0-9_-]{3,32}", r"(?=.*[A-Z])(?=.*\d).{8,}", r"(?i)(?!con|nul)\w+", "(?:(a)|b)(?(1)c|d)"],
)
def test_a_usual_pattern_needs_no_process(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collect_ops.sources.patterns.subprocess.run", None)
    for length in (1, 10, 100, 1000):
        assert isinstance(matches(pattern, "aB1" * length), bool)


PARTS = st.sampled_from([
    "a", "[ab]", r"\w", ".", "(a)", "(?:ab)", "(a|b)", "(?:a|ab)", "(?:a?)", "(?=a)", "(?!c)", "(?i:A)", "[a-zé]",
    "(?>a+)",
])  # fmt: skip
OFTEN = st.sampled_from(["", "", "*", "+", "?", "{0,9}", "{2,8}", "*?", "+?", "*+", "{3}"])
ROWS = st.lists(st.tuples(PARTS, OFTEN).map("".join), min_size=1, max_size=4).map("".join)
NESTED = st.tuples(ROWS, st.sampled_from(["(%s)", "(?:%s)", "(?=%s)", "(?>%s)"]), OFTEN, ROWS).map(
    lambda drawn: drawn[0] + drawn[1] % drawn[3] + drawn[2]
)


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.one_of(ROWS, NESTED), min_size=1, max_size=3).map("".join), st.sampled_from([10, 60, 256]))
def test_what_is_proven_to_take_few_steps_takes_little_time(pattern: str, length: int) -> None:
    """The proof is too careful, never too bold: patterns that nest, on values that miss at their end."""
    if most_steps(sre_parser.parse(f"{pattern}!"), length) > 2_000_000:
        return
    with ends_within(0.5):
        re.fullmatch(f"{pattern}!", "a" * length)


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
def test_what_is_not_linear_keeps_its_meaning(pattern: str, fits: str, fails: str) -> None:
    param = Param(pattern=pattern)
    assert slow_warning(pattern) is not None
    assert param.coerce(fits) == fits
    with pytest.raises(Unfit, match="must match the pattern"):
        param.coerce(fails)


PIECES = st.sampled_from([
    "a", "b", "[a-c]", "[^a]", ".", r"\d", r"\w", r"\s", "^", "$", r"\b", "(a|b)", "(?:ab)", "(?P<n>a)", "(?i:A)",
    r"\.", r"\x61", "é", "[]a]", r"[\w.-]", "|", "a?",
])  # fmt: skip
REPEATS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{0,3}", "{1,}", "*?", "+?"])


@settings(max_examples=examples(125), deadline=None)
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


@settings(max_examples=examples(75), deadline=None)
@given(
    st.text("()[]{}|*+?\\^$.,0123456789abx:=!<>PLimsxudwZ#&-~ ", max_size=30), st.text("ab1 ", max_size=20)
)
def test_any_pattern_has_a_problem_or_matches_soon(pattern: str, value: str) -> None:
    with ends_within(5):
        if pattern_problem(pattern) is None:
            matches(pattern, value)


def load(directory: Path, pattern: str, **fields: Any) -> tuple[str, ...]:
    """Fields with warnings."""
    path = directory / "things.yaml"
    request = {"query": {"q": "{p}"}, "params": {"p": {"pattern": pattern, **fields}}}
    path.write_text(yaml.safe_dump(source_fields(request=request)))
    return tuple(warning.field for warning in warnings_of(load_source(path)))


@pytest.mark.parametrize("pattern", [*ENDLESS, "x" * 1001, "(a{1000}){1000}"])
def test_a_new_pattern_that_may_take_for_ever_is_refused_where_files_are_loaded(
    tmp_path: Path, pattern: str
) -> None:
    with pytest.raises(ValidationFailed) as failed:
        load(tmp_path, pattern)
    assert [fault.field for fault in failed.value.faults] == ["request.params.p.pattern"]
    assert Param(pattern=pattern)  # as it was stored


def test_no_own_value_is_waited_for_with_a_pattern_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collect_ops.sources.patterns.subprocess.run", None)
    with pytest.raises(ValidationFailed) as failed:
        load(tmp_path, ENDLESS[2], default="a" * 60)
    assert [fault.field for fault in failed.value.faults] == ["request.params.p.pattern"]


def test_look_around_is_taken_with_a_warning(tmp_path: Path) -> None:
    assert load(tmp_path, "(?!admin)[a-z]+") == ("request.params.p.pattern",)
    assert load(tmp_path, "([a-z]+)+") == ()
