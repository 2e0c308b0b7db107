"""What every part of a declaration is made of: base model, names, scalars, how validators state faults."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
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
