"""Stored declarations: what a task was admitted with, written once and read by every later release.

Promises: what was declared is stored as it was, without a default and in declared order, and its version is the hash of
that. A declaration has the number of the least format that can read it, so one that uses nothing new is read by older
processes as well. What a release refuses that an earlier one took, checking and loading refuse (`load`): reading here
checks types alone. ADR 0023 has the rules that keep this true for the releases to come.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any, Final, Literal, get_args, get_origin

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from collect_ops.kernel.errors import CollectOpsError, Permanent, Transient
from collect_ops.sources.declaration import READING_STORED, InFiles, Json, Since, parts_of
from collect_ops.sources.model import Source
from collect_ops.sources.priority_formula import PriorityFormula

#: The newest format that this release reads. 0: by release 0.1.0, with every default. 1: what 0.1.0 can declare.
#: 2: `target.replace_when`. 3: what release 0.2.0 reads more strictly, which every file now declares (ADR 0033).
FORMAT: Final = 3
#: Declarations kept in memory by version: they never change.
_KEPT: Final = 512


class NewerDefinition(CollectOpsError, Transient):
    """A stored declaration was written by a newer release; nothing is wrong with it, or with the task.

    Args:
        what: What of it this release does not know, as half a sentence.
    """

    #: Nobody's failure: the task goes back uncounted, and waits for a process that can read it.
    deferred = True
    newer = True

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the declaration that it was admitted with {what}: it waits for a process of the newer release"
        )


class UnreadableDefinition(CollectOpsError, Permanent):
    """A stored declaration of a known format cannot be read: it is damaged.

    Args:
        version: Its version.
        error: What is wrong.
    """

    def __init__(self, version: str, error: ValidationError) -> None:
        found = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
            for each in error.errors(include_url=False)[:5]
        )
        super().__init__(
            f"the declaration that it was admitted with, {version[:12]}, is not understood any more: {found}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDefinition:
    """A declaration as `collect.source_version` holds it.

    Args:
        version: SHA-256 of format and declaration.
        source: The source's name.
        format: The least format that can read it.
        declared: What was declared, as JSON.
        resolved: The same with the defaults, but for fields that release 0.1.0 does not know: what statements decide
            by, and what processes of 0.1.0 read.
    """

    version: bytes
    source: str
    format: int
    declared: str
    resolved: str


def dump_definition(source: Source) -> StoredDefinition:
    """A declaration as it is stored. One that is dumped again and again is dumped once."""
    kept = _dumped.get(id(source))
    if kept is not None and kept[0] is source:
        return kept[1]
    dumped = _dump(source)
    with _lock:
        _dumped[id(source)] = (source, dumped)
        if len(_dumped) > _KEPT:
            _dumped.popitem(last=False)
    return dumped


def load_definition(version: str, format_: int, definition: Mapping[str, Json]) -> Source:
    """The declaration that a task was admitted with.

    Args:
        version: Its version, in hex.
        format_: Its format.
        definition: What was stored.

    Raises:
        NewerDefinition: Its format is newer than this release, or it holds fields that only a newer release can have
            written.
        UnreadableDefinition: It is damaged.
    """
    refuse_newer(format_)
    kept = _loaded.get(version)
    if kept is None:
        kept = _read(version, definition)
        with _lock:
            _loaded[version] = kept
            if len(_loaded) > _KEPT:
                _loaded.popitem(last=False)
    return kept


def load_formula(version: str, format_: int, formula: Mapping[str, Json] | None) -> PriorityFormula | None:
    """The formula of a stored declaration, for those who decide by nothing else of it.

    Raises:
        NewerDefinition: Its format is newer than this release.
        UnreadableDefinition: It is damaged.
    """
    refuse_newer(format_)
    if formula is None:
        return None
    try:
        return PriorityFormula.model_validate(formula, context=READING_STORED)
    except ValidationError as error:
        raise _refusal(version, error) from error


def refuse_newer(format_: int) -> None:
    """Raise when a stored declaration is newer than this release.

    Raises:
        NewerDefinition: It is.
    """
    if format_ > FORMAT:
        raise NewerDefinition(f"has format {format_}, this release reads up to {FORMAT}")


_lock = Lock()
_loaded: OrderedDict[str, Source] = OrderedDict()
# By identity: loading gives the same object until the file changes, and comparing two sources takes as long as dumping.
_dumped: OrderedDict[int, tuple[Source, StoredDefinition]] = OrderedDict()


def _read(version: str, definition: Mapping[str, Json]) -> Source:
    try:
        return Source.model_validate(definition, context=READING_STORED)
    except ValidationError as error:
        raise _refusal(version, error) from error


def _refusal(version: str, error: ValidationError) -> NewerDefinition | UnreadableDefinition:
    """A field nobody knows comes from a release whose author forgot its format: no reason to end the task."""
    unknown = [each for each in error.errors(include_url=False) if each["type"] == "extra_forbidden"]
    if len(unknown) == error.error_count():
        names = ", ".join(sorted(".".join(map(str, each["loc"])) for each in unknown))
        return NewerDefinition(f"holds fields that this release does not know ({names})")
    return UnreadableDefinition(version, error)


def _dump(source: Source) -> StoredDefinition:
    declared = orjson.dumps(_as_json(source, defaults=False)).decode()
    format_ = least_format(source)
    return StoredDefinition(
        version=hashlib.sha256(f"{format_}\n{declared}".encode()).digest(),
        source=source.name,
        format=format_,
        declared=declared,
        resolved=orjson.dumps(_as_json(source, defaults=True)).decode(),
    )


def least_format(value: object) -> int:
    """The least format that can hold what is declared: that of the newest field that is set."""
    if isinstance(value, BaseModel):
        declared = {
            name: field
            for name, field in type(value).model_fields.items()
            if _is_declared(value, name, field)
        }
        return max(
            (
                max(_since(field, getattr(value, name)), least_format(getattr(value, name)))
                for name, field in declared.items()
            ),
            default=1,
        )
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return max(map(least_format, items), default=1)


def _as_json(value: object, *, defaults: bool) -> Json:
    """A model as JSON: what was declared, in the order of its fields and of what is declared within them.

    Args:
        value: The model, or a value in it.
        defaults: With the defaults of fields that release 0.1.0 knows.
    """
    if isinstance(value, BaseModel):
        return {
            field.serialization_alias or field.alias or name: _as_json(
                getattr(value, name), defaults=defaults
            )
            for name, field in type(value).model_fields.items()
            if _belongs(value, name, field, defaults=defaults)
        }
    if isinstance(value, Mapping):
        return {name: _as_json(item, defaults=defaults) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item, defaults=defaults) for item in value]
    return _ANYTHING.dump_python(value, mode="json")


def _belongs(model: BaseModel, name: str, field: FieldInfo, *, defaults: bool) -> bool:
    """Whether a field is written. Older processes go without what a file means by leaving a field out."""
    value = getattr(model, name)
    if not defaults:
        return _is_declared(model, name, field)
    if _since(field, value) <= 1:
        return True
    implied = any(isinstance(mark, InFiles) and mark.value_in(model) == value for mark in field.metadata)
    return _is_declared(model, name, field) and not implied


_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


def _is_declared(model: BaseModel, name: str, field: FieldInfo) -> bool:
    """Whether a field was given; a tag always counts as given: by it the kind of a part is told."""
    return name in model.model_fields_set or _is_tag(field)


def _is_tag(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _since(field: FieldInfo, value: object) -> int:
    """The format since which a field can hold a value."""
    marks = (mark for mark in field.metadata if isinstance(mark, Since))
    return max((mark.format for mark in marks if not mark.values or value in mark.values), default=1)


@lru_cache(maxsize=1)
def newest_mark() -> int:
    """The newest format that a field of any part of a source is marked with."""
    marks = (
        mark.format
        for model in parts_of(Source)
        for field in model.model_fields.values()
        for mark in field.metadata
        if isinstance(mark, Since)
    )
    return max(marks, default=1)
