from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from collect_ops.sources.templates import ABSENT, escape, fill_text, fill_value, placeholders

BRACED = st.text("{}ab_ 1")
SCALARS = st.one_of(st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False))
JSON = st.recursive(
    st.one_of(st.none(), SCALARS, BRACED),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("{}ab"), inner),
    max_leaves=10,
)


@given(BRACED)
def test_an_escaped_text_is_itself(text: str) -> None:
    assert list(placeholders(escape(text))) == []
    assert fill_text(escape(text), {}) == text


@given(BRACED, BRACED, st.text())
def test_a_value_stands_where_it_is_named_and_is_not_read_again(before: str, after: str, value: str) -> None:
    template = f"{escape(before)} {{x}} {escape(after)}"
    assert fill_text(template, {"x": value}) == f"{before} {value} {after}"


@given(JSON)
def test_a_body_without_templates_is_itself(body: Any) -> None:
    assert fill_value(_escaped(body), {}) == body


@given(SCALARS)
def test_a_lone_template_keeps_the_type(value: Any) -> None:
    filled = fill_value({"a": ["{x}"]}, {"x": value})
    assert filled == {"a": [value]}
    assert type(filled["a"][0]) is type(value)


def test_what_names_an_absent_parameter_is_left_out() -> None:
    body = {"a": "{x}", "b": ["{x}", 1, "n {x}"], "c": "{y}{x}", "d": "{y}"}
    assert fill_value(body, {"y": 2}) == {"b": [1], "d": 2}
    assert fill_text("a{x}", {}) is ABSENT


def test_other_braces_are_text() -> None:
    query = 'query { flights(carrier: "{carrier}") {{id}} }'
    assert fill_text(query, {"carrier": "UA"}) == 'query { flights(carrier: "UA") {id} }'


def test_booleans_are_spelt_as_in_json() -> None:
    assert fill_text("{a}-{b}-{c}", {"a": True, "b": False, "c": 1.5}) == "true-false-1.5"


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value
