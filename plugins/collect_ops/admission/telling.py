"""What is told of an admission: trace rows, and the answers of a dry run. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collect_ops.admission.merging import Merged
from collect_ops.admission.model import Preview
from collect_ops.admission.store import Candidate
from collect_ops.journal.trace import Stage, TraceRow
from collect_ops.lanes.publication import Publication
from collect_ops.tasks.lifecycle import TaskStatus


def admission_traces(admitted: Sequence[Candidate], merged: Merged, *, admitted_s: float) -> list[TraceRow]:
    """A row for the admission of each task.

    Args:
        admitted: The new tasks.
        merged: What became of them.
        admitted_s: Seconds that the admission of the batch took.
    """
    return [
        TraceRow(
            task_id=c.task_id,
            stage=Stage.ADMIT,
            attempt=0,
            duration_s=admitted_s,
            request={
                "source": c.source,
                "params": c.params,
                "path": c.path,
                "via": c.submitted_via,
                "by": c.submitted_by,
            },
            response={
                "priority": c.priority,
                "lane": c.lane,
                "forced": c.force,
                "merged_into": merged.into.get(c.task_id),
            },
        )
        for c in admitted
    ]


def publication_traces(
    published: Sequence[Publication], confirmed: Sequence[Publication], *, published_s: float
) -> list[TraceRow]:
    """A row for the publication of each task that was published.

    Args:
        published: What was sent.
        confirmed: What of it the broker has confirmed.
        published_s: Seconds that publishing the batch took.
    """
    known = {publication.task_id for publication in confirmed}
    return [
        TraceRow(
            task_id=publication.task_id,
            stage=Stage.PUBLISH,
            attempt=0,
            duration_s=published_s,
            response={"generation": publication.generation, "confirmed": publication.task_id in known},
        )
        for publication in published
    ]


def previews(
    admitted: Sequence[Candidate],
    merged: Merged,
    duplicates: Sequence[tuple[Candidate, Mapping[str, Any]]],
    known: Mapping[int, Mapping[str, Any]],
) -> dict[int, Preview]:
    """The answers of a dry run, by index into its batch.

    Args:
        admitted: Tasks that would be new. Their ids are given back, so they are not shown.
        merged: What would become of them.
        duplicates: Submissions that would be refused, with the row of the task that holds their key.
        known: Rows of submissions that were answered before.
    """
    new = {candidate.task_id: candidate for candidate in admitted}
    survivors = {row["id"]: row for row in merged.survivors}
    found = {c.index: _admitted(c, merged, survivors, new) for c in admitted}
    for candidate, holder in duplicates:
        found[candidate.index] = _duplicate(candidate, holder, new)
    for index, row in known.items():
        found[index] = Preview(
            request_id=row["request_id"],
            decision="known",
            duplicate_of=row["task_id"],
            status=TaskStatus(row["status"]),
            priority=row["priority"],
            lane=row["lane"],
            params=row["params"],
        )
    return found


def _admitted(
    candidate: Candidate,
    merged: Merged,
    survivors: Mapping[int, Mapping[str, Any]],
    new: Mapping[int, Candidate],
) -> Preview:
    into = merged.into.get(candidate.task_id)
    rival = None if into is None else new.get(into)
    work = survivors.get(candidate.task_id if into is None else into)
    row: Mapping[str, Any] = (
        {
            "priority": candidate.priority,
            "lane": candidate.lane,
            "params": candidate.params,
            "status": TaskStatus.QUEUED,
        }
        if work is None
        else work
    )
    return Preview(
        request_id=candidate.request_id,
        decision="admitted" if into is None else "merged",
        merged_into=into if rival is None else None,
        with_request=None if rival is None else rival.request_id,
        status=TaskStatus(row["status"]),
        priority=row["priority"],
        lane=row["lane"],
        params=row["params"],
    )


def _duplicate(candidate: Candidate, holder: Mapping[str, Any], new: Mapping[int, Candidate]) -> Preview:
    rival = new.get(holder["task_id"])
    return Preview(
        request_id=candidate.request_id,
        decision="duplicate",
        duplicate_of=None if rival else holder["task_id"],
        declaration_changed=holder["declaration_changed"],
        with_request=rival.request_id if rival else None,
        status=TaskStatus(holder["status"]),
        priority=holder["priority"],
        lane=holder["lane"],
        params=holder["params"],
    )
