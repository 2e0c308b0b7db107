"""Dead letters: their states, which are meant, and what is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Self

import pydantic
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from collect_ops.kernel.errors import CollectOpsError, Fault, Permanent, ValidationFailed

Id = Annotated[int, Field(ge=1, lt=2**63)]


class LetterState(StrEnum):
    """Where a dead letter stands."""

    OPEN = "OPEN"  # nobody has done anything about it
    REDRIVEN = "REDRIVEN"  # sent again; its task has not ended yet
    SETTLED = "SETTLED"  # sent again, and its task ended COMPLETED or PARTIAL
    FAILED = "FAILED"  # sent again, and its task ended otherwise: a newer dead letter may be open
    DISCARDED = "DISCARDED"  # somebody said why nothing will be done


class NoSuchLetter(CollectOpsError, Permanent):
    """There is no dead letter of this number."""

    def __init__(self, letter_id: int) -> None:
        self.letter_id = letter_id
        super().__init__(f"dead letter {letter_id} does not exist")


class NoSuchRedrive(CollectOpsError, Permanent):
    """There is no redrive of this number."""

    def __init__(self, redrive_id: int) -> None:
        self.redrive_id = redrive_id
        super().__init__(f"redrive {redrive_id} does not exist")


class NotOpen(CollectOpsError, Permanent):
    """Only open dead letters of DEAD tasks are edited."""

    def __init__(self, letter_id: int, why: str) -> None:
        self.letter_id = letter_id
        super().__init__(f"dead letter {letter_id} cannot be edited: {why}")


class RequestHasLanded(CollectOpsError, Permanent):
    """A task whose request has landed rows cannot get another request: rows of two requests would be mixed."""

    def __init__(self, task_id: int, rows: int, shards: int) -> None:
        self.task_id = task_id
        super().__init__(
            f"task {task_id} has landed {rows} rows of its present request, in {shards} shards: another request would "
            f"mix with them. Redrive it as it is, or discard it and submit the other request as a task of its own"
        )


class Selection(BaseModel):
    """Which dead letters are meant: those that match everything that is given.

    Args:
        ids: These.
        fingerprint: Of this group.
        source: Of this source.
        task_id: Of this collect task.
        redrive_id: Part of this redrive.
        text: Holding this in the error (capitals do not matter) or in the body of a message.
        since: Failed at this time or later.
        until: Failed before this time.
        state: In this state; None for what the action at hand is about.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ids: tuple[Id, ...] | None = None
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    source: Annotated[str, Field(min_length=1)] | None = None
    task_id: Id | None = None
    redrive_id: Id | None = None
    text: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    state: LetterState | None = None

    @model_validator(mode="after")
    def _storable(self) -> Self:
        for name in ("source", "text"):
            value = getattr(self, name)
            if value is not None and ("\x00" in value or not _encodes(value)):
                raise ValueError(f"{name} must not hold NUL characters or lone surrogates")
        return self

    @property
    def empty(self) -> bool:
        """Whether nothing is asked for, so that all would be meant."""
        return not self.model_dump(exclude_none=True)

    def values(self, states: tuple[LetterState, ...] | None) -> dict[str, Any]:
        """Parameters of `delivery/select_dead_ids`.

        Args:
            states: What is meant when the selection names no state; None for all.
        """
        meant = (self.state,) if self.state is not None else states
        return {
            "ids": None if self.ids is None else list(self.ids),
            "states": None if meant is None else [str(state) for state in meant],
            **{
                name: getattr(self, name)
                for name in ("fingerprint", "source", "task_id", "redrive_id", "text", "since", "until")
            },
        }


def selection_of(given: Mapping[str, Any], *, subject: str = "dead letters") -> Selection:
    """A selection from what a form, JSON or a command line gave; None and "" count as not given.

    Raises:
        ValidationFailed: With all faults.
    """
    return Selection(**_checked(Selection, given, subject))


def _checked(model: type[BaseModel], given: Mapping[str, Any], subject: str) -> dict[str, Any]:
    filled = {name: value for name, value in given.items() if value not in (None, "", [], ())}
    try:
        model.model_validate(filled)
    except pydantic.ValidationError as error:
        faults = [
            Fault(
                field=".".join(map(str, each["loc"])) or subject,
                value=each["input"] if each["loc"] else None,
                problem=each["msg"],
            )
            for each in error.errors(include_url=False)
        ]
        raise ValidationFailed(subject, faults) from error
    return filled


class Edit(BaseModel):
    """What is changed of a dead letter before it is sent again.

    Args:
        params: Of a task: values by parameter; what is not named stays, None takes a value away.
        path: Of a task: instead of its path; "" takes it back to the source's.
        priority: Of a task: 0-10.
        redeclare: Of a task: run by the source's declaration as it is now, not as it was when the task was admitted.
        body: Of a message without a task: what is sent instead.
        exchange: Of a message without a task: where it is sent.
        routing_key: Of a message without a task: with this key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    params: dict[str, Any] = Field(default_factory=dict)
    path: str | None = None
    priority: int | None = None
    redeclare: bool = False
    body: str | None = None
    exchange: Annotated[str, Field(max_length=255)] | None = None
    routing_key: Annotated[str, Field(max_length=255)] | None = None

    @property
    def of_task(self) -> bool:
        """Whether anything of a task is changed."""
        return bool(self.params or self.path is not None or self.priority is not None or self.redeclare)

    @property
    def of_message(self) -> bool:
        """Whether anything of a message is changed."""
        return self.body is not None or self.exchange is not None or self.routing_key is not None


def edit_of(given: Mapping[str, Any]) -> Edit:
    """An edit from what a form, JSON or a command line gave.

    Raises:
        ValidationFailed: With all faults.
    """
    named = {name: value for name, value in given.items() if value is not None}
    empty = {name: value for name, value in named.items() if value == ""}
    return Edit(**_checked(Edit, named, "edit"), **empty)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Dead letters of one fault.

    Args:
        letters: How many.
        sources: Of these sources; none for messages without a task.
        example_id: The newest dead letter.
        example_task_id: The newest task.
    """

    fingerprint: str
    error_class: str | None
    pattern: str
    letters: int
    first_at: datetime
    last_at: datetime
    sources: tuple[str, ...]
    example_id: int
    example_task_id: int | None
    example_message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an action did, by dead letter.

    Args:
        moved: Those that were changed.
        left: Those that stay as they are, with the reason.
    """

    moved: tuple[int, ...]
    left: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveProgress:
    """How far a redrive is, counted in dead letters.

    Args:
        rate_per_s: At most so many a second; None for no limit.
        pending: Not yet looked at.
        done: Sent again.
        skipped: Not sent, each with its reason.
        cancelled: Not sent, because the redrive was cancelled.
        taken_back: Sent, and taken back before anybody claimed them.
        settled: Of those sent: their task ended COMPLETED or PARTIAL.
        failed: Of those sent: their task ended otherwise.
    """

    id: int
    asked: Mapping[str, Any]
    rate_per_s: float | None
    reason: str
    requested_by: str
    total: int
    pending: int
    done: int
    skipped: int
    cancelled: int
    taken_back: int
    settled: int
    failed: int
    started_at: datetime
    finished_at: datetime | None
    cancelled_at: datetime | None
    cancelled_by: str | None

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.finished_at is not None

    def sentence(self) -> str:
        """For people."""
        state = "cancelled" if self.cancelled_at else "finished" if self.finished else "under way"
        rate = "" if self.rate_per_s is None else f", at most {self.rate_per_s:g} a second"
        counts = ", ".join(
            f"{getattr(self, name)} {words}"
            for name, words in (
                ("done", "sent again"), ("skipped", "skipped"), ("pending", "to go"), ("cancelled", "cancelled"),
                ("taken_back", "taken back"), ("settled", "ended well"), ("failed", "failed again"),
            )
            if getattr(self, name) or name == "done"
        )  # fmt: skip
        return f"redrive {self.id}: {state}{rate}: {counts} of {self.total}"


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
