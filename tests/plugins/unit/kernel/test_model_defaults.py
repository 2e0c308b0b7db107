"""Defaults are what the field's type says: pydantic checks and converts what is given, never a default."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

import collect_ops

#: What needs Airflow, or nobody imports without it.
EDGES = ("hooks", "operators", "sensors", "triggers", "listeners", "policies", "console")


def modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(collect_ops.__path__, "collect_ops."):
        if found.name.split(".")[1] not in EDGES and not found.name.endswith("__main__"):
            yield found.name


def models() -> list[type[BaseModel]]:
    for name in modules():
        importlib.import_module(name)

    def below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
        for child in model.__subclasses__():
            yield child
            yield from below(child)

    found = {model for model in below(BaseModel) if model.__module__.startswith("collect_ops.")}
    return sorted(found, key=lambda model: (model.__module__, model.__qualname__))


def default_faults(model: type[BaseModel]) -> Iterator[str]:
    """Fields whose default is another value, or of another type, than what validating it gives."""
    for name, field in model.model_fields.items():
        if field.is_required():
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        validated = _adapter(field).validate_python(default)
        if repr(validated) != repr(default):
            yield f"{model.__module__}.{model.__qualname__}.{name} = {default!r}, validated {validated!r}"


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    from typing import Annotated

    return TypeAdapter(Annotated[field.annotation, field] if field.metadata else field.annotation)


def test_there_are_models_of_sources_rules_and_messages() -> None:
    packages = {model.__module__.split(".")[1] for model in models()}
    assert {"sources", "lanes", "nodes", "execution", "admission"} <= packages


@pytest.mark.parametrize("model", models(), ids=lambda model: f"{model.__module__}.{model.__qualname__}")
def test_defaults_are_what_validating_them_gives(model: type[BaseModel]) -> None:
    assert list(default_faults(model)) == []


def test_an_integer_as_a_decimal_fields_default_is_found() -> None:
    class Faulty(BaseModel):
        ttl_h: float = 24

    assert len(list(default_faults(Faulty))) == 1
