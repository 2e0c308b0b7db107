"""Admission's statements: a batch is a handful of them, whatever its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from collect_ops.storage import Connection, Json, Jsonb, query


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A submission that is valid and has a task id kept for it."""

    index: int
    task_id: int
    request_id: str
    source: str
    source_version: bytes
    definition: dict[str, Any]
    path: str | None
    params: dict[str, Any]
    dedup_key: bytes
    dedup_ttl_s: float
    priority: int
    lane: str
    force: bool
    max_retries: int
    submitted_by: str
    submitted_via: str


def answers(connection: Connection, request_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What was answered to these request ids, and where those tasks stand now."""
    rows = connection.execute(
        query("admission/select_answers"), {"request_ids": list(request_ids)}
    ).fetchall()
    return {row["request_id"]: row for row in rows}


def holders(
    connection: Connection, dedup_keys: Sequence[bytes], *, live_only: bool
) -> dict[bytes, dict[str, Any]]:
    """Who holds these dedup keys, and where those tasks stand; `live_only` leaves out keys that are free to take."""
    rows = connection.execute(
        query("admission/select_holders"), {"keys": list(dedup_keys), "live_only": live_only}
    ).fetchall()
    return {bytes(row["key"]): row for row in rows}


def new_task_ids(connection: Connection, count: int) -> list[int]:
    """Task ids that nobody else gets."""
    rows = connection.execute(query("admission/take_task_ids"), {"count": count}).fetchall()
    return [row["id"] for row in rows]


def register(connection: Connection, request_ids: Sequence[str]) -> set[str]:
    """Take these request ids; returns those that were new. Waits for whoever is registering the same ones."""
    rows = connection.execute(
        query("admission/insert_submissions"), {"request_ids": sorted(request_ids)}
    ).fetchall()
    return {row["request_id"] for row in rows}


def take_keys(connection: Connection, candidates: Sequence[Candidate]) -> set[int]:
    """Take dedup keys, each named once; returns the ids of the tasks that got theirs."""
    ordered = sorted(candidates, key=lambda candidate: candidate.dedup_key)
    rows = connection.execute(
        query("admission/take_dedup_keys"),
        {
            "keys": [candidate.dedup_key for candidate in ordered],
            "task_ids": [candidate.task_id for candidate in ordered],
            "ttls_s": [candidate.dedup_ttl_s for candidate in ordered],
            "forced": [candidate.task_id for candidate in ordered if candidate.force],
        },
    ).fetchall()
    return {row["task_id"] for row in rows}


def insert_tasks(connection: Connection, candidates: Sequence[Candidate]) -> None:
    """Store tasks as QUEUED, generation 1."""
    versions = {candidate.source_version: candidate for candidate in candidates}
    with connection.cursor() as cursor:
        cursor.executemany(
            query("admission/insert_source_version"),
            [
                {"hash": digest, "source": candidate.source, "definition": Json(candidate.definition)}
                for digest, candidate in sorted(versions.items())
            ],
        )
    connection.execute(
        query("admission/insert_tasks"),
        {
            "ids": [c.task_id for c in candidates],
            "sources": [c.source for c in candidates],
            "source_versions": [c.source_version for c in candidates],
            "paths": [c.path for c in candidates],
            "params": [Jsonb(c.params) for c in candidates],
            "dedup_keys": [c.dedup_key for c in candidates],
            "priorities": [c.priority for c in candidates],
            "lanes": [c.lane for c in candidates],
            "max_retries": [c.max_retries for c in candidates],
            "submitted_by": [c.submitted_by for c in candidates],
            "submitted_via": [c.submitted_via for c in candidates],
        },
    )


def answer(connection: Connection, answered: Sequence[tuple[str, int, bool]]) -> None:
    """Record the first answers: (request id, task id, whether it is a duplicate)."""
    connection.execute(
        query("admission/answer_submissions"),
        {
            "request_ids": [request_id for request_id, _, _ in answered],
            "task_ids": [task_id for _, task_id, _ in answered],
            "duplicates": [duplicate for _, _, duplicate in answered],
        },
    )
