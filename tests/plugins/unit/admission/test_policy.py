"""What makes two submissions equal."""

from __future__ import annotations

import unicodedata
from typing import Any
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from collect_ops.admission.policy import (
    canonical,
    canonical_path,
    dedup_key,
    priority_fault,
    unstorable_faults,
)
from collect_ops.sources.request import render
from tests.factories import source, submission

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def key_of(body: Any, **identity: Any) -> bytes:
    declared = source(request={"method": "POST", "path": "/offset", "body": body})
    return dedup_key(declared, render(declared, {}), identity)


def shuffled(value: Any) -> Any:
    """The same JSON value, written otherwise: fields in another order, whole numbers with a point, text decomposed."""
    if isinstance(value, dict):
        return {unicodedata.normalize("NFD", key): shuffled(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [shuffled(item) for item in value]
    if isinstance(value, str):
        return unicodedata.normalize("NFD", value)
    if type(value) is int:
        return float(value)
    return value


@given(value=json_values)
def test_the_form_does_not_matter(value: Any) -> None:
    assert canonical(shuffled(value)) == canonical(value)


def test_order_number_form_and_unicode_form_do_not_change_a_key() -> None:
    one = {"city": "Z\u00fcrich", "page": 1, "nested": {"a": [1, 2], "b": None}}
    other = {"nested": {"b": None, "a": [1.0, 2]}, "page": 1.0, "city": "Zu\u0308rich"}
    assert key_of(one) == key_of(other)
    assert len(key_of(one)) == 32


@given(
    segments=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), min_size=1, max_size=3
    )
)
def test_how_a_path_is_written_does_not_matter(segments: list[str]) -> None:
    composed = [quote(unicodedata.normalize("NFC", one), safe="") for one in segments]
    decomposed = [
        "".join(f"%{byte:02x}" for byte in unicodedata.normalize("NFD", one).encode()) for one in segments
    ]
    assert canonical_path("/".join(composed)) == canonical_path("/".join(decomposed))


def test_an_escaped_slash_is_no_slash() -> None:
    assert canonical_path("/a%2fb") == canonical_path("/%61%2Fb") != canonical_path("/a/b")


def test_the_connection_stands_for_host_and_port() -> None:
    """Whether its port is spelled out or left to the scheme is the connection's, which a key does not look into."""
    declared = source()
    key = dedup_key(declared, render(declared, {"day": "monday"}), {})
    other = source(connection="other_api")
    assert key != dedup_key(other, render(other, {"day": "monday"}), {})


def test_other_work_has_another_key() -> None:
    keys = {
        key_of({"a": 1}),
        key_of({"a": 2}),
        key_of({"a": "1"}),
        key_of({"a": [1]}),
        key_of({"a": 1}, day="x"),
    }
    assert len(keys) == 5


def test_a_priority_must_be_in_range() -> None:
    for good in (None, 0, 10):
        assert priority_fault(good) is None
    for bad in (-1, 11, 5.0, "5", True):
        fault = priority_fault(bad)
        assert fault is not None
        assert "0 to 10" in str(fault)


def test_a_text_that_spells_out_the_escape_of_a_nul_holds_none() -> None:
    def faults(text: str) -> list[str]:
        found = unstorable_faults(submission(params={"day": text}))
        return [fault.problem for fault in found]

    assert faults("\\u0000") == []
    assert faults("\\\\u0000") == []
    for holding in ("\x00", "\\\x00", "a\\\\\x00"):
        assert faults(holding) == ["must not hold NUL characters"]
