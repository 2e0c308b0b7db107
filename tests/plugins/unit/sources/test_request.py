from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.declaration import READING_STORED
from collect_ops.sources.model import Source
from collect_ops.sources.request import (
    admitted_params,
    check_params,
    checked_request,
    render,
    render_admitted,
    render_asked,
)
from collect_ops.sources.shard_faults import asked_range_of
from collect_ops.sources.texts import climbing_problem
from tests.plugins.unit.sources.factories import make_requesting, make_source, source_fields

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
IN_PATH = make_requesting(path="/v1/{id}/rows", params={"id": {"required": True}})


def problems(failed: pytest.ExceptionInfo[ValidationFailed]) -> dict[str, str]:
    return {fault.field: fault.problem for fault in failed.value.faults}


@given(TEXT)
@example("..")
@example(".")
@example("../admin")
@example("a/../../admin")
@example("a\\..\\b")
@example("%2e%2e")
@example("?x=1#y")
@example("//host/")
@example("é ü/%")
def test_a_value_in_the_path_stays_one_segment(value: str) -> None:
    if {".", ".."} & set(value.replace("\\", "/").split("/")):
        with pytest.raises(ValidationFailed, match="segments"):
            render(IN_PATH, {"id": value})
        return
    path = render(IN_PATH, {"id": value}).path
    before, segment, after = path.removeprefix("/").split("/")
    assert (before, unquote(segment), after) == ("v1", value, "rows")
    # The client's own idea of an address changes nothing of it.
    url = URL(f"http://host/base{path}", encoded=True)
    assert (url.host, url.raw_path, url.query_string, url.fragment) == ("host", f"/base{path}", "", "")


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), TEXT), TEXT)
def test_a_value_in_the_query_stays_a_value(values: dict[str, str], more: str) -> None:
    source = make_requesting(
        query={"q": "{a}", "r": ["{b}", "x{c}", 1], "fixed": more.replace("{", "")},
        params={"a": {}, "b": {}, "c": {}},
    )
    query = render(source, values).query
    assert query.get("q") == ((values["a"],) if "a" in values else None)
    expected = [values[name] if name == "b" else f"x{values[name]}" for name in ("b", "c") if name in values]
    assert query["r"] == (*expected, "1")
    assert query["fixed"] == (more.replace("{", ""),)


@given(TEXT)
def test_a_value_cannot_add_a_header(value: str) -> None:
    source = make_requesting(headers={"X-For": "for {a}"}, params={"a": {"required": True}})
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        with pytest.raises(ValidationFailed, match="control characters"):
            render(source, {"a": value})
    else:
        assert render(source, {"a": value}).headers == {"X-For": f"for {value}"}


@given(
    st.dictionaries(
        st.sampled_from(["n", "day", "on"]), st.sampled_from(["7", 7, "2024-01-01", "true", True, None, "x"])
    )
)
def test_checking_twice_is_checking_once(given_params: dict[str, Any]) -> None:
    params = {"n": {"type": "integer", "default": 3}, "day": {"type": "date"}, "on": {"type": "boolean"}}
    source = make_requesting(query={"n": "{n}", "day": "{day}", "on": "{on}"}, params=params)
    try:
        checked = check_params(source, given_params)
    except ValidationFailed:
        return
    assert check_params(source, checked) == checked
    assert render(source, checked) == render(source, given_params)


def test_defaults_are_filled_in_and_types_kept_in_the_body() -> None:
    source = make_requesting(
        method="POST",
        body={"n": "{n}", "list": ["{flag}", "{missing}"], "text": "at {n}"},
        params={"n": {"type": "integer", "default": 3}, "flag": {"type": "boolean"}, "missing": {}},
    )
    rendered = render(source, {"flag": "true"})
    assert rendered.method == "POST"
    assert rendered.body == {"n": 3, "list": [True], "text": "at 3"}
    assert check_params(source, {"n": None}) == check_params(source, {"n": "3"}) == {"n": 3}


def test_all_faults_are_named_at_once() -> None:
    source = make_requesting(
        query={"limit": "{limit}", "kind": "{kind}", "who": "{who}"},
        params={"limit": {"type": "integer"}, "kind": {"allowed": ["a", "b"]}, "who": {"required": True}},
    )
    with pytest.raises(ValidationFailed) as failed:
        render(source, {"limt": 5, "limit": "x", "kind": "c"}, "../up/{kin}")
    assert problems(failed)["params.limt"].endswith("did you mean 'limit'?")
    assert set(problems(failed)) == {"params.limt", "params.limit", "params.kind", "params.who", "path"}
    assert len(failed.value.faults) == 6
    assert "allowed: a, b" in str(failed.value)


@pytest.mark.parametrize(
    "path",
    [
        "http://other/x",
        "HTTPS://other/x",
        "//other/x",
        "/a/../b",
        "/a/%2e%2E/b",
        "/a/%2f..%2Fb",
        "/a\\b",
        "/a?b=c",
        "/a#b",
        "/a b",
        "/a\nb",
        "/100%",
        "/\ud800",
    ],
)
def test_a_path_stays_below_the_base_url(path: str) -> None:
    with pytest.raises(ValidationFailed, match="path"):
        render(make_source(), {}, path)


def test_a_path_may_be_overridden() -> None:
    assert render(IN_PATH, {"id": "7"}, "v2/{id}").path == "/v2/7"
    assert render(IN_PATH, {"id": "7"}, "/v2/é:x%20").path == "/v2/%C3%A9:x%20"
    assert render(make_source(), {}, "").path == "/"


def test_a_value_in_the_path_is_not_empty() -> None:
    with pytest.raises(ValidationFailed, match="must have a value"):
        render(IN_PATH, {"id": ""})


def test_the_count_request_is_filled_as_well() -> None:
    source = make_source(
        request={
            "path": "/rows",
            "headers": {"X-A": "b"},
            "query": {"k": "{k}"},
            "params": {"k": {"default": "z"}},
        },
        total={"type": "request", "path": "/count/{k}", "query": {"k": "{k}"}, "value": "n"},
    )
    total = render(source, {"k": "a b"}).total
    assert total is not None
    assert (total.method, total.path, total.query, total.headers) == (
        "GET",
        "/count/a%20b",
        {"k": ("a b",)},
        {"X-A": "b"},
    )
    with pytest.raises(ValidationFailed, match="segments"):
        render(source, {"k": ".."})
    assert render(make_source(), {}).total is None


CLIMBING = [
    "/a/../b", "/a/..;/b", "/a/..;x=1/b", "/a/.;/b", "/a/%2e%2e/b", "/a/%252e%252e/b", "/a/%25252e%25252e/b",
    "/a/%2e%2e%2fb", "/a/%252e%252e%252fb", "/a/..%2fb", "/a/..%5cb", "/a/..%255cb", "/a/%c0%ae%c0%ae/b",
    "/a/%c0%ae%c0%ae%c0%afb", "/a/..%c1%9cb", "/a/%e0%80%ae%e0%80%ae/b", "/a/%f0%80%80%ae%f0%80%80%ae/b",
    "/a/%25c0%25ae%25c0%25ae/b", "/a/%25u002e%25u002e/b", "/a/%ef%bc%8e%ef%bc%8e/b", "/a/\uff0e\uff0e/b", "/a/\u2025/b",
    "/a/..%20/b", "/a/..%00/b", "/a/%09../b", "/a/%2e%2e%3b/b", "/a/%" + "25" * 20 + "2e/b", "/..;", "..;/a",
    "/a/b;/../../c", "/a/..%23/b", "/a/..%3fx/b", "/a/..%3F", "/a/.%23", "/a/..%253Fx/b", "/a/..\uff03/b",
    "/a/..;%23?/b",
]  # fmt: skip
STAYING = [
    "/a/b%23/c", "/a/..b%3F", "/a/%23..",
    "/a/b", "/v1.2/x.json", "/a/...", "/a/.well-known/x", "/a/b..c", "/a;v=1/b", "/a/;x/b", "/%E9/é/x%20y", "/100%25",
    "/a/%2525", "/a%2Fb", "/a/b:c@d", "/~me/x", "/a/1..9", "/a/%7Bid%7D",
]  # fmt: skip


@pytest.mark.parametrize("path", CLIMBING)
def test_a_path_that_some_server_reads_as_climbing_is_refused_where_it_comes_in(path: str) -> None:
    assert climbing_problem(path) is not None
    with pytest.raises(ValidationFailed) as failed:
        checked_request(make_source(), {}, path)
    assert {fault.field for fault in failed.value.faults} == {"path"}


@pytest.mark.parametrize("path", STAYING)
def test_a_path_that_climbs_for_nobody_is_taken(path: str) -> None:
    assert climbing_problem(path) is None
    assert checked_request(make_source(), {}, path)[1] == render(make_source(), {}, path)


@pytest.mark.parametrize(
    "value",
    ["..;", "%2e%2e", "%252e%252e", "..;/admin", "%c0%ae%c0%ae", "x/..;/y", "\uff0e\uff0e", "..#", "..?x"],
)
def test_a_value_that_some_server_reads_as_climbing_is_refused_where_it_comes_in(value: str) -> None:
    with pytest.raises(ValidationFailed) as failed:
        checked_request(IN_PATH, {"id": value}, None)
    assert {fault.field for fault in failed.value.faults} == {"path"}
    total = {"type": "request", "path": "/n/{k}", "value": "n"}
    counted = make_source(request={"query": {"k": "{k}"}, "params": {"k": {"required": True}}}, total=total)
    with pytest.raises(ValidationFailed, match=r"total\.path"):
        checked_request(counted, {"k": value}, None)


def test_what_was_admitted_with_such_a_path_is_still_rendered() -> None:
    assert render(make_source(), {}, "/a/..;/b").path == "/a/..;/b"
    assert render(IN_PATH, {"id": "%2e%2e"}).path == "/v1/%252e%252e/rows"


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (r"[\w,-]{1,2000}", "x" * 300),
        (r"(\d{1,9},?){1,50}", "1" * 320),
        ("(?!admin)[a-z]+", "x" * 300),
        ("(?=a)(a+)+b", "a" * 300),
        ("[a-z]+", "what it was admitted with had no such pattern"),
        ("(", "what was a pattern once"),
    ],
)
def test_a_value_that_was_admitted_is_judged_by_no_pattern_again(pattern: str, value: str) -> None:
    total = {"type": "request", "path": "/n", "query": {"k": "{k}"}, "value": "n"}
    params = {
        "k": {"pattern": pattern, "default": value},
        "first": {"type": "integer"},
        "last": {"type": "integer"},
    }
    shards = {"by": "key_range", "low": "first", "high": "last", "step": 10, "bounds": "closed",
              "range": {"path": "/ends", "query": {"k": "{k}"}, "low": "a", "high": "b"}}  # fmt: skip
    names = ("k", "first", "last")
    request = {"query": {name: f"{{{name}}}" for name in names}, "params": params}
    admitted = Source.model_validate(
        source_fields(request=request, total=total, shards=shards), context=READING_STORED
    )
    for given_params in ({"k": value}, {}):
        rendered = render_admitted(admitted, given_params)
        assert rendered.query["k"] == (value,)
        assert rendered.total is not None
        assert rendered.total.query["k"] == (value,)
        assert admitted_params(admitted, given_params) == {"k": value}
        asked = asked_range_of(admitted)
        assert asked is not None
        assert render_asked(admitted, asked, given_params).query["k"] == (value,)


def test_what_was_admitted_still_has_a_type() -> None:
    with pytest.raises(ValidationFailed, match="must be an integer"):
        admitted_params(
            make_source(request={"query": {"k": "{k}"}, "params": {"k": {"type": "integer"}}}), {"k": "x"}
        )


@given(TEXT)
def test_no_path_takes_for_ever(path: str) -> None:
    problem = climbing_problem(path)
    assert problem is None or problem
