"""From pydantic's errors to faults that name field, value and what is allowed. Pure."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from collect_ops.kernel.errors import Fault, did_you_mean

# What a field may be: a type, a union, an Annotated. Typing has no better word for it.
Annotation: TypeAlias = Any

_QUOTED = re.compile(r"'([^']*)'")

#: Faults of one file that are reported, and characters of all of them.
MAX_FAULTS = 100
MAX_CHARS = 16_000
_MAX_FIELD = 200
_MAX_PROBLEM = 500
_MAX_ALLOWED = 50
_MAX_WORD = 60
_MAX_BITS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an error is.

    Args:
        steps: Keys and indices from the root of the input; without pydantic's own marks (union members).
        model: The model whose field it is about, when it is about one.
    """

    steps: tuple[str | int, ...]
    model: type[BaseModel] | None = None

    @property
    def dotted(self) -> str:
        """`request.params.limit`."""
        return ".".join(map(str, self.steps))


def faults_from(error: ValidationError, root: type[BaseModel]) -> list[Fault]:
    """The faults that a validation of `root` found; one a field, and no more than anybody reads (`MAX_FAULTS`)."""
    found: dict[str, Fault] = {}
    for detail in error.errors(include_url=False):
        for fault in _faults(detail, place_of(detail["loc"], root)):
            found.setdefault(fault.field, fault)
            if len(found) > MAX_FAULTS:
                return list(found.values())
    return list(found.values())


def capped(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Faults of one file, of a size that logs, tables and people can take; the last one says when there are more.

    Fields and problems come from the file: they are made printable, since a database that is given a NUL character or
    a lone surrogate refuses the whole message.
    """
    kept: list[Fault] = []
    size = 0
    for fault in faults:
        if len(kept) == MAX_FAULTS or size > MAX_CHARS:
            problem = f"has more faults than the {len(kept)} that are shown"
            return (*kept, Fault(field="file", value=None, problem=problem))
        kept.append(_cut(fault))
        size += len(str(kept[-1]))
    return tuple(kept)


def _cut(fault: Fault) -> Fault:
    allowed = fault.allowed
    if len(allowed) > _MAX_ALLOWED:
        # What was probably meant must not be among those that are left out.
        close = did_you_mean(fault.value, allowed) if isinstance(fault.value, str) else None
        shown = (*([close] if close else []), *(word for word in allowed[:_MAX_ALLOWED] if word != close))
        allowed = (*shown[:_MAX_ALLOWED], f"and {len(fault.allowed) - _MAX_ALLOWED} more")
    value = fault.value
    return Fault(
        field=_text(fault.field, _MAX_FIELD),
        value=_text(value, _MAX_FIELD) if isinstance(value, str) else _small(value),
        problem=_text(fault.problem, _MAX_PROBLEM),
        allowed=tuple(_text(word, _MAX_WORD) for word in allowed),
    )


def _text(text: str, limit: int) -> str:
    """Text in which nothing is left that cannot be stored or printed."""
    escaped = "".join(
        one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode()
        for one in text[: limit + 1]
    )
    return escaped if len(escaped) <= limit else f"{escaped[:limit]}…"


def _small(value: object) -> object:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= _MAX_BITS else f"a number of {value.bit_length()} bits"
    shown = _shown(value)
    return _text(shown, _MAX_FIELD) if isinstance(shown, str) else shown


def place_of(location: Sequence[str | int], root: type[BaseModel]) -> Place:
    """Where a pydantic location lies in the input."""
    steps: list[str | int] = []
    annotation: Annotation = root
    model: type[BaseModel] | None = None
    for step in location:
        annotation = _stripped(annotation)
        if _is_union(annotation):
            annotation = _member(annotation, step)
            if annotation is None:  # a union of scalars: what follows names one of its members
                break
            continue
        if step == "[key]":
            break
        model = annotation if _is_model(annotation) else None
        steps.append(step)
        annotation = _child(annotation, step)
    # A missing discriminator is reported at the union itself.
    return Place(steps=tuple(steps), model=model)


def _stripped(annotation: Annotation) -> Annotation:
    """Without Annotated, and without `| None`."""
    while _origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if _is_union(annotation):
        members = [one for one in get_args(annotation) if one is not type(None)]
        if len(members) == 1:
            return _stripped(members[0])
    return annotation


def _origin(annotation: Annotation) -> Annotation:
    return get_origin(annotation)


def _is_union(annotation: Annotation) -> bool:
    return _origin(annotation) in (Union, types.UnionType)


def _is_model(annotation: Annotation) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _member(union: Annotation, tag: str | int) -> type[BaseModel] | None:
    """The member of a tagged union that a tag names."""
    for one in get_args(union):
        member = _stripped(one)
        if _is_model(member) and any(tag in get_args(one.annotation) for one in _tags(member)):
            return member  # type: ignore[no-any-return]
    return None


def _tags(member: type[BaseModel]) -> list[FieldInfo]:
    """The fields that may tell the members of a union apart."""
    return [member.model_fields[name] for name in ("type", "by") if name in member.model_fields]


def _child(annotation: Annotation, step: str | int) -> Annotation:
    if _is_model(annotation):
        field = annotation.model_fields.get(step)
        return field.annotation if field else None
    arguments = get_args(annotation)
    if not arguments:
        return None
    return arguments[1] if issubclass(_origin(annotation), Mapping) else arguments[0]


def _faults(detail: ErrorDetails, place: Place) -> Iterator[Fault]:
    context = detail.get("ctx", {})
    if detail["type"] == "misfits":
        for fault in context["faults"]:
            field = ".".join(part for part in (place.dotted, fault.field) if part)
            yield Fault(field=field, value=fault.value, problem=fault.problem, allowed=fault.allowed)
    else:
        yield _fault(detail, place, context)


def _fault(detail: ErrorDetails, place: Place, context: Mapping[str, Any]) -> Fault:
    field, value = place.dotted or "file", _shown(detail["input"])
    allowed: tuple[str, ...] = ()
    match detail["type"]:
        case "misfit":
            problem, allowed = context["problem"], context["allowed"]
        case "missing":
            value, problem = None, "is required and missing"
        case "extra_forbidden":
            value, problem = None, _unknown(place)
        case "enum" | "literal_error":
            problem, allowed = "is not known", _words(context["expected"])
        case "union_tag_invalid":
            field, value = f"{field}.{_discriminator(context)}", context["tag"]
            problem, allowed = "is not known", _words(context["expected_tags"])
        case "union_tag_not_found":
            field, value, problem = f"{field}.{_discriminator(context)}", None, "is required and missing"
        case "string_pattern_mismatch":
            problem = f"must match {context['pattern']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            problem = "must be a mapping of fields"
        case _:
            problem = _SCALAR_WANTED if _is_scalar_union(detail, place) else _half_sentence(detail["msg"])
    return Fault(field=field, value=value, problem=problem, allowed=allowed)


def _discriminator(context: Mapping[str, Any]) -> str:
    return str(context["discriminator"]).strip("'")


_SCALAR_WANTED = "must be text, a number, true, false or null"


def _is_scalar_union(detail: ErrorDetails, place: Place) -> bool:
    """Whether pydantic names the member of a union that did not fit, one after the other."""
    return len(place.steps) < len(detail["loc"]) and detail["type"].endswith("_type")


def _words(expected: str) -> tuple[str, ...]:
    return tuple(_QUOTED.findall(expected))


def _unknown(place: Place) -> str:
    known = sorted(place.model.model_fields) if place.model else []
    close = meant_field(place)
    hint = f"; did you mean {close!r}?" if close else ""
    return f"is not a field: known are {', '.join(known)}{hint}"


def meant_field(place: Place) -> str | None:
    """The field that an unknown name at this place was probably meant to be."""
    return did_you_mean(str(place.steps[-1]), place.model.model_fields) if place.model else None


def _half_sentence(message: str) -> str:
    message = message.removeprefix("Value error, ")
    for opening in ("Input should be ", "String should ", "Value should "):
        if message.startswith(opening):
            return f"must be {message.removeprefix(opening)}".replace("must be have", "must have")
    return message[0].lower() + message[1:]


def _shown(value: object) -> object:
    """Small values are shown; of large ones it is enough to know what they are."""
    if isinstance(value, Mapping):
        return None if not value else f"a mapping of {len(value)}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, str) and len(value) > 200:
        return f"{value[:200]}…"
    return value
