"""Brakes: sources whose admission a backlog rule slows, and the answer that their callers get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from collect_ops.kernel.errors import CollectOpsError, Transient
from collect_ops.storage import Connection, query

#: Submissions of this priority and up are never slowed.
URGENT_PRIORITY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Brake:
    """A source's admission is slowed.

    Args:
        source: The source.
        rule: The rule that says so.
        reason: Why, for people.
        retry_after_s: Seconds after which a caller may try again.
        per_s: Submissions a second that are admitted all the same; None for none.
    """

    source: str
    rule: str
    reason: str
    retry_after_s: float
    per_s: float | None


class AdmissionSlowed(CollectOpsError, Transient):
    """The source has a backlog and takes no more work for now; as HTTP it is a 429 with Retry-After.

    Args:
        brake: What slows the source.
    """

    status = 429

    def __init__(self, brake: Brake) -> None:
        self.source = brake.source
        self.rule = brake.rule
        self.retry_after_s = brake.retry_after_s
        super().__init__(
            f"source {brake.source} takes no more tasks for now (rule {brake.rule}: {brake.reason}); "
            f"try again in {brake.retry_after_s:g} s, or submit with priority {URGENT_PRIORITY} or more"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """A submission, as far as brakes look at it.

    Args:
        request_id: Of the submission.
        source: Name of the source.
        priority: 0-10, that it would run at.
    """

    request_id: str
    source: str
    priority: int


def brakes(connection: Connection, sources: set[str]) -> dict[str, Brake]:
    """The brakes of some sources, by source; nearly always empty. One read by primary key."""
    if not sources:
        return {}
    rows = connection.execute(query("lanes/select_brakes"), {"sources": sorted(sources)}).fetchall()
    return {row["source"]: Brake(**row) for row in rows}


def slowed(connection: Connection, applicants: Mapping[int, Applicant]) -> dict[int, AdmissionSlowed]:
    """Which submissions of a batch are refused for now, by index.

    Urgent ones pass, and those whose request id has been answered before: they get that answer again. Of the others as
    many pass, in order, as the brake lets through.

    Args:
        connection: In autocommit: what is let through is taken from the brake at once.
        applicants: The submissions, by index.
    """
    found = brakes(connection, {a.source for a in applicants.values() if a.priority < URGENT_PRIORITY})
    braked = {
        index: applicant
        for index, applicant in applicants.items()
        if applicant.source in found and applicant.priority < URGENT_PRIORITY
    }
    if not braked:
        return {}
    ids = [applicant.request_id for applicant in braked.values()]
    rows = connection.execute(query("lanes/select_known_requests"), {"request_ids": ids}).fetchall()
    known = {row["request_id"] for row in rows}
    refused: dict[int, AdmissionSlowed] = {}
    for source, brake in found.items():
        ours = [i for i, a in braked.items() if a.source == source and a.request_id not in known]
        passing = _taken(connection, brake, len(ours))
        refused |= {index: AdmissionSlowed(brake) for index in ours[passing:]}
    return refused


def _taken(connection: Connection, brake: Brake, wanted: int) -> int:
    """Submissions that a brake lets through now."""
    if brake.per_s is None or wanted == 0:
        return 0
    values = {"source": brake.source, "wanted": wanted}
    row = connection.execute(query("lanes/take_brake_tokens"), values).fetchone()
    # No row: the brake was let go of in between.
    return int(row["taken"]) if row else wanted
