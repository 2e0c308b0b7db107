"""Which tasks are meant: by their ids, or by what they have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import Fault, ValidationFailed, did_you_mean
from collect_ops.storage import Jsonb, connect, query
from collect_ops.tasks.lifecycle import FINAL, TaskStatus

Id = Annotated[int, Field(ge=1, lt=2**63)]
OPEN = tuple(status for status in TaskStatus if status not in FINAL)


class Selection(BaseModel):
    """Tasks that match everything that is given; of a filter only those that have not ended.

    Args:
        ids: These.
        source: Of this source.
        lane: In this lane.
        status: In one of these states.
        priority_min: Of this priority or above.
        priority_max: Of this priority or below.
        submitted_by: Submitted by exactly this one.
        submitted_via: Submitted this way.
        older_than_s: Waiting for longer than this, in seconds.
        params: With these parameter values among theirs.
        limit: So many at most, the longest waiting first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    ids: tuple[Id, ...] | None = Field(default=None, strict=False)
    source: str | None = None
    lane: str | None = None
    status: tuple[Annotated[TaskStatus, Field(strict=False)], ...] = Field(default=(), strict=False)
    priority_min: int | None = Field(default=None, ge=0, le=10)
    priority_max: int | None = Field(default=None, ge=0, le=10)
    submitted_by: str | None = None
    submitted_via: str | None = None
    older_than_s: float | None = Field(default=None, ge=0)
    params: dict[str, Any] | None = None
    limit: int = Field(default=100_000, ge=1, le=1_000_000)


def selection_of(given: Mapping[str, Any]) -> Selection:
    """A selection from what a form, JSON or a command line gives; None counts as not given.

    Raises:
        ValidationFailed: A field is unknown or unfit, or nothing says which tasks are meant.
    """
    fields = {name: value for name, value in given.items() if value is not None}
    known = tuple(Selection.model_fields)
    faults = [_unknown(name, fields[name], known) for name in fields if name not in known]
    if not set(fields) - {"limit"}:
        problem = f"must say which tasks are meant, by one of {', '.join(known)}"
        faults.append(Fault(field="selection", value=None, problem=problem))
    if faults:
        raise ValidationFailed("selection of tasks", faults)
    try:
        return Selection.model_validate(fields)
    except pydantic.ValidationError as error:
        raise ValidationFailed(
            "selection of tasks",
            [
                Fault(field=".".join(map(str, each["loc"])), value=each["input"], problem=each["msg"])
                for each in error.errors(include_url=False)
            ],
        ) from error


def find(selection: Selection, backends: Backends) -> list[int]:
    """The tasks that a selection means now: its ids as they are, or what its filter finds."""
    filters = selection.model_dump(exclude={"ids", "limit"}, exclude_defaults=True)
    if selection.ids is not None and not filters:
        return list(selection.ids)
    values = selection.model_dump()
    with connect(backends.postgres_dsn, application_name="collect-ops select") as connection:
        rows = connection.execute(
            query("delivery/find_tasks"),
            {
                **values,
                "ids": None if selection.ids is None else list(selection.ids),
                "status": [str(status) for status in selection.status or OPEN],
                "params": None if selection.params is None else Jsonb(selection.params),
            },
        ).fetchall()
    return [row["id"] for row in rows]


def _unknown(name: str, value: object, known: tuple[str, ...]) -> Fault:
    close = did_you_mean(name, known)
    hint = f"; did you mean {close!r}?" if close else ""
    return Fault(field=name, value=value, problem=f"is not known: {', '.join(known)}{hint}")
