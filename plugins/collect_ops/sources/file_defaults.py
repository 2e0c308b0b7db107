"""What a file means by a field that it leaves out, where stored declarations without that field mean something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from collect_ops.sources.declaration import InFiles, parts_of
from collect_ops.sources.model import Source

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedReading:
    """A field that a file leaves out, and that meant something else in an earlier release.

    Args:
        field: The field, dotted.
        value: What it means now.
        before: What it meant before, as a sentence without its first capital and full stop.
        keep: The value that declares the earlier meaning.
    """

    field: str
    value: Any
    before: str
    keep: Any


def with_file_defaults(source: Source) -> Source:
    """A source as its file means it: the fields that it leaves out have the values that files mean by that."""
    return _filled(source)


def changed_readings(source: Source) -> list[ChangedReading]:
    """What a file leaves out that meant something else before.

    Args:
        source: As it was declared, without the values that loading writes into it.
    """
    return list(_changed(source, ()))


def values_in_files(model: type[BaseModel]) -> Iterator[tuple[str, str, Any]]:
    """The model, field and value of everything that a file means by leaving it out, whatever else it declares."""
    for part in parts_of(model):
        for name, field in part.model_fields.items():
            mark = _mark(field)
            if mark is not None and not callable(mark.value):
                yield part.__name__, name, mark.value


def _filled(model: M) -> M:
    changes: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        mark = _mark(field)
        if mark is not None and name not in model.model_fields_set:
            meant = mark.value_in(model)
            if meant is not None:
                changes[name] = meant
            continue
        filled = _filled_value(value)
        if filled is not value:
            changes[name] = filled
    return model.model_copy(update=changes) if changes else model


def _filled_value(value: Any) -> Any:
    match value:
        case BaseModel():
            return _filled(value)
        case Mapping():
            filled = {name: _filled_value(item) for name, item in value.items()}
            return filled if any(filled[name] is not item for name, item in value.items()) else value
    return value


def _changed(model: BaseModel, place: tuple[str, ...]) -> Iterator[ChangedReading]:
    for name, field in type(model).model_fields.items():
        value, here = getattr(model, name), (*place, name)
        mark = _mark(field)
        if mark is not None and name not in model.model_fields_set:
            meant = mark.value_in(model)
            if meant is not None:
                yield ChangedReading(field=".".join(here), value=meant, before=mark.before, keep=mark.keep)
            continue
        for key, part in _parts(value):
            yield from _changed(part, (*here, *key))


def _parts(value: Any) -> Iterator[tuple[tuple[str, ...], BaseModel]]:
    match value:
        case BaseModel():
            yield (), value
        case Mapping():
            yield from (((str(name),), item) for name, item in value.items() if isinstance(item, BaseModel))


def _mark(field: FieldInfo) -> InFiles | None:
    return next((mark for mark in field.metadata if isinstance(mark, InFiles)), None)
