"""Loading ends: whatever stands in a file, it is a source or has faults, soon, and takes no other file down."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.kernel.faults import MAX_CHARS, MAX_FAULTS
from collect_ops.kernel.paths import include_dir
from collect_ops.kernel.yaml_text import MAX_BYTES
from collect_ops.sources.load import get_source, load_source, load_sources
from collect_ops.sources.schema import json_schema
from tests.examples import examples
from tests.plugins.unit.cpu_deadline import ends_within

GOOD = "name: things\nconnection: api\ntarget: {table: things}\n"
SHIPPED = [yaml.safe_load(path.read_text()) for path in sorted((include_dir() / "sources").glob("*.yaml"))]

WINDOW = "shards: {by: date_window, start: a, end: b, bounds: closed, window: %s}"
PARAM = "request: {params: {p: {%s}}}"
#: Files that were never read to their end, or ended in a traceback, and the field at fault.
HOSTILE: dict[str, tuple[str, str]] = {
    "a parameter's name": ("request: {params: {from-date: {type: string}}}", "request.params.from-date"),
    "a key of another case": ("target: {table: things, key: [Id]}", "target.key.0"),
    "a key with a blank": ('target: {table: things, key: ["a b"]}', "target.key.0"),
    "a value in a list of values": ("shards: {by: values, param: p, values: [1, {a: 1}]}", "shards.values.1"),
    "a name of a map": ("placement: {require: {'': x}}", "placement.require."),
    "an escape beyond Unicode": ('description: "\\UFFFFFFFF"', "line 4, column 17"),
    "an escape far beyond Unicode": ('description: "\\U7FFFFFFF"', "line 4, column 17"),
    "a lone surrogate": ('description: "\\ud800"', "line 4, column 14"),
    "a NUL character": ('description: "a\\0"', "line 4, column 14"),
    "a NUL character in a key": ('"a\\0": 1', "line 4, column 1"),
    "a number of repetitions": (PARAM % "pattern: 'a{99999999999999999999}'", "request.params.p.pattern"),
    "nested groups": (PARAM % f"pattern: '{'(' * 5000 + ')' * 5000}'", "request.params.p.pattern"),
    "nested brackets": (f"records: '{'[' * 3000}'", "records"),
    "nested literals": (f"records: '`{'[' * 100_000}`'", "records"),
    "a long index": (f"records: 'a[{'9' * 5000}]'", "records"),
    "nesting": ("x: {" * 5000, "file"),
    "nesting that YAML bears": (f"request: {{method: POST, body: {'[' * 150}{']' * 150}}}", "file"),
    "a long number": (f"request: {{query: {{a: 1{'0' * 4000}}}}}", "request.query.a"),
    "a long default": (PARAM % f"type: number, default: 1{'0' * 3999}", "request.params.p.default"),
    "an endless number": ("request: {method: POST, body: {a: [1e999]}}", "request.body.a.0"),
    "a long time": (WINDOW % f"P{'9' * 400}Y", "shards.window"),
    "a time too long to add": (WINDOW % "P9999Y999999999D", "shards.window"),
    "a day that never comes": ("schedule: '0 0 31 2 *'", "schedule"),
    "a random time": ("schedule: 'R * * * *'", "schedule"),
}


def write(directory: Path, text: str, name: str = "things") -> Path:
    path = directory / f"{name}.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


def faults_of(path: Path) -> ValidationFailed:
    with pytest.raises(ValidationFailed) as failed:
        load_source(path)
    return failed.value


@pytest.mark.parametrize(("text", "field"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_has_a_fault_that_names_its_field(tmp_path: Path, text: str, field: str) -> None:
    good = write(tmp_path, GOOD.replace("things", "good"), "good")
    whole = GOOD + text if "target:" not in text else GOOD.replace("target: {table: things}\n", "") + text
    bad = write(tmp_path, whole)
    with ends_within(10):
        loaded = load_sources(tmp_path)
        with pytest.raises(ValidationFailed):
            get_source("things", tmp_path)
    assert list(loaded.sources) == [good.stem]
    assert list(loaded.faults) == [bad]
    assert field in [fault.field for fault in loaded.faults[bad].faults]
    assert_is_printable(loaded.faults[bad])


def assert_is_printable(failed: ValidationFailed) -> None:
    """It is stored by Airflow, in PostgreSQL, and printed as JSON."""
    text = str(failed)
    assert "\0" not in text
    assert len(text) < 3 * MAX_CHARS
    text.encode()
    for fault in failed.faults:
        json.dumps([fault.field, fault.value, fault.problem, fault.allowed], ensure_ascii=False).encode()


NAMES = sorted({
    name for model in (json_schema(), *json_schema()["$defs"].values()) for name in model.get("properties", {})
})  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.integers(0, 20),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([
        "GET", "POST", "offset", "page", "cursor", "next_url", "link_header", "none", "body", "header", "request",
        "count", "key_range", "date_window", "values", "entry_point", "merge", "replace", "append", "list", "range",
        "string", "integer", "number", "date", "datetime", "P1D", "PT0S", "@daily", "{a}", "{{a}}", "a", "from-date",
        "(a+)+", "((((", "a{9999999999}", "[[[", "@", "&a", "`1`", "../x", "%252e", "numeric(1,1)", "int",
        "\0", "\ud800", "things", "stand_in",
    ]),
)  # fmt: skip
KEYS = st.one_of(st.sampled_from([*NAMES, "a", "from-date", "a.b", "0", "[key]", ""]), st.text(max_size=5))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=15,
)
CHANGES = st.lists(
    st.tuples(st.randoms(use_true_random=False), st.sampled_from(["set", "add", "drop"]), KEYS, VALUES),
    max_size=6,
)


def changed(fields: dict[str, Any], change: tuple[random.Random, str, str, Any]) -> None:
    """One change somewhere in a declaration."""
    chance, kind, key, value = change
    holder: Any = fields
    while True:
        inner = [
            each
            for each in (holder.values() if isinstance(holder, dict) else holder)
            if each and isinstance(each, dict | list)
        ]
        if not inner or chance.random() < 0.3:
            break
        holder = chance.choice(inner)
    if isinstance(holder, list):
        holder.insert(chance.randrange(len(holder) + 1), value)
    elif kind == "add" or not holder:
        holder[key] = value
    elif kind == "set":
        holder[chance.choice(list(holder))] = value
    else:
        holder.pop(chance.choice(list(holder)))


FUZZED = settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large,
                                                            HealthCheck.function_scoped_fixture],
)  # fmt: skip


def loads_or_has_faults(directory: Path, text: str) -> None:
    path = write(directory, text)
    with ends_within(10):
        try:
            source = load_source(path)
        except ValidationFailed as failed:
            assert failed.faults
            assert_is_printable(failed)
        else:
            # What was loaded can be stored, and read again.
            json.dumps(source.model_dump(mode="json"), allow_nan=False).encode()


@FUZZED
@given(st.integers(0, len(SHIPPED) - 1), CHANGES)
def test_a_changed_declaration_ends_as_a_source_or_with_faults(
    tmp_path: Path, number: int, changes: list[tuple[random.Random, str, str, Any]]
) -> None:
    fields = copy.deepcopy(SHIPPED[number])
    for change in changes:
        changed(fields, change)
    fields["name"] = "things"
    loads_or_has_faults(tmp_path, json.dumps(fields))


@FUZZED
@given(st.dictionaries(KEYS, VALUES, max_size=8))
@example({"name": "things", "connection": "a", "target": {"table": "t"}, "request": {"params": {"a": {}}}})
def test_any_mapping_ends_with_faults(tmp_path: Path, fields: dict[str, Any]) -> None:
    loads_or_has_faults(tmp_path, json.dumps(fields))


@FUZZED
@given(st.one_of(st.text(max_size=200), st.text("{}[]:,-?&*!|>'\"%@`#\\ \n\t0aU~.", max_size=200)))
def test_any_text_ends_with_faults(tmp_path: Path, text: str) -> None:
    loads_or_has_faults(tmp_path, GOOD + text)


@pytest.mark.parametrize(
    "text",
    [
        "request:\n  params:\n" + "".join(f"    p{n}: {{}}\n" for n in range(5000)),
        "target: {table: things, key: [" + "a," * 20_000 + "b]}",
        "target: {table: things, key: [b]}\nrequest: {query: {q: '{p}'}, params: {p: {allowed: ["
        + ",".join(f"a{n}" for n in range(10_000)) + "]}}}\nshards: {by: values, param: p, values: ["
        + ",".join(f"b{n}" for n in range(10_000)) + "]}",
        f"'{'x' * 200_000}': 1",
        f"records: '{'x(' * 100_000}'",
        "".join(f"x{number}: 1\n" for number in range(25_000)),
        "request:\n  query:\n" + "".join(f'    q{n}: "{{p{n}}}"\n' for n in range(12_000)),
        "target:\n  table: things\n  columns:\n" + "".join(f"    c{n}: {{type: text}}\n" for n in range(10_000)),
    ],
)  # fmt: skip
def test_the_faults_of_one_file_are_of_a_size_that_people_and_tables_can_take(
    tmp_path: Path, text: str
) -> None:
    path = write(tmp_path, (GOOD if "target" not in text else "name: things\nconnection: api\n") + text)
    assert path.stat().st_size <= MAX_BYTES
    with ends_within(10):
        failed = faults_of(path)
    assert len(failed.faults) <= MAX_FAULTS + 1
    assert_is_printable(failed)
    if len(failed.faults) > MAX_FAULTS:
        assert "more faults" in failed.faults[-1].problem


def test_a_larger_file_is_not_looked_into(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "#" * MAX_BYTES)
    with ends_within(0.5):
        assert [fault.field for fault in faults_of(path).faults] == ["file"]


def test_what_reads_a_file_fails_and_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD.replace("things", "good"), "good")
    bad = write(tmp_path, "records: '[['")

    def fail(content: bytes) -> Any:
        if b"[[" in content:
            raise ZeroDivisionError("nobody thought of this")
        return yaml.safe_load(content), []

    monkeypatch.setattr("collect_ops.sources.load.read_yaml", fail)
    loaded = load_sources(tmp_path)
    assert list(loaded.sources) == ["good"]
    assert [fault.field for fault in loaded.faults[bad].faults] == ["file"]
    assert "ZeroDivisionError" in str(loaded.faults[bad])
