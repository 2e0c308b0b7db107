"""What every part of a declaration is made of: base model, names, scalars, how validators state faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from collect_ops.kernel.errors import Fault
from collect_ops.kernel.faults import capped

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Scalar = str | int | float | bool | None

Json: TypeAlias = Any
"""A parsed JSON or YAML value: it has no type before it is looked at."""


class Declaration(BaseModel):
    """Base of everything declared in a source file: frozen, and unknown fields are faults."""

    # Attribute docstrings become the descriptions of the JSON Schema: what an editor shows beside a field.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


#: The validation context in which a stored declaration is read: its types count, what files are refused for does not.
READING_STORED: Final = {"stored": True}


def reads_stored(info: ValidationInfo) -> bool:
    """Whether a declaration is read that was checked when it was admitted: no rule made since may refuse it."""
    return bool((info.context or {}).get("stored"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """Marks a field that release 0.1.0 does not know: `Annotated[..., Since(format=2)]`.

    A declaration that sets it has this format at least, which older processes hand back. A kind of part that is new is
    marked at its tag. ADR 0023.

    Args:
        format: The format since which it can be set.
        values: Only these values are new; none: the whole field is.
    """

    format: int
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InFiles:
    """Marks a field that a file sets by leaving it out: `Annotated[..., Since(format=3), InFiles(...)]`.

    The model's default is what a declaration means that was stored before the field was there, so open tasks go on as
    they were admitted. Loading a file writes the value into the declaration (ADR 0033).

    Args:
        value: What a file means that leaves the field out; a function is given the part that holds the field, and
            returns None where the part is to stay as it is.
        before: What it meant before, as a sentence for `source check`: `a page that repeats another one lands again`.
        keep: The value that declares the earlier meaning.
    """

    value: Any
    before: str
    keep: Any

    def value_in(self, part: BaseModel) -> Any:
        """The value that a file means in one part; None: the part stays as it is."""
        return self.value(part) if callable(self.value) else self.value


def parts_of(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A model and all models that its fields are made of."""
    found, todo = [], [model]
    while todo:
        part = todo.pop()
        if part not in found:
            found.append(part)
            todo += [
                within for field in part.model_fields.values() for within in _models_within(field.annotation)
            ]
    return found


def _models_within(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_within(part)]


def demand(problem_of: Callable[[str], str | None]) -> AfterValidator:
    """A demand on a text in a file; stored declarations are not held to it.

    Args:
        problem_of: What is wrong with a text, as half a sentence; None when nothing is.
    """

    def check(value: str, info: ValidationInfo) -> str:
        if not reads_stored(info) and (problem := problem_of(value)):
            raise misfit(problem)
        return value

    return AfterValidator(check)


def misfit(problem: str, *, allowed: Iterable[str] = ()) -> PydanticCustomError:
    """The error a field's validator raises.

    Args:
        problem: Half a sentence (`must be 0 to 10`).
        allowed: The values that would do, when they can be listed.
    """
    return PydanticCustomError("misfit", "{problem}", {"problem": problem, "allowed": tuple(allowed)})


def misfits(faults: Iterable[Fault]) -> PydanticCustomError:
    """The error a model's validator raises: several faults, their fields relative to the model."""
    found = tuple(faults)
    text = "; ".join(map(str, capped(found)))
    return PydanticCustomError("misfits", "{text}", {"text": text, "faults": found})
