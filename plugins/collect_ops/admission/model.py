"""What is submitted, and what the caller gets back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from collect_ops.tasks.lifecycle import TaskStatus


class Submission(BaseModel):
    """A request to collect: a source, its parameters and its path overridden at most.

    Args:
        source: Name of the source.
        params: Values for the parameters that the source declares.
        path: Instead of the source's path, relative to its connection.
        priority: 0-10; None takes the source's.
        emergency: Whether it is one: raises the priority by what the rules say.
        force: Admit even when an equal task holds the dedup key.
        request_id: Who asked, once; the same id gets the same answer.
        submitted_by: A person or a system, for the log.
        submitted_via: The way in (`dag`, `operator`, `schedule`, `cli`, `amqp`).
        identity: What makes this submission another one beside its request, such as a data interval.
        deadline: When the caller needs the rows at the latest, with an offset from UTC.
        as_of: What relative defaults of parameters count from; None for the time of admission.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    params: Mapping[str, Any] = Field(default_factory=dict)
    path: str | None = None
    priority: int | None = None
    emergency: bool = False
    force: bool = False
    request_id: Annotated[str, Field(min_length=1, max_length=500)]
    submitted_by: str
    submitted_via: str
    identity: Mapping[str, Any] = Field(default_factory=dict)
    deadline: AwareDatetime | None = None
    as_of: AwareDatetime | None = None


class Admission(BaseModel):
    """The answer to a submission.

    Args:
        request_id: Of the submission.
        task_id: The caller's task: a new one, or the one this submission duplicates.
        duplicate_of: The task that holds the dedup key, None when a new task was admitted.
        merged_into: The task that does the work, when the new one was merged into it.
        forced_over: The task that held the dedup key, when the submission was forced.
        declaration_changed: Of a duplicate: its source has been declared otherwise since that task was admitted.
        status: Where the task stands.
        known: This request id had been answered before.
    """

    model_config = ConfigDict(frozen=True)

    request_id: str
    task_id: int
    duplicate_of: int | None
    merged_into: int | None = None
    forced_over: int | None = None
    declaration_changed: bool = False
    status: TaskStatus
    known: bool

    def sentence(self) -> str:
        """The answer for people."""
        if self.duplicate_of is not None:
            return _duplicate_of(self.duplicate_of, self.status, changed=self.declaration_changed)
        if self.merged_into is not None:
            return f"task {self.task_id} admitted, merged into task {self.merged_into}"
        if self.forced_over is not None:
            return f"task {self.task_id} admitted, now {self.status}; forced over task {self.forced_over}"
        return f"task {self.task_id} admitted, now {self.status}"


def _duplicate_of(task_id: int, status: TaskStatus, *, changed: bool) -> str:
    since = "; its source's declaration has changed since that task was admitted" if changed else ""
    return f"duplicate of task {task_id}, now {status}{since}; --force (force: true) collects again"


class Preview(BaseModel):
    """What would become of a submission: the answer of a dry run, which changes nothing.

    Args:
        request_id: Of the submission.
        decision: What would be done with it.
        duplicate_of: The task that it duplicates, when that exists already.
        merged_into: The task that it would be merged into, when that exists already.
        declaration_changed: Of a duplicate: its source has been declared otherwise since that task was admitted.
        with_request: The submission of the same dry run that it would duplicate, or be merged into.
        status: Where the task stands that it duplicates or would be merged into.
        priority: 0-10, that it would run at; of the task that does the work.
        lane: The lane of that priority.
        params: What would be asked for; of the task that does the work.
    """

    model_config = ConfigDict(frozen=True)

    request_id: str
    decision: Literal["known", "duplicate", "merged", "admitted"]
    duplicate_of: int | None = None
    merged_into: int | None = None
    declaration_changed: bool = False
    with_request: str | None = None
    status: TaskStatus
    priority: int
    lane: str
    params: Mapping[str, Any]

    def sentence(self) -> str:
        """The answer for people."""
        other = self.duplicate_of or self.merged_into
        whom = f"task {other}, now {self.status}" if other else f"submission {self.with_request}"
        if self.decision == "known":
            return f"was answered before: task {other}, now {self.status}"
        if self.decision == "duplicate" and self.duplicate_of is not None:
            told = _duplicate_of(self.duplicate_of, self.status, changed=self.declaration_changed)
            return f"would be refused as a {told}"
        if self.decision == "duplicate":
            return f"would be refused as a duplicate of {whom}"
        if self.decision == "merged":
            return f"would be merged into {whom}, at priority {self.priority}, lane {self.lane}"
        return f"would be admitted at priority {self.priority}, lane {self.lane}"
