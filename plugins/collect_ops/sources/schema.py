"""The JSON Schema of a source file: what editors check and complete with."""

from __future__ import annotations

from typing import Any

from collect_ops.sources.model import Source
from collect_ops.sources.texts import COLUMN_TYPES


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `include/sources/*.yaml`.

    It knows fields, types, ranges and enumerations. What fields demand of each other, only loading knows:
    `collect-ops source check`.
    """
    schema = Source.model_json_schema()
    # The type of a column is checked by code; an editor can still offer the usual ones.
    schema["$defs"]["Column"]["properties"]["type"]["examples"] = list(COLUMN_TYPES)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
