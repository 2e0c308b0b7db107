from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.kernel.paths import include_dir
from collect_ops.kernel.yaml_text import read_yaml
from collect_ops.sources.load import UnknownSource, get_source, load_source, load_sources
from collect_ops.sources.model import Source
from tests.plugins.unit.sources.factories import source_fields

GOOD = "name: good\nconnection: api\ntarget: {table: good}\n"
REALLY_BAD = """\
name: badd
conection: api
priority: 11
request:
  method: GTE
  path: /x/{idd}
  query: {a: "{limt}", from: 2026-01-01}
  headers: {"X-A": "a\\nb", Authorization: s}
  params:
    limit: {type: integr, default: 10}
    id: {type: integer, default: a}
    q: {default: {a: 1}}
records: "[[["
paging: {type: offsett, limit_parm: x}
total: {type: body}
target:
  table: T-x
  columns:
    id: {type: bignt}
    _a: {type: text}
  disposition: mrege
schedule: "* * *"
limits: {concurrency: 0}
batch_size: 10
batch_size: 20
"""


def write(directory: Path, name: str, text: str | bytes) -> Path:
    path = directory / f"{name}.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def faults_of(path: Path) -> dict[str, str]:
    with pytest.raises(ValidationFailed) as failed:
        load_source(path)
    return {fault.field: str(fault) for fault in failed.value.faults}


def faults_in(tmp_path: Path, **changes: Any) -> dict[str, str]:
    return faults_of(write(tmp_path, "things", yaml.safe_dump(source_fields(**changes))))


def test_all_faults_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    faults = faults_of(write(tmp_path, "bad", REALLY_BAD))
    expected = {
        "line 25, batch_size": "is given twice, in lines 24 and 25",
        "name": "must be the file's name, 'bad' (got 'badd')",
        "connection": "is required and missing",
        "conection": "did you mean 'connection'?",
        "priority": "less than or equal to 10 (got 11)",
        "request.method": "allowed: GET, POST; did you mean 'GET'?",
        "request.path": "names no parameter of request.params",
        "request.query.a": "did you mean 'limit'?",
        "request.headers.X-A": "must not hold line breaks",
        "request.headers.Authorization": "the secret itself belongs in the Airflow connection",
        "request.params.limit.type": "did you mean 'integer'?",
        "request.params.id.default": "must be an integer (got 'a')",
        "request.params.q.default": "must be text, a number, true, false or null",
        "records": "is not a JMESPath expression",
        "paging.type": "did you mean 'offset'?",
        "total.path": "is required and missing",
        "target.table": "must match",
        "target.columns.id.type": "did you mean 'bigint'?",
        "target.columns._a": "must match",
        "target.disposition": "did you mean 'merge'?",
        "schedule": "must be five cron fields",
        "limits.concurrency": "greater than or equal to 1",
    }
    assert set(faults) == set(expected)
    for field, text in expected.items():
        assert text in faults[field], field


def test_a_misspelt_field_does_not_make_others_faulty(tmp_path: Path) -> None:
    fields = source_fields(request={"query": {"a": "{limit}"}, "parms": {"limit": {"default": "1"}}})
    faults = faults_of(write(tmp_path, "things", yaml.safe_dump(fields)))
    assert list(faults) == ["request.parms"]


def test_faults_within_paging_are_named_by_field(tmp_path: Path) -> None:
    paging = {"type": "cursor", "cursr": "a", "cursor": "[["}
    faults = faults_in(tmp_path, paging=paging)
    assert set(faults) == {"paging.cursr", "paging.cursor"}
    assert "did you mean 'cursor'?" in faults["paging.cursr"]
    assert set(faults_in(tmp_path, paging={"cursor": "a"})) == {"paging.type"}


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"page_size": 2000, "paging": {"type": "offset"}}, "page_size", "above batch_size, 1000"),
        ({"page_size": 300, "paging": {"type": "page"}}, "page_size", "must divide batch_size"),
        ({"page_size": 300}, "page_size", "paging.type is none"),
        ({"page_size": 300, "paging": {"type": "link_header"}}, "page_size", "needs paging.limit_param"),
        ({"paging": {"type": "offset", "location": "body"}}, "paging.location", "needs request.method POST"),
        ({"paging": {"type": "offset", "limit_param": "offset"}}, "paging", "one name"),
        ({"paging": {"type": "next_url", "next_url": "@"}}, "paging.next_url", "whole body"),
        (
            {"paging": {"type": "offset"}, "request": {"query": {"offset": 1}}},
            "request.query.offset",
            "by paging",
        ),
        ({"request": {"body": {"a": 1}}}, "request.body", "needs request.method POST"),
        (
            {"request": {"method": "POST", "body": [1]}, "paging": {"type": "offset", "location": "body"}},
            "request.body",
            "must be an object",
        ),
        ({"request": {"params": {"a": {}}}}, "request.params.a", "is never used"),
        (
            {"request": {"path": "/{a}", "params": {"a": {}}}},
            "request.params.a",
            "must be required, or have a default",
        ),
        ({"request": {"path": "https://x/y"}}, "request.path", "relative to the connection's base URL"),
        ({"request": {"headers": {"a b": "c"}}}, "request.headers.a b", "is not a header name"),
        ({"request": {"headers": {"Host": "c"}}}, "request.headers.Host", "HTTP client itself"),
        ({"total": {"type": "request", "path": "/{a}", "value": "n"}}, "total.path", "names no parameter"),
        ({"target": {"table": "t", "disposition": "merge"}}, "target.key", "is needed to merge"),
        (
            {"target": {"table": "t", "key": ["idx"], "columns": {"id": {"type": "int"}}}},
            "target.key.0",
            "is not a column (got 'idx'); allowed: id; did you mean 'id'?",
        ),
        ({"target": {"table": "t", "key": ["a", "a"]}}, "target.key.1", "is named twice"),
        ({"target": {"table": "t", "key": ["document"]}}, "target.key.0", "whole document"),
        (
            {"target": {"table": "t", "key": ["j"], "columns": {"j": {"type": "jsonb"}}}},
            "target.key.0",
            "must not be a jsonb column",
        ),
        ({"target": {"table": "t" * 43}}, "target.table", "must match"),
        (
            {"target": {"table": "t", "disposition": "replace"}, "max_failed_shards": 1},
            "max_failed_shards",
            "must be 0",
        ),
        (
            {"target": {"table": "t", "disposition": "append", "replace_when": "partial"}},
            "target.replace_when",
            "disposition replace only",
        ),
        (
            {"target": {"table": "t", "disposition": "replace", "replace_when": "always"}},
            "target.replace_when",
            "allowed: complete, partial",
        ),
        ({"auth": {"type": "basic", "location": "query"}}, "auth.location", "api_key only"),
        (
            {"auth": {"type": "api_key", "location": "query", "name": "k"}, "request": {"query": {"k": 1}}},
            "auth.name",
            "already",
        ),
        ({"auth": {"type": "api_key", "name": "a b"}}, "auth.name", "is not a header name"),
        ({"conditional": True}, "conditional", "must be a mapping of fields"),
        ({"conditional": {"full_after_h": 0}}, "conditional.full_after_h", "greater than 0"),
        ({"conditional": {"full_after": 1}}, "conditional.full_after", "did you mean 'full_after_h'?"),
        ({"conditional": {}, "request": {"method": "POST"}}, "conditional", "needs request.method GET"),
        (
            {"conditional": {}, "target": {"table": "things", "disposition": "replace"}},
            "conditional",
            "does not go with disposition replace",
        ),
        (
            {"conditional": {}, "request": {"headers": {"If-None-Match": "*"}}},
            "request.headers.If-None-Match",
            "is written by conditional",
        ),
        ({"auth": {"type": "oauth", "scope": "x"}}, "auth.type", "did you mean 'oauth2'?"),
        ({"auth": {"type": "bearer", "scope": "read"}}, "auth.scope", "is for auth.type oauth2 only"),
        ({"auth": {"type": "oauth2", "name": "k"}}, "auth.name", "is for auth.type api_key only"),
        ({"auth": {"type": "oauth2", "client_auth": "header"}}, "auth.client_auth", "allowed: basic, body"),
        ({"auth": {"type": "oauth2", "token_url": "token"}}, "auth.token_url", "must be https://host/path"),
        ({"auth": {"type": "oauth2", "token_url": "//h/x"}}, "auth.token_url", "must be https://host/path"),
        ({"auth": {"type": "oauth2", "token_url": "file:///x"}}, "auth.token_url", "must be https://"),
        ({"auth": {"type": "oauth2", "token_url": "https://h/x#y"}}, "auth.token_url", "a fragment"),
        ({"auth": {"type": "oauth2", "token_url": "https://a:b@h/x"}}, "auth.token_url", "credentials"),
        ({"auth": {"type": "oauth2", "token_url": "https://[h/x"}}, "auth.token_url", "is not a URL"),
        ({"auth": {"type": "oauth2", "token_url": "https://h/ x"}}, "auth.token_url", "spaces"),
        ({"auth": {"type": "oauth2", "scope": "a\nb"}}, "auth.scope", "line breaks"),
        ({"auth": {"type": "oauth2", "audience": ["a"]}}, "auth.audience", "must be a valid string"),
        (
            {"auth": {"type": "api_key"}, "request": {"headers": {"x-api-key": "a"}}},
            "auth.name",
            "is a header of the request already",
        ),
        ({"retries": {"http_backoff_s": 60}}, "retries.http_backoff_s", "above http_max_backoff_s, 30"),
        ({"schedule": "@hourli"}, "schedule", "@hourly"),
        ({"schedule": "61 * * * *"}, "schedule", "five cron fields"),
        ({"schedule": "* * * * * *"}, "schedule", "five cron fields"),
        ({"connection": "a b"}, "connection", "must match"),
        ({"limits": {"requests_per_s": 0}}, "limits.requests_per_s", "greater than 0"),
        ({"target": [1]}, "target", "must be a mapping of fields"),
        ({"batch_size": "many"}, "batch_size", "valid integer"),
    ],
)
def test_what_fields_demand_of_each_other(
    tmp_path: Path, changes: dict[str, Any], field: str, text: str
) -> None:
    faults = faults_in(tmp_path, **changes)
    assert list(faults) == [field]
    assert text in faults[field]


def test_what_replaces_when_it_is_partial_may_lack_shards(tmp_path: Path) -> None:
    target = {"table": "t", "disposition": "replace", "replace_when": "partial"}
    fields = source_fields(target=target, max_failed_shards=2)
    assert load_source(write(tmp_path, "things", yaml.safe_dump(fields))).max_failed_shards == 2


def test_what_loading_refuses_is_no_fault_of_a_stored_declaration() -> None:
    """A task that was admitted with it goes on."""
    fields = source_fields(target={"table": "t", "replace_when": "partial"})
    assert Source.model_validate(fields).target.replace_when == "partial"


@pytest.mark.parametrize("schedule", ["@hourly", "*/15 6-18 * * 1-5", None])
def test_schedules(tmp_path: Path, schedule: str | None) -> None:
    source = load_source(write(tmp_path, "things", yaml.safe_dump(source_fields(schedule=schedule))))
    assert source.schedule == schedule


@pytest.mark.parametrize(
    ("spelt", "canonical"),
    [
        ("INT", "integer"),
        ("Double  Precision", "double precision"),
        ("timestamp with time zone", "timestamptz"),
        ("numeric( 10 , 2 )", "numeric(10,2)"),
        ("decimal(5)", "numeric(5)"),
        ("character varying(20)", "varchar(20)"),
        ("varchar", "varchar"),
        ("jsonb", "jsonb"),
        ("bytea", None),
        ("text[]", None),
        ("json", None),
        ("numeric(2,3)", None),
        ("numeric(0)", None),
        ("varchar(0)", None),
        ("varchar(1,2)", None),
        ("text; drop table x", None),
        ("", None),
    ],
)
def test_column_types(tmp_path: Path, spelt: str, canonical: str | None) -> None:
    target = {"table": "t", "columns": {"a": {"type": spelt}}}
    path = write(tmp_path, "things", yaml.safe_dump(source_fields(target=target)))
    if canonical is None:
        assert "is not a type that columns may have" in faults_of(path)["target.columns.a.type"]
    else:
        assert load_source(path).target.columns["a"].type == canonical


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("name: a\n  b: c\n", "line 2, column 4", "mapping values are not allowed"),
        ("a: [1\n", "line 2, column 1", "expected ',' or ']'"),
        ("a: &x 1\nb: *x\n", "line 1, column 4", "anchors"),
        ("a: !!python/object:os.system x\n", "line 1, column 4", "tags are not read"),
        ("a: !!int x\n", "line 1, column 4", "tags are not read"),
        ("? [1]\n: 2\n", "line 1, column 3", "a key must be plain text"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1", "another document"),
        (b"a: \xff\n", "byte 3", "must be UTF-8"),
        ("a: \x07\n", "file", "special characters"),
        ("[" * 5000, "file", "nested too deeply"),
        ("- a\n", "file", "must be a mapping of fields"),
        ("", "file", "must be a mapping of fields"),
        ("a: b\n" + "#" * 1024 * 1024, "file", "at most 262,144 bytes"),
    ],
)
def test_what_is_no_declaration_gives_one_fault(
    tmp_path: Path, text: str | bytes, field: str, problem: str
) -> None:
    faults = faults_of(write(tmp_path, "things", text))
    assert list(faults) == [field]
    assert problem in faults[field]


def test_texts_stay_texts() -> None:
    text = b"a: 2026-01-31\nb: 12:30:45\nc: no\nd: 007\ne: 1_000\nf: on\non: off\ng: .inf\n<<: x\n"
    value, faults = read_yaml(text)
    assert faults == []
    assert value == {
        "a": "2026-01-31", "b": "12:30:45", "c": "no", "d": "007", "e": "1_000", "f": "on", "on": "off",
        "g": ".inf", "<<": "x",
    }  # fmt: skip
    numbers = read_yaml(b"[1, -2, 1.5, 1e3, true, null, ~, 'x']")
    assert numbers == ([1, -2, 1.5, 1000.0, True, None, None, "x"], [])


@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(10**30), 10**30),
            st.floats(allow_nan=False, allow_infinity=False),
        ),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(st.characters(codec="ascii", categories=["L"])), inner)
        ),
        max_leaves=10,
    )
)
def test_json_is_yaml(value: Any) -> None:
    assert read_yaml(json.dumps(value).encode()) == (value, [])


def test_one_bad_file_does_not_take_the_others_down(tmp_path: Path) -> None:
    write(tmp_path, "good", GOOD)
    bad = write(tmp_path, "bad", "name: [")
    (tmp_path / "directory.yaml").mkdir()
    loaded = load_sources(tmp_path)
    assert list(loaded.sources) == ["good"]
    assert set(loaded.faults) == {bad, tmp_path / "directory.yaml"}
    assert get_source("good", tmp_path).name == "good"


@pytest.mark.parametrize("name", ["gud", "../good", "good.yaml", "", "\0"])
def test_an_unknown_source_says_what_is_known(tmp_path: Path, name: str) -> None:
    write(tmp_path, "good", GOOD)
    with pytest.raises(UnknownSource, match="declared: good"):
        get_source(name, tmp_path)


def test_an_unknown_source_is_guessed(tmp_path: Path) -> None:
    write(tmp_path, "good", GOOD)
    with pytest.raises(UnknownSource, match="did you mean 'good'"):
        get_source("godo", tmp_path)


def test_what_ships_is_valid_and_covers_every_choice() -> None:
    loaded = load_sources(include_dir() / "sources")
    assert loaded.faults == {}
    examples = [source for name, source in loaded.sources.items() if name.startswith("example_")]
    assert {one.paging.type for one in examples} == {
        "offset",
        "page",
        "cursor",
        "next_url",
        "link_header",
        "none",
    }
    assert {one.auth.type for one in examples} == {"none", "basic", "bearer", "api_key"}
    assert {one.target.disposition for one in examples} == {"append", "merge", "replace"}
    assert {one.total.type for one in examples} == {"body", "header", "request", "unknown"}
    assert [one.name for one in examples if not one.target.columns] == ["example_next_url"]
    assert {one.schedule for one in examples} == {None}
    for path in (include_dir() / "sources").glob("*.yaml"):
        assert path.read_text().startswith("# yaml-language-server: $schema=source.schema.json\n"), path


def test_a_declaration_is_read_again_only_when_its_file_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD, encoding="utf-8")
    assert get_source("good", tmp_path) is not get_source("good", tmp_path)  # it may still be written to
    long_ago = time.time() + 60
    with patch.object(time, "time_ns", lambda: int(long_ago * 1e9)):
        kept = get_source("good", tmp_path)
        assert get_source("good", tmp_path) is kept
        path.write_text(GOOD + "priority: 7\n", encoding="utf-8")
        assert get_source("good", tmp_path).priority == 7
        path.unlink()
        with pytest.raises(UnknownSource):
            get_source("good", tmp_path)


def test_a_faulty_declaration_is_read_again_only_when_its_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD + "priority: high\n", encoding="utf-8")
    read: list[Path] = []

    def reading(file: Path) -> Source:
        read.append(file)
        return load_source(file)

    monkeypatch.setattr("collect_ops.sources.load.load_source", reading)
    long_ago = time.time() + 60
    with patch.object(time, "time_ns", lambda: int(long_ago * 1e9)):
        failures = []
        for _ in range(5):
            with pytest.raises(ValidationFailed) as failed:
                get_source("good", tmp_path)
            failures.append(failed.value)
        assert len(read) == 1
        assert len({(one.subject, one.faults) for one in failures}) == 1
        assert len({id(one) for one in failures}) == 5
        path.write_text(GOOD, encoding="utf-8")
        assert get_source("good", tmp_path).name == "good"


def test_a_file_that_cannot_be_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD, encoding="utf-8")
    long_ago = time.time() + 60
    with patch.object(time, "time_ns", lambda: int(long_ago * 1e9)):
        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_bytes", Mock(side_effect=OSError(24, "Too many open files")))
            with pytest.raises(ValidationFailed, match="cannot be read"):
                get_source("good", tmp_path)
        assert get_source("good", tmp_path).name == "good"
