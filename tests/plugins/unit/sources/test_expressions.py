"""JMESPath: what it means is jmespath's; what it costs has an end."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jmespath.exceptions import JMESPathError

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.expressions import (
    Expression,
    ExpressionFails,
    compiled,
    expression_problem,
    unbounded_problem,
)
from collect_ops.sources.load import load_source
from tests.examples import examples
from tests.plugins.unit.cpu_deadline import ends_within
from tests.plugins.unit.sources.factories import make_source, source_fields

DOCUMENT = {
    "data": {"items": [{"a": 1, "b": "x", "c": [1, 2]}, {"a": 2, "b": None, "c": []}, {"d": {"e": 0}}]},
    "total": 3,
    "next": "",
    "map": {"k": 1, "l": 2},
}
EXPLOSIVE = [
    "@" + "|[@,@][]" * 35,
    "@" + "|[@,@]" * 35,
    "@" + "|{a:@,b:@}" * 35,
    "@" + "|to_string([@,@])" * 30,
    "total|to_string(@)" + "|join('',[@,@])" * 35,
    "[@,@]" + "|[map(&@,@),map(&@,@)][]" * 35,
    "@" + "|[@,@]" * 30 + "|contains(@,'x')",
    "[@,@]" + "|[@,@]" * 30 + "|[@[0]==@[1]]",
    "[@,@]" + "|[[*].[@,@],[*].[@,@]][]" * 20,
]


@pytest.mark.parametrize("expression", EXPLOSIVE)
def test_what_explodes_fails_at_run_time_and_is_refused_where_files_are_loaded(
    tmp_path: Path, expression: str
) -> None:
    with ends_within(40), pytest.raises(ExpressionFails, match="more than 10,000,000 steps"):
        Expression(expression).search(DOCUMENT)
    path = tmp_path / "things.yaml"
    path.write_text(json.dumps(source_fields(records=expression)))
    with pytest.raises(ValidationFailed) as failed:
        load_source(path)
    assert [fault.field for fault in failed.value.faults] == ["records"]
    assert make_source(records=expression)  # as it was stored


@pytest.mark.parametrize(
    "expression",
    [
        "a[::0]",
        "contains('abc', `1`)",
        "[`1`,'a'] | [?'a' < `1`]",
        "ceil(to_number('1e999'))",
        'max_by(`[1,"a"]`, &@)',
        "keys(@.data.items)",
        "unknown(@)",
        "a" + "|a" * 3000,
        "&a",
    ],
)
def test_what_jmespath_lets_through_is_a_failure_of_the_expression(expression: str) -> None:
    document: Any = {"a": [1]}
    with ends_within(10):
        try:
            found = Expression(expression).search(document)
        except ExpressionFails as failed:
            assert str(failed)
        else:
            assert found is None or isinstance(found, list)


@pytest.mark.parametrize(
    "text", ["[" * 3000, "(" * 3000, "!" * 3000 + "a", "`" + "[" * 100_000 + "`", "a[" + "9" * 5000 + "]"]
)
def test_what_cannot_be_compiled_has_a_problem(text: str) -> None:
    with ends_within(10):
        assert "is not a JMESPath expression" in (expression_problem(text) or "")


@pytest.mark.parametrize("text", ["x" * 1001, "!" * 100 + "a", "&a", "[&a]", "a.{b: &c}"])
def test_what_is_declared_is_bounded_in_size(text: str) -> None:
    assert expression_problem(text) is None
    assert unbounded_problem(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "data.items",
        "data.items[*].{a: a, b: b.c, d: 'x', e: `1`, f: to_string(g)} | [?a > `1`]",
        "sort_by(reverse(sort_by(sort_by(data.items, &a), &b)), &c)[0:10]",
        "{" + ", ".join(f"f{n}: f{n}" for n in range(60)) + "}",
        "data.*.items[][].{id: id, parent: $.x} ".replace("$.x", "x"),
        "not_null(a, b, c) | [?contains(@.d, 'e')]",
        "map(&{a: a, b: merge(b, c)}, data)",
    ],
)
def test_what_people_write_is_taken(text: str) -> None:
    assert expression_problem(text) is None
    assert unbounded_problem(text) is None


STAGES = st.sampled_from([
    "data", "items", "data.items", "[*]", "[]", "[0]", "[-1]", "[0:2]", "[::-1]", "a", "b", "c", "[?a]", "[?a > `1`]",
    "[?b == 'x']", "[?!a]", "{x: a, y: b}", "[a, b]", "*", "length(@)", "keys(@)", "values(@)", "map(&a, @)", "map",
    "sort_by(@, &a)", "to_string(@)", "not_null(a, b)", "type(@)", "[?a || b && c]", "merge(@, map)", "total",
    "max_by(@, &a)", "join(',', [*].b)", "reverse(@)", "to_array(@)", "contains(@, 'x')", "sum(c)", "[?c == c]",
    "`[1]`",
])  # fmt: skip


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(STAGES, min_size=1, max_size=5), st.sampled_from(["|", "."]))
def test_counted_or_not_an_expression_finds_what_jmespath_finds(stages: list[str], joint: str) -> None:
    text = joint.join(stages).replace(".[", "[")
    try:
        jmespath.compile(text)
    except JMESPathError:
        assert expression_problem(text) is not None
        return
    try:
        expected = jmespath.search(text, DOCUMENT)
    except (JMESPathError, TypeError, ValueError, OverflowError):
        with pytest.raises(ExpressionFails):
            compiled(text).search(DOCUMENT)
        return
    assert compiled(text).search(DOCUMENT) == expected


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@settings(max_examples=examples(50), deadline=None)
@given(st.text("ab@[]{}()*.,|&?!='`\"0123456789: <>", max_size=40))
def test_any_text_has_a_problem_or_finds_something_soon(text: str) -> None:
    with ends_within(10):
        if expression_problem(text) is None:
            unbounded_problem(text)
            try:
                Expression(text).search(DOCUMENT)
            except ExpressionFails as failed:
                assert re.search(r"\w", str(failed))


def test_a_large_page_is_within_the_budget() -> None:
    rows = [{"a": {"b": number}, "x": number, "y": "t", "z": [number]} for number in range(50_000)]
    found = Expression("[?y == 't'].{p: a.b, q: x, r: y, s: z[0]} | [?p >= `0`]").search(rows)
    assert len(found) == len(rows)
