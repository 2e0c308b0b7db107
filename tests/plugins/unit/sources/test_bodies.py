from __future__ import annotations

from pathlib import Path

import pytest

from collect_ops.collectors.request_body import form, written
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.load import load_source
from collect_ops.sources.request import render
from tests.plugins.unit.sources.factories import make_source

FILE = "name: things\nconnection: api\ntarget: {table: things}\nrequest: {%s}\n"
FORM = "application/x-www-form-urlencoded"


def load(directory: Path, request: str) -> None:
    path = directory / "things.yaml"
    path.write_text(FILE % request)
    load_source(path)


@pytest.mark.parametrize(
    ("request_declared", "field"),
    [
        ("body_type: form", "request.body_type"),
        ("redirected_post: repeat", "request.redirected_post"),
        ("method: POST, body_type: form, body: 'a=1'", "request.body"),
        ("method: POST, body_type: form, body: [1]", "request.body"),
        ("method: POST, body_type: form, body: {a: {b: 1}}", "request.body.a"),
        ("method: POST, body_type: form, body: {a: [[1]]}", "request.body.a"),
        ("method: POST, body_type: form, body: {a: 1}, headers: {Content-Type: application/json}",
         "request.headers.Content-Type"),
        (f"method: POST, body: 'a=1', headers: {{content-type: {FORM}}}", "request.body_type"),
        (f"method: POST, body: {{a: 1}}, headers: {{Content-Type: {FORM}}}", "request.body_type"),
        ("method: POST, body: '<a/>', headers: {Content-Type: application/xml}", "request.body"),
    ],
)  # fmt: skip
def test_a_body_that_would_be_sent_otherwise_than_it_says_is_refused(
    tmp_path: Path, request_declared: str, field: str
) -> None:
    with pytest.raises(ValidationFailed) as caught:
        load(tmp_path, request_declared)
    assert [fault.field for fault in caught.value.faults] == [field]


@pytest.mark.parametrize(
    "request_declared",
    [
        "method: POST, body_type: form, body: {a: 1, b: [x, true], c: null}",
        f"method: POST, body_type: form, body: {{a: 1}}, headers: {{Content-Type: {FORM}; charset=utf-8}}",
        "method: POST, body_type: form",
        "method: POST, body: a text, headers: {Content-Type: application/vnd.api+json}",
        "method: POST, body: {a: 1}, headers: {Content-Type: text/plain}",
        "method: POST, body: a text",
    ],
)
def test_a_body_that_is_sent_as_it_says_is_taken(tmp_path: Path, request_declared: str) -> None:
    load(tmp_path, request_declared)


def test_how_bodies_are_written() -> None:
    params = {"day": {"type": "date"}, "note": {"type": "string"}}
    body = {"day": "{day}", "note": "{note}", "n": 1, "tags": ["a b", "&"], "none": None}
    for body_type, sent, content_type in (
        ("json", b'{"day":"2026-01-31","n":1,"tags":["a b","&"],"none":null}', "application/json"),
        ("form", b"day=2026-01-31&n=1&tags=a+b&tags=%26", FORM),
    ):
        source = make_source(
            request={"method": "POST", "body": body, "body_type": body_type, "params": params}
        )
        assert written(render(source, {"day": "2026-01-31"})) == (sent, {"Content-Type": content_type})
    declared = make_source(request={"method": "POST", "body": {}, "headers": {"content-type": "x/json"}})
    assert written(render(declared, {})) == (b"{}", {"content-type": "x/json"})
    assert written(render(make_source(), {})) == (None, {})
    assert form({"flag": True, "name": "Jos\u00e9"}) == b"flag=true&name=Jos%C3%A9"
