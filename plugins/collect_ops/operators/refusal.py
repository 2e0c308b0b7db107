"""What cannot be done is answered like what can: as XCom, for programs that read a run's result."""

from __future__ import annotations

import math
from typing import Any, NoReturn

from airflow.sdk import BaseXCom, Context
from airflow.sdk.exceptions import AirflowFailException

from collect_ops.kernel.errors import CollectOpsError, Fault, Permanent, ValidationFailed
from collect_ops.sources.load import UnknownSource

#: Faults that an answer lists, and characters of a faulty value that it repeats.
MOST_FAULTS, MOST_CHARS = 100, 200


def refuse(context: Context, error: CollectOpsError) -> NoReturn:
    """Push `{"error", "faults"}` as the task's result, and fail the task.

    Args:
        context: The task's.
        error: Why not. Airflow tries again unless it is `Permanent`.

    Raises:
        AirflowFailException: It is.
        CollectOpsError: It is not.
    """
    context["ti"].xcom_push(BaseXCom.XCOM_RETURN_KEY, refusal_of(error))
    if isinstance(error, Permanent):
        raise AirflowFailException(str(error)) from error
    raise error


def refusal_of(error: CollectOpsError) -> dict[str, Any]:
    """An error as a program reads it: the sentence, and a row a fault."""
    return {"error": str(error), "faults": [_row(fault) for fault in _faults(error)[:MOST_FAULTS]]}


def _faults(error: CollectOpsError) -> tuple[Fault, ...]:
    if isinstance(error, ValidationFailed):
        return error.faults
    if isinstance(error, UnknownSource):
        return (Fault(field="source", value=error.name, problem="is not declared", allowed=error.known),)
    return ()


def _row(fault: Fault) -> dict[str, Any]:
    return {
        "field": fault.field,
        "value": _shown(fault.value),
        "problem": fault.problem,
        "allowed": list(fault.allowed),
    }


def _shown(value: object) -> Any:
    """A value as JSON has it, when it is short and plain; else the beginning of what it looks like."""
    plain = value is None or isinstance(value, bool | int | str)
    if isinstance(value, float):
        plain = math.isfinite(value)
    try:
        text = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, thousands of levels
        return f"a {type(value).__name__} that is too large to show"
    if len(text) > MOST_CHARS:
        return f"{text[:MOST_CHARS]}…"
    return value if plain else text
