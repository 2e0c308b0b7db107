"""Fields of trigger forms, as Airflow's `Param`: what is optional has no star, and an empty field means nothing given.

Airflow's form stars every field whose type does not include `null`, shows a missing choice as the word null unless
`values_display` names it, and takes an empty text for a missing one (3.3.2).
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param

from collect_ops.sources.load import source_names
from collect_ops.sources.model import Source
from collect_ops.sources.params import Param as SourceParam
from collect_ops.sources.params import ParamType

#: Whole numbers beyond it are rounded by browsers, and would be collected wrong in silence.
BROWSER_EXACT = 2**53 - 1

_TYPES: dict[ParamType, dict[str, Any]] = {
    ParamType.STRING: {"type": "string"},
    ParamType.INTEGER: {"type": "integer"},
    ParamType.NUMBER: {"type": "number"},
    ParamType.BOOLEAN: {"type": "boolean"},
    ParamType.DATE: {"type": "string", "format": "date"},
    ParamType.DATETIME: {"type": "string", "format": "date-time"},
}


def optional(kind: str, default: Any = None, **schema: Any) -> Param:
    """A field that may be left empty.

    Args:
        kind: JSON Schema type of its values.
        default: What stands in it when the form opens.
        schema: What else JSON Schema and the form know: `title`, `description`, `minimum`, …
    """
    return Param(default, type=["null", kind], **schema)


def choice(*values: str, empty: str, **schema: Any) -> Param:
    """One of some values, or none.

    Args:
        values: The values.
        empty: What the form calls none of them.
        schema: See `optional`.
    """
    # `null`, not `None`: the form takes the latter for every value that has no name of its own.
    return optional("string", enum=[None, *values], values_display={"null": empty}, **schema)


def source_filter() -> Param:
    """A source to select tasks by: declared ones are proposed, and one that is not declared any more can be typed."""
    return optional("string", examples=source_names(), title="Source", description="Empty: of every source")


def source_params(source: Source) -> dict[str, Param]:
    """A field for each of a source's parameters.

    A scheduled DAG may not have a field that must be filled in: then admission says that it is missing.
    """
    return {
        name: _field(name, param, must=param.required and source.schedule is None)
        for name, param in source.request.params.items()
    }


def _field(name: str, param: SourceParam, *, must: bool) -> Param:
    schema = dict(_TYPES[param.type])
    kind = schema.pop("type")
    if param.type in (ParamType.INTEGER, ParamType.NUMBER):
        schema |= _range(param)
    if param.allowed and param.type is not ParamType.BOOLEAN:
        allowed = [param.canonical(value) for value in param.allowed]
        schema["enum"] = allowed if must else [None, *allowed]
        if not must:
            schema["values_display"] = {"null": "not given"}
    moves = param.relative_default is not None
    default = None if param.default is None or moves else param.canonical(param.default)
    described = {"title": name, "description": _description(param), **schema}
    if must:
        return Param(type=kind, **described)
    return optional(kind, default, **described)


def _range(param: SourceParam) -> dict[str, Any]:
    least, most = param.minimum, param.maximum
    if param.type is ParamType.INTEGER:
        least = max(-BROWSER_EXACT, -BROWSER_EXACT if least is None else least)
        most = min(BROWSER_EXACT, BROWSER_EXACT if most is None else most)
    bounds = {"minimum": least, "maximum": most}
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _description(param: SourceParam) -> str | None:
    parts = [param.description.rstrip(".")] if param.description else []
    if param.pattern is not None:
        parts.append(f"must match {param.pattern}")
    if param.relative_default is not None:
        parts.append(f"when empty: {param.default}")
    if param.required:
        parts.append("must be given")
    return "; ".join(parts) or None
