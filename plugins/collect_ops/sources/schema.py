"""The JSON Schema of a source file: what editors check and complete with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from collect_ops.sources.bounds import NUMBERS
from collect_ops.sources.file_defaults import values_in_files
from collect_ops.sources.model import Source
from collect_ops.sources.texts import COLUMN_TYPES, TIME_FORMATS


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `include/sources/*.yaml`.

    It knows fields, types, ranges and enumerations. What fields demand of each other, only loading knows:
    `collect-ops source check`.
    """
    schema = Source.model_json_schema()
    # The type of a column is checked by code; an editor can still offer the usual ones.
    schema["$defs"]["Column"]["properties"]["type"]["examples"] = list(COLUMN_TYPES)
    schema["$defs"]["Column"]["properties"]["format"]["examples"] = [*TIME_FORMATS, "%d/%m/%Y"]
    for field, bound in NUMBERS.items():
        for number in _numbers_at(schema, field):
            # An exclusive minimum of the model's is below ours.
            number["maximum"] = bound.most
            if bound.least is not None:
                number["minimum"] = bound.least
    for model, field, value in values_in_files(Source):
        part = schema if model == Source.__name__ else schema["$defs"][model]
        part["properties"][field]["default"] = value
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _numbers_at(schema: dict[str, Any], field: str) -> Iterator[dict[str, Any]]:
    """The schemas of the number at a dotted field, in each kind of part that has it."""
    models = [schema]
    *path, last = field.split(".")
    for name in path:
        models = [
            schema["$defs"][reference]
            for model in models
            if name in model["properties"]
            for reference in _references(model["properties"][name])
        ]
    for model in models:
        if last in model["properties"]:
            yield from _typed(model["properties"][last], ("integer", "number"))


def _typed(schema: dict[str, Any], types: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    yield from (each for each in (schema, *schema.get("anyOf", ())) if each.get("type") in types)


def _references(schema: dict[str, Any]) -> Iterator[str]:
    for each in (schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())):
        if "$ref" in each:
            yield each["$ref"].rpartition("/")[2]
        for within in each.get("oneOf", ()) if each is not schema else ():
            yield within["$ref"].rpartition("/")[2]
