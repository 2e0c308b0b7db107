"""What is submitted, and what the caller gets back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from collect_ops.tasks.lifecycle import TaskStatus

PRIORITY_RANGE = "0 to 10"


class Submission(BaseModel):
    """A request to collect: a source, its parameters and its path overridden at most.

    Args:
        source: Name of the source.
        params: Values for the parameters that the source declares.
        path: Instead of the source's path, relative to its connection.
        priority: 0-10; None takes the source's.
        force: Admit even when an equal task holds the dedup key.
        request_id: Who asked, once; the same id gets the same answer.
        submitted_by: A person or a system, for the log.
        submitted_via: The way in (`dag`, `operator`, `schedule`, `cli`, `amqp`).
        identity: What makes this submission another one beside its request, such as a data interval.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    params: Mapping[str, Any] = Field(default_factory=dict)
    path: str | None = None
    priority: int | None = None
    force: bool = False
    request_id: Annotated[str, Field(min_length=1, max_length=500)]
    submitted_by: str
    submitted_via: str
    identity: Mapping[str, Any] = Field(default_factory=dict)


class Admission(BaseModel):
    """The answer to a submission.

    Args:
        request_id: Of the submission.
        task_id: The task that does the work: a new one, or the one this submission duplicates.
        duplicate_of: The task that holds the dedup key, None when a new task was admitted.
        status: Where the task stands.
        known: This request id had been answered before.
    """

    model_config = ConfigDict(frozen=True)

    request_id: str
    task_id: int
    duplicate_of: int | None
    status: TaskStatus
    known: bool

    def sentence(self) -> str:
        """The answer for people."""
        if self.duplicate_of is not None:
            return f"duplicate of task {self.duplicate_of}, now {self.status}"
        return f"task {self.task_id} admitted, now {self.status}"
