from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from collect_ops.kernel.errors import Fault
from collect_ops.sources import rules, stored
from collect_ops.sources.declaration import Since, parts_of
from collect_ops.sources.file_defaults import with_file_defaults
from collect_ops.sources.load import load_sources
from collect_ops.sources.model import NoPaging, Source, Target, UnknownTotal
from collect_ops.sources.request import render_admitted
from collect_ops.sources.stored import (
    FORMAT,
    NewerDefinition,
    UnreadableDefinition,
    dump_definition,
    load_definition,
    load_formula,
)
from tests.plugins.unit.sources.factories import make_source, source_fields

RELEASE = Path(__file__).parents[3] / "fixtures" / "release-0.1.0"
SHIPPED = load_sources().sources


def read(definition: stored.StoredDefinition) -> Source:
    return load_definition(definition.version.hex(), definition.format, json.loads(definition.declared))


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    stored._loaded.clear()
    stored._dumped.clear()
    yield
    stored._loaded.clear()
    stored._dumped.clear()


def mark(monkeypatch: pytest.MonkeyPatch, model: type[BaseModel], field: str, since: Since) -> None:
    """As if a field was new."""
    found = model.model_fields[field]
    monkeypatch.setattr(found, "metadata", [*found.metadata, since])


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_is_read_as_it_was_declared(name: str) -> None:
    definition = dump_definition(SHIPPED[name])
    assert read(definition) == SHIPPED[name]
    # Release 0.1.0 reads what statements read: without what a file means by leaving a field out.
    assert with_file_defaults(Source.model_validate_json(definition.resolved)) == SHIPPED[name]


def test_nothing_is_stored_that_was_not_declared_in_the_order_it_was() -> None:
    columns = {name: {"type": "text"} for name in ("zulu", "a", "mike", "alpha_beta")}
    fields = source_fields(target={"table": "things", "columns": columns}, batch_size=1000)
    definition = dump_definition(Source.model_validate(fields))
    declared = json.loads(definition.declared)
    assert declared == fields
    assert list(declared["target"]["columns"]) == list(columns)
    assert list(read(definition).target.columns) == list(columns)


def test_the_version_is_of_what_was_declared() -> None:
    def version(**fields: Any) -> bytes:
        return dump_definition(make_source(**fields)).version

    def target(*names: str) -> dict[str, Any]:
        return {"table": "things", "columns": {name: {"type": "text"} for name in names}}

    assert version() == version()
    assert version() != version(batch_size=1000)
    assert version(target=target("a", "b")) != version(target=target("b", "a"))


def test_statements_find_every_default() -> None:
    resolved = json.loads(dump_definition(make_source(dedup={"while": "active"})).resolved)
    assert resolved["dedup"] == {"ttl_h": 24.0, "while": "active", "identity": {}}
    assert (resolved["placement"], resolved["target"]["disposition"]) == (
        {"require": {}, "prefer": {}},
        "append",
    )


def test_the_kind_of_a_part_is_stored_though_it_is_the_usual_one() -> None:
    source = make_source().model_copy(update={"paging": NoPaging(), "total": UnknownTotal()})
    source = Source.model_validate({**source_fields(), "paging": source.paging, "total": source.total})
    declared = json.loads(dump_definition(source).declared)
    assert (declared["paging"], declared["total"]) == ({"type": "none"}, {"type": "unknown"})
    assert read(dump_definition(source)) == source


def test_a_format_is_the_least_that_can_read_a_declaration(monkeypatch: pytest.MonkeyPatch) -> None:
    mark(monkeypatch, Source, "sheddable", Since(format=7))
    mark(monkeypatch, Target, "disposition", Since(format=8, values=("replace",)))
    plain, uses = dump_definition(make_source()), dump_definition(make_source(sheddable=True))
    assert (plain.format, uses.format) == (1, 7)
    assert "sheddable" not in json.loads(plain.resolved)
    assert json.loads(uses.resolved)["sheddable"] is True
    replacing = make_source(target={"table": "things", "disposition": "replace"})
    merging = make_source(target={"table": "things", "disposition": "append"})
    assert (dump_definition(replacing).format, dump_definition(merging).format) == (8, 1)


def test_a_newer_format_is_handed_back() -> None:
    definition = json.loads(dump_definition(make_source()).declared)
    with pytest.raises(NewerDefinition) as raised:
        load_definition("00", FORMAT + 1, definition)
    assert raised.value.deferred
    with pytest.raises(NewerDefinition):
        load_formula("00", FORMAT + 1, None)


@pytest.mark.parametrize("place", ["", "target", "retries"])
def test_a_field_that_nobody_knows_is_of_a_newer_release(place: str) -> None:
    definition = source_fields(retries={"max_retries": 1})
    (definition[place] if place else definition)["brand_new"] = 1
    with pytest.raises(NewerDefinition, match="brand_new"):
        load_definition("01", 1, definition)
    with pytest.raises(NewerDefinition):
        load_formula("01", 1, {"brand_new": 1})


@pytest.mark.parametrize("damage", [{"target": None}, {"batch_size": "many"}, {"batch_size": "x", "new": 1}])
def test_damage_is_told_with_its_field(damage: dict[str, Any]) -> None:
    with pytest.raises(UnreadableDefinition, match=next(iter(damage))):
        load_definition("02", 1, source_fields(**damage))


#: What was allowed once, one may think: each is refused in files today.
REFUSED = {
    "request": {
        "path": "https://elsewhere/../x",
        "headers": {"Host": "a\nb"},
        "params": {"a": {"type": "integer", "pattern": "(", "minimum": 3, "maximum": 2}, "unused": {}},
    },
    "records": "][",
    "paging": {"type": "cursor", "cursor": "@"},
    "schedule": "now and then",
    "page_size": 7,
    "target": {"table": "things", "disposition": "merge", "columns": {"a": {"type": "blob", "path": "][" }}},
}  # fmt: skip


def test_rules_made_since_do_not_refuse_what_was_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    never = rules.Rule(
        reads=("name",), faults=lambda _: iter([Fault(field="name", value=None, problem="is bad")])
    )
    monkeypatch.setattr(rules, "RULES", (*rules.RULES, never))
    for fields in (source_fields(), source_fields(**REFUSED)):
        with pytest.raises(ValidationError):
            Source.model_validate(fields)
        assert load_definition(f"{len(fields):02x}", 1, fields).name == "things"


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (r"[\w,-]{1,2000}", "x" * 300),
        (r"(\d{1,9},?){1,50}", "1" * 320),
        (r"\w{1,500}", "x" * 300),
        ("(?!admin)[a-z]+", "x" * 300),
        ("(?=a)(a+)+b?", "a" * 300),
    ],
)
def test_what_release_0_1_0_admitted_with_a_pattern_still_makes_a_request(pattern: str, value: str) -> None:
    """Python's engine was the only one then, and took values of any length."""
    declared = source_fields(request={"query": {"k": "{k}"}, "params": {"k": {"pattern": pattern}}})
    for format_, stored_as in ((0, declared | {"batch_size": 1000}), (1, declared)):
        admitted = load_definition(f"{format_:02x}", format_, stored_as)
        assert render_admitted(admitted, {"k": value}).query == {"k": (value,)}


def test_declarations_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_definition("aa", 1, source_fields())
    assert load_definition("aa", 1, {}) is first
    source = make_source()
    assert dump_definition(source) is dump_definition(source)
    monkeypatch.setattr(stored, "_KEPT", 3)
    for number in range(20):
        load_definition(f"{number:04x}", 1, source_fields())
        dump_definition(make_source(batch_size=number + 1))
    assert (len(stored._loaded), len(stored._dumped)) == (3, 3)


def test_what_release_0_1_0_can_declare_is_what_is_not_marked() -> None:
    """Fields are only added, and marked; a default stays; a bound of the model is not drawn closer.

    Else what is stored means something else, or is refused, and older processes end tasks DEAD that they cannot read. A
    field that is new: `Annotated[..., Since(format=N)]` and `FORMAT = N` (ADR 0023).
    """
    before = json.loads((RELEASE / "source.schema.json").read_text())
    assert shape(without_marked(Source.model_json_schema())) == shape(before)
    assert stored.newest_mark() == FORMAT


def test_an_unmarked_change_is_seen() -> None:
    changed = without_marked(Source.model_json_schema())
    changed["$defs"]["Target"]["properties"]["brand_new"] = {"type": "string"}
    assert shape(changed) != shape(json.loads((RELEASE / "source.schema.json").read_text()))


def without_marked(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema as it was before the marked fields, kinds and values came."""
    schema = deepcopy(schema)
    parts = {"Source": schema, **schema["$defs"]}
    gone = set()
    for name, model in {each.__name__: each for each in parts_of(Source)}.items():
        for field_name, field in model.model_fields.items():
            for since in (mark for mark in field.metadata if isinstance(mark, Since)):
                if since.values:
                    _drop_values(parts, parts[name]["properties"][field_name], since.values)
                elif stored._is_tag(field):
                    gone.add(name)
                else:
                    del parts[name]["properties"][field_name]
                    _drop_from_defaults(schema, name, field_name)
    for name in gone:
        del schema["$defs"][name]
    schema = _without_references(schema, gone)
    # A part that only marked fields hold has gone with them.
    schema["$defs"] = {name: schema["$defs"][name] for name in schema["$defs"] if name in _reached(schema)}
    return schema


def _reached(schema: dict[str, Any]) -> set[str]:
    """The parts that are referred to, from the source down."""
    waiting, found = [{**schema, "$defs": {}}], set[str]()
    while waiting:
        text = json.dumps(waiting.pop())
        for name in schema["$defs"]:
            if name not in found and f'"#/$defs/{name}"' in text:
                found.add(name)
                waiting.append(schema["$defs"][name])
    return found


def _drop_from_defaults(value: Any, model: str, field: str) -> None:
    """Where a part is the default of a field, its own new field has a default there."""
    if isinstance(value, dict):
        if value.get("$ref") == f"#/$defs/{model}" and isinstance(value.get("default"), dict):
            value["default"].pop(field, None)
        for item in value.values():
            _drop_from_defaults(item, model, field)
    elif isinstance(value, list):
        for item in value:
            _drop_from_defaults(item, model, field)


def _drop_values(parts: dict[str, Any], field: dict[str, Any], values: tuple[Any, ...]) -> None:
    reference = field.get("$ref") or next((one["$ref"] for one in field.get("allOf", ())), None)
    holder = parts[reference.rpartition("/")[2]] if reference else field
    if values == (None,):
        # A field that may be null only now was what its schema says beside that.
        kept = [one for one in holder.pop("anyOf") if one != {"type": "null"}]
        assert len(kept) == 1
        holder.update(kept[0])
        return
    holder["enum"] = [value for value in holder["enum"] if value not in values]


def _without_references(value: Any, gone: set[str]) -> Any:
    references = {f"#/$defs/{name}" for name in gone}
    if isinstance(value, dict):
        return {
            key: _without_references(item, gone)
            for key, item in value.items()
            if not (isinstance(item, str) and item in references)
        }
    if isinstance(value, list):
        kept = [item for item in value if not (isinstance(item, dict) and item.get("$ref") in references)]
        return [_without_references(item, gone) for item in kept]
    return value


def shape(value: Any) -> Any:
    """A schema without what is for people."""
    if isinstance(value, dict):
        return {
            key: shape(item)
            for key, item in value.items()
            if not (key in ("description", "title", "examples") and isinstance(item, str | list))
        }
    return [shape(item) for item in value] if isinstance(value, list) else value
