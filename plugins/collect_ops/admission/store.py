"""Admission's statements: a batch is a handful of them, whatever its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from collect_ops.sources.model import Source
from collect_ops.sources.stored import StoredDefinition
from collect_ops.storage import Connection, query


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A submission that is valid and has a task id kept for it."""

    index: int
    task_id: int
    request_id: str
    source: str
    stored: StoredDefinition
    declared: Source
    path: str | None
    params: dict[str, Any]
    dedup_key: bytes
    dedup_ttl_s: float
    priority: int
    base_priority: int
    emergency: bool
    lane: str
    force: bool
    max_retries: int
    submitted_by: str
    submitted_via: str
    deadline: datetime | None
    merge_key: bytes | None
    free_when_ended: bool


def answers(connection: Connection, request_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What was answered to these request ids, and where those tasks stand now."""
    if not request_ids:
        return {}
    rows = connection.execute(
        query("admission/select_answers"), {"request_ids": list(request_ids)}
    ).fetchall()
    return {row["request_id"]: row for row in rows}


def holders(
    connection: Connection, dedup_keys: Sequence[bytes], *, live_only: bool
) -> dict[bytes, dict[str, Any]]:
    """Who holds these dedup keys, and where those tasks stand; `live_only` leaves out keys that are free to take."""
    if not dedup_keys:
        return {}
    rows = connection.execute(
        query("admission/select_holders"), {"keys": list(dedup_keys), "live_only": live_only}
    ).fetchall()
    return {bytes(row["key"]): row for row in rows}


def definitions(connection: Connection, versions: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
    """Stored declarations with their formats, by version."""
    if not versions:
        return {}
    rows = connection.execute(
        query("execution/select_definitions"), {"versions": [version.hex() for version in versions]}
    ).fetchall()
    return {bytes.fromhex(row["version"]): row for row in rows}


def new_task_ids(connection: Connection, count: int) -> list[int]:
    """Task ids that nobody else gets."""
    rows = connection.execute(query("admission/take_task_ids"), {"count": count}).fetchall()
    return [row["id"] for row in rows]


def register(connection: Connection, wanted: Mapping[str, int]) -> set[str]:
    """Take request ids; returns those that were new. Waits for whoever is registering the same ones.

    Args:
        connection: In a transaction: the tasks must be stored, or the answers given, before it ends.
        wanted: Request ids with the tasks that they are meant to get.
    """
    ordered = sorted(wanted.items())
    rows = connection.execute(
        query("admission/insert_submissions"),
        {
            "request_ids": [request_id for request_id, _ in ordered],
            "task_ids": [task_id for _, task_id in ordered],
        },
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
            "free_when_ended": [candidate.task_id for candidate in ordered if candidate.free_when_ended],
        },
    ).fetchall()
    return {row["task_id"] for row in rows}


def insert_tasks(
    connection: Connection, candidates: Sequence[Candidate], forced_over: Mapping[int, int]
) -> None:
    """Store tasks as QUEUED, generation 1.

    Args:
        connection: In a transaction.
        candidates: The tasks.
        forced_over: Of forced ones the tasks that held their key, for the log.
    """
    definitions = {c.stored.version: c.stored for c in candidates}
    tasks = [_stored(candidate, forced_over) for candidate in candidates]
    connection.execute(
        query("admission/insert_tasks"),
        {
            "versions": _versions([definitions[version] for version in sorted(definitions)]),
            "tasks": orjson.dumps(tasks).decode(),
        },
    )


def _versions(definitions: Sequence[StoredDefinition]) -> str:
    """Declarations as the statement reads them, their texts as they are."""
    return orjson.dumps(
        [
            {
                "hash": each.version.hex(),
                "source": each.source,
                "format": each.format,
                "definition": orjson.Fragment(each.resolved),
                "declared": orjson.Fragment(each.declared),
            }
            for each in definitions
        ]
    ).decode()


def insert_definition(connection: Connection, definition: StoredDefinition) -> None:
    """Store a declaration; one that is known stays as it is."""
    connection.execute(
        query("admission/insert_source_version"),
        {
            "hash": definition.version,
            "source": definition.source,
            "resolved": definition.resolved,
            "format": definition.format,
            "declared": definition.declared,
        },
    )


def _stored(candidate: Candidate, forced_over: Mapping[int, int]) -> dict[str, Any]:
    """A task as the statement reads it: one JSON text is written and read faster than fourteen arrays."""
    return {
        "id": candidate.task_id,
        "source": candidate.source,
        "source_version": candidate.stored.version.hex(),
        "path": candidate.path,
        "params": candidate.params,
        "dedup_key": candidate.dedup_key.hex(),
        "priority": candidate.priority,
        "base_priority": candidate.base_priority,
        "emergency": candidate.emergency,
        "lane": candidate.lane,
        "max_retries": candidate.max_retries,
        "submitted_by": candidate.submitted_by,
        "submitted_via": candidate.submitted_via,
        "deadline": candidate.deadline,
        "merge_key": None if candidate.merge_key is None else candidate.merge_key.hex(),
        "reason": _forced(candidate, forced_over),
    }


def _forced(candidate: Candidate, forced_over: Mapping[int, int]) -> str | None:
    if not candidate.force:
        return None
    holder = forced_over.get(candidate.task_id)
    over = f"over task {holder}, which holds the dedup key" if holder else "though nothing held the dedup key"
    return f"forced by {candidate.submitted_by} {over}"


def refuse(connection: Connection, holders: Mapping[str, int]) -> None:
    """Record the answers to duplicates: request ids with the tasks that hold their keys."""
    if holders:
        connection.execute(
            query("admission/answer_submissions"),
            {"request_ids": list(holders), "task_ids": list(holders.values())},
        )
