"""What makes two submissions equal."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from hypothesis import example, given
from hypothesis import strategies as st

from collect_ops.admission.policy import (
    canonical,
    canonical_path,
    dedup_key,
    priority_fault,
    unstorable_faults,
)
from collect_ops.kernel.errors import ValidationFailed
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
    """The same JSON value, written otherwise: fields in another order, whole numbers with a point."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [shuffled(item) for item in value]
    if type(value) is int:
        return float(value)
    return value


@given(value=json_values)
def test_the_form_does_not_matter(value: Any) -> None:
    assert canonical(shuffled(value)) == canonical(value)


def test_order_and_number_form_do_not_change_a_key() -> None:
    one = {"city": "Z\u00fcrich", "page": 1, "nested": {"a": [1, 2], "b": None}}
    other = {"nested": {"b": None, "a": [1.0, 2]}, "page": 1.0, "city": "Z\u00fcrich"}
    assert key_of(one) == key_of(other)
    assert len(key_of(one)) == 32


@given(name=st.text(max_size=5), other=st.text(max_size=5))
@example(name="Jos\u00e9", other="Jose\u0301")
def test_two_requests_have_one_key_only_if_they_are_one(name: str, other: str) -> None:
    def key(place: str, value: str) -> tuple[bytes, tuple[object, ...]]:
        request: dict[str, Any] = {"path": "/x", "params": {"name": {"required": True}}}
        match place:
            case "path":
                request["path"] = "/x-{name}"
            case "body":
                request |= {"method": "POST", "body": {"name": "{name}"}}
            case _:
                request[place] = {"X-Name": "{name}"}
        declared = source(request=request)
        made = render(declared, {"name": value})
        return dedup_key(declared, made, {}), (made.path, made.query, made.headers, made.body)

    for place in ("path", "query", "headers", "body"):
        try:
            one, two = key(place, name), key(place, other)
        except ValidationFailed:
            continue
        assert (one[0] == two[0]) == (one[1] == two[1]), place


def test_a_form_is_another_request_than_json() -> None:
    made = []
    for body_type in ("json", "form"):
        declared = source(request={"method": "POST", "body": {"a": "1"}, "body_type": body_type})
        made.append(dedup_key(declared, render(declared, {}), {}))
    assert made[0] != made[1]


@given(
    segments=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), min_size=1, max_size=3
    )
)
def test_how_a_path_is_written_does_not_matter(segments: list[str]) -> None:
    plain = [quote(one, safe="") for one in segments]
    escaped = ["".join(f"%{byte:02x}" for byte in one.encode()) for one in segments]
    assert canonical_path("/".join(plain)) == canonical_path("/".join(escaped))


def test_bytes_that_are_no_text_are_not_the_same() -> None:
    assert canonical_path("/%ff") != canonical_path("/%fe")
    assert canonical_path("/%C3%A9") != canonical_path("/e%CC%81")


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
