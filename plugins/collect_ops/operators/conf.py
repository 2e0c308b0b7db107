"""What operators are given: a run's conf, and templates' results, which are text unless rendered natively."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pydantic

from collect_ops.kernel.errors import Fault, ValidationFailed, did_you_mean

#: What an argument is that was not given; a template that rendered to nothing gives text.
NOTHING: tuple[Any, ...] = (None, "", "None", {}, "{}", [], "[]")


def refuse_unknown(conf: Mapping[str, Any] | None, known: Sequence[str], subject: str) -> None:
    """Refuse keys of a run's conf that nobody reads: Airflow would leave a misspelt one unread.

    Args:
        conf: The run's.
        known: The keys that it may have.
        subject: What the conf is for.

    Raises:
        ValidationFailed: With every key that is not known.
    """
    faults = []
    for name in sorted(set(conf or {}) - set(known)):
        close = did_you_mean(name, known)
        hint = f"; did you mean {close!r}?" if close else ""
        problem = f"is not a parameter of this DAG: it has {', '.join(known)}{hint}"
        faults.append(Fault(field=f"conf.{name}", value=(conf or {})[name], problem=problem))
    if faults:
        raise ValidationFailed(subject, faults)


def rendered(value: Any) -> Any:
    """A template's result: without native rendering, nothing is the text `None`, or no text at all."""
    return None if value in ("", "None") else value


def as_bool(field: str, value: object) -> bool:
    """A yes or no.

    Raises:
        ValidationFailed: It is neither.
    """
    try:
        return pydantic.TypeAdapter(bool).validate_python(value)
    except pydantic.ValidationError as error:
        fault = Fault(field=field, value=value, problem="must be true or false")
        raise ValidationFailed("submission", (fault,)) from error


def as_object(field: str, value: object) -> Mapping[str, Any]:
    """A JSON object; nothing is an empty one.

    Raises:
        ValidationFailed: It is no object.
    """
    found = _json(field, value)
    if found is None or found == "":
        return {}
    if not isinstance(found, Mapping):
        raise _unfit(field, value, "must be a JSON object")
    return found


def as_objects(field: str, value: object, *, most: int) -> list[Mapping[str, Any]]:
    """A JSON array of objects.

    Raises:
        ValidationFailed: It is none, or has more than `most`.
    """
    found = _json(field, value)
    if not isinstance(found, list | tuple):
        raise _unfit(field, value, "must be a JSON array of objects")
    if len(found) > most:
        raise _unfit(field, len(found), f"must have {most} elements at most")
    faults = [
        Fault(field=f"{field}.{number}", value=each, problem="must be a JSON object")
        for number, each in enumerate(found)
        if not isinstance(each, Mapping)
    ]
    if faults:
        raise ValidationFailed("submission", faults)
    return list(found)


def faults_of(error: pydantic.ValidationError) -> list[Fault]:
    """What pydantic found, as faults."""
    return [
        Fault(field=".".join(map(str, each["loc"])), value=each["input"], problem=each["msg"])
        for each in error.errors(include_url=False)
    ]


def _json(field: str, value: object) -> object:
    try:
        return orjson.loads(value) if isinstance(value, str) and value.strip() else value
    except orjson.JSONDecodeError as error:
        raise _unfit(field, value, f"must be JSON: {error}") from error


def _unfit(field: str, value: object, problem: str) -> ValidationFailed:
    return ValidationFailed("submission", (Fault(field=field, value=value, problem=problem),))
