from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from collect_ops.kernel.paths import include_dir
from collect_ops.sources.load import load_source
from collect_ops.sources.schema import json_schema

SOURCES = sorted((include_dir() / "sources").glob("*.yaml"))
DOCUMENT = include_dir().parent / "docs" / "sources.md"


def test_the_schema_is_a_schema_and_every_field_is_described() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    models = [schema, *schema["$defs"].values()]
    undescribed = [
        f"{model['title']}.{name}"
        for model in models
        for name, field in model.get("properties", {}).items()
        if "description" not in field
    ]
    assert undescribed == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_what_ships_holds_to_the_schema(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())


def test_the_schema_refuses_what_is_unknown() -> None:
    with pytest.raises(jsonschema.ValidationError, match="'conection' was unexpected"):
        jsonschema.validate(
            {"name": "a", "connection": "b", "conection": "c", "target": {"table": "t"}}, json_schema()
        )


def test_the_written_schema_is_up_to_date() -> None:
    written = json.loads((include_dir() / "sources" / "source.schema.json").read_text())
    assert written == json_schema()


def test_the_documents_examples_load(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    whole = [block for block in blocks if re.search(r"^name: ", block, re.MULTILINE)]
    assert whole
    for block in whole:
        name = yaml.safe_load(block)["name"]
        path = tmp_path / f"{name}.yaml"
        path.write_text(block)
        assert load_source(path).name == name


def test_the_document_names_every_field() -> None:
    text = DOCUMENT.read_text()
    schema = json_schema()
    fields = {name for model in (schema, *schema["$defs"].values()) for name in model.get("properties", {})}
    assert {field for field in fields if not re.search(rf"`([a-z_]+\.)?{field}`", text)} == set()
