"""The admission service: validate, dedup, merge, priority, store, publish, wake."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from collect_ops.admission import store
from collect_ops.admission.gathering import Gathering
from collect_ops.admission.lines import Line, Lines
from collect_ops.admission.merging import Merged, merge_waiting
from collect_ops.admission.model import Admission, Preview, Submission
from collect_ops.admission.policy import (
    base_priority,
    dedup_key,
    merge_key,
    priority_fault,
    unreadable_faults,
    unstorable_faults,
)
from collect_ops.admission.telling import admission_traces, previews, publication_traces
from collect_ops.coordination.dedup_hints import DedupHints
from collect_ops.coordination.wakeups import Wakeups
from collect_ops.journal.trace import TraceRow, write_traces
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.beside import beside
from collect_ops.kernel.errors import CollectOpsError, Fault, ValidationFailed
from collect_ops.lanes.brakes import AdmissionSlowed, Applicant, slowed
from collect_ops.lanes.priority import PriorityRules, priority_of, priority_rules
from collect_ops.lanes.publication import Publication, publication_of, publish
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import Runs, RunsUnavailable, wake
from collect_ops.lanes.waking import with_room
from collect_ops.sources.load import get_source
from collect_ops.sources.model import Source
from collect_ops.sources.request import checked_request
from collect_ops.sources.stored import (
    NewerDefinition,
    StoredDefinition,
    UnreadableDefinition,
    dump_definition,
    load_definition,
)
from collect_ops.storage import Connection, connect, errors
from collect_ops.tasks.lifecycle import TaskStatus

log = logging.getLogger(__name__)

#: Below so many messages a thread of its own costs more than it wins.
_FEW = 100

Answer = Admission | CollectOpsError


Outcome = Preview | CollectOpsError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Declared:
    """What all submissions of a source have in common, worked out once."""

    source: Source
    stored: StoredDefinition
    formula: PriorityRules


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """What a batch's transaction did.

    Args:
        answers: By index into the batch.
        admitted: The new tasks, the merged ones included.
        merged: What became of them and of others that waited.
        duplicates: Submissions whose key somebody holds, with the holder's row.
        known: Rows of submissions that had been answered before, by index into the batch.
    """

    answers: dict[int, Admission]
    admitted: tuple[store.Candidate, ...] = ()
    merged: Merged = field(default_factory=Merged)
    duplicates: tuple[tuple[store.Candidate, Mapping[str, Any]], ...] = ()
    known: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def publications(self) -> list[Publication]:
        """What the broker has to learn: new tasks that were not merged, and survivors."""
        survivors = {row["id"] for row in self.merged.survivors}
        new = [
            Publication(task_id=c.task_id, generation=1, priority=c.priority, lane=c.lane)
            for c in self.admitted
            if c.task_id not in self.merged.into and c.task_id not in survivors
        ]
        waiting = [row for row in self.merged.survivors if row["status"] != TaskStatus.HELD]
        return [*new, *map(publication_of, waiting)]


class AdmissionService:
    """Admits submissions in batches. Safe to use from several threads.

    In a `with` block it keeps its connections from one admission to the next; a lost one is replaced.

    Args:
        backends: Where the services are.
        rules: Lane rules.
        runs: Where lanes are woken; None leaves that to the queue's watcher and the sweep.
        sources: How a source is found by name; raises what the caller shall see for an unknown one.
        claim_here: Claims from a lane in this process; whether it did. Such a lane need not be woken.
    """

    def __init__(
        self,
        backends: Backends,
        rules: LaneRules,
        runs: Runs | None,
        *,
        sources: Callable[[str], Source] = get_source,
        claim_here: Callable[[str], bool] = lambda _lane: False,
    ) -> None:
        self._backends = backends
        self._rules = rules
        self._runs = runs
        self._sources = sources
        self._claim_here = claim_here
        self._hints = DedupHints(backends.redis_url)
        self._wakeups = Wakeups(backends.redis_url)
        self._lines = Lines(backends)
        self._callers = Gathering(self.admit_batch)

    def __enter__(self) -> Self:
        """Keep connections from one admission to the next: for a process that admits again and again."""
        self._lines.keep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what is kept. The service can be used after that: it opens what it needs."""
        self._lines.close()

    def admit(self, submission: Submission) -> Admission:
        """Admit one submission; those of other threads that come meanwhile share the next commit.

        Raises:
            ValidationFailed: With all its faults.
            UnknownSource: There is no such source.
            DatabaseUnavailable: Nothing was admitted.
        """
        answer = self._callers.ask(submission)
        if isinstance(answer, CollectOpsError):
            raise answer
        return answer

    def admit_batch(self, submissions: Sequence[Submission]) -> list[Answer]:
        """Admit a batch: one transaction, one publish, one wake-up a lane.

        Returns:
            An answer a submission, in order: an `Admission`, or the error that its caller shall see. A faulty
            submission does not touch the others.
        """
        began = time.perf_counter()
        faulty, valid = self._validated(submissions)
        with self._lines.use() as line:
            refused = _slowed(line.connection, valid)
            stored = self._store(
                line.connection, {i: fields for i, fields in valid.items() if i not in refused}
            )
            if stored.admitted:
                self._publish_if_possible(line, stored, admitted_s=time.perf_counter() - began)
        answers: dict[int, Answer] = {**faulty, **refused, **stored.answers}
        return [answers[index] for index in range(len(submissions))]

    def admit_all(self, submissions: Sequence[Submission]) -> list[Admission]:
        """Admit a batch as a whole: when one of its submissions has faults, none is admitted.

        Raises:
            ValidationFailed: With the faults of all of them; fields begin with `batch.` and the number.
            CollectOpsError: None was admitted for another reason.
        """
        faulty, _ = self._validated(submissions)
        if faulty:
            raise ValidationFailed("batch", [fault for i, e in faulty.items() for fault in _numbered(i, e)])
        answers = self.admit_batch(submissions)
        refused = next((answer for answer in answers if isinstance(answer, CollectOpsError)), None)
        if refused is not None:
            raise refused
        return [answer for answer in answers if isinstance(answer, Admission)]

    def check(self, submissions: Sequence[Submission]) -> dict[int, CollectOpsError]:
        """What is wrong with submissions, by index into them; asks no service."""
        return self._validated(submissions)[0]

    def preview(self, submissions: Sequence[Submission]) -> list[Outcome]:
        """What would become of a batch: the same transaction, rolled back; nothing is published.

        Returns:
            An answer a submission, in order: a `Preview`, or the error that its caller would see.
        """
        faulty, valid = self._validated(submissions)
        with (
            connect(self._backends.postgres_dsn, application_name="collect-ops preview") as connection,
            connection.transaction(force_rollback=True),
        ):
            stored = self._store(connection, valid)
        found = previews(stored.admitted, stored.merged, stored.duplicates, stored.known)
        return [faulty.get(index) or found[index] for index in range(len(submissions))]

    def _validated(
        self, submissions: Sequence[Submission]
    ) -> tuple[dict[int, CollectOpsError], dict[int, dict[str, Any]]]:
        faulty: dict[int, CollectOpsError] = {}
        valid: dict[int, dict[str, Any]] = {}
        declared: dict[str, _Declared] = {}
        for index, submission in enumerate(submissions):
            try:
                if submission.source not in declared:
                    declared[submission.source] = _declared(self._sources(submission.source))
                valid[index] = self._validate(submission, declared[submission.source])
            except CollectOpsError as error:
                faulty[index] = error
        return faulty, valid

    def _wake(self, connection: Connection, lanes: AbstractSet[str]) -> None:
        if self._runs is None:
            return
        asleep = [lane for lane in lanes if not self._wakeups.pending(lane)]
        if asleep:
            ready = with_room(connection, asleep, self._rules, self._backends)
            wake([lane for lane in ready if not self._claim_here(lane)], self._runs, self._wakeups)

    def _validate(self, submission: Submission, declared: _Declared) -> dict[str, Any]:
        source = declared.source
        subject = f"submission of source {source.name}"
        if unreadable := unreadable_faults(submission):
            raise ValidationFailed(subject, unreadable)
        fault = priority_fault(submission.priority)
        faults = (*((fault,) if fault else ()), *unstorable_faults(submission))
        try:
            params, request = checked_request(source, submission.params, submission.path, at=submission.as_of)
        except ValidationFailed as error:
            raise ValidationFailed(subject, (*error.faults, *faults)) from error
        if faults:
            raise ValidationFailed(subject, faults)
        formula = declared.formula
        base = base_priority(submission.priority, source, formula)
        priority = priority_of(formula, base, emergency=submission.emergency, retry_count=0, waited_s=0)
        return {
            "request_id": submission.request_id,
            "source": source.name,
            "declared": source,
            "stored": declared.stored,
            "path": submission.path,
            "params": params,
            "dedup_key": dedup_key(source, request, submission.identity),
            "dedup_ttl_s": source.dedup.ttl_h * 3600,
            "priority": priority,
            "base_priority": base,
            "emergency": submission.emergency,
            "lane": self._rules.lane_of(priority),
            "force": submission.force,
            "max_retries": source.retries.max_retries,
            "submitted_by": submission.submitted_by,
            "submitted_via": submission.submitted_via,
            "deadline": submission.deadline,
            "merge_key": merge_key(source, declared.stored.version, params, submission.path),
            "free_when_ended": source.dedup.while_ == "active",
        }

    def _store(self, connection: Connection, valid: Mapping[int, dict[str, Any]]) -> _Stored:
        """One transaction: request ids, dedup keys, tasks, merges, answers."""
        if not valid:
            return _Stored(answers={})
        hints = self._hints.read([fields["dedup_key"] for fields in valid.values() if not fields["force"]])
        with connection.transaction():
            candidates, repeated = _registered(connection, valid)
            forced_over = _forced_over(connection, candidates)
            admitted, duplicates = self._divide(connection, candidates, hints)
            if admitted:
                store.insert_tasks(connection, admitted, forced_over)
            merged = self._merge(connection, admitted)
            held = store.holders(connection, [c.dedup_key for c in duplicates], live_only=False)
            refused = _with_changes(connection, [(c, held[c.dedup_key]) for c in duplicates])
            store.refuse(connection, {c.request_id: holder["task_id"] for c, holder in refused})
            rows = store.answers(connection, list(repeated.values()))
        known = {index: rows[request_id] for index, request_id in repeated.items()}
        answers = {
            **{c.index: _admission(c, merged.into.get(c.task_id), forced_over) for c in admitted},
            **{candidate.index: _duplicate(candidate.request_id, holder) for candidate, holder in refused},
            **{index: _known(row) for index, row in known.items()},
        }
        return _Stored(
            answers=answers, admitted=tuple(admitted), merged=merged, duplicates=refused, known=known
        )

    def _merge(self, connection: Connection, admitted: Sequence[store.Candidate]) -> Merged:
        sources = {c.merge_key: c.declared for c in admitted if c.merge_key is not None}
        return merge_waiting(connection, self._rules, sources, actor="collect-ops admission")

    def _divide(
        self, connection: Connection, candidates: Sequence[store.Candidate], hints: Mapping[bytes, int]
    ) -> tuple[list[store.Candidate], list[store.Candidate]]:
        """Who gets a key, and who duplicates its holder. A hint counts only if PostgreSQL agrees."""
        hinted = [
            candidate for candidate in candidates if candidate.dedup_key in hints and not candidate.force
        ]
        held = store.holders(connection, [c.dedup_key for c in hinted], live_only=True) if hinted else {}
        duplicates = [
            candidate
            for candidate in hinted
            if candidate.dedup_key in held
            and not (candidate.free_when_ended and TaskStatus(held[candidate.dedup_key]["status"]).final)
        ]
        known = {candidate.task_id for candidate in duplicates}
        wanting: dict[bytes, store.Candidate] = {}
        for candidate in candidates:
            if candidate.task_id in known:
                continue
            # Of equals in a batch the first gets the key; of forced ones each is admitted and the last keeps it.
            rival = wanting.get(candidate.dedup_key)
            if rival is None or candidate.force:
                wanting[candidate.dedup_key] = candidate
        got = store.take_keys(connection, list(wanting.values())) if wanting else set()
        admitted = [c for c in candidates if c.task_id not in known and (c.task_id in got or c.force)]
        admitted_ids = {candidate.task_id for candidate in admitted}
        return admitted, [candidate for candidate in candidates if candidate.task_id not in admitted_ids]

    def _publish_if_possible(self, line: Line, stored: _Stored, *, admitted_s: float) -> None:
        """It is committed: what fails now is the outbox's to publish, and no reason to tell the callers otherwise."""
        try:
            self._publish(line, stored, admitted_s=admitted_s)
        except (errors.OperationalError, errors.InterfaceError, RunsUnavailable) as error:
            log.error(
                "%d tasks admitted and not all published, the sweep will: %s", len(stored.admitted), error
            )
            line.connection.close()

    def _publish(self, line: Line, stored: _Stored, *, admitted_s: float) -> None:
        """What follows the commit: hints, messages, traces."""
        publications = stored.publications
        admissions = admission_traces(stored.admitted, stored.merged, admitted_s=admitted_s)
        began = time.perf_counter()
        if len(publications) < _FEW:
            # What is left to tell PostgreSQL takes one round trip.
            with line.connection.pipeline():
                confirmed = publish(line.connection, line.publisher, self._rules, publications)
                published_s = time.perf_counter() - began
                published = publication_traces(publications, confirmed, published_s=published_s)
                write_traces(line.connection, [*admissions, *published])
                self._remember(stored)
        else:
            # Here the time goes into waiting for the broker.
            with beside(lambda: self._note(line.connection, stored, admissions)):
                confirmed = publish(line.connection, line.publisher, self._rules, publications)
                published_s = time.perf_counter() - began
            write_traces(
                line.connection, publication_traces(publications, confirmed, published_s=published_s)
            )
        log.info(
            "admitted %d tasks, %d of them merged; %d of %d messages confirmed by the broker",
            len(stored.admitted), len(stored.merged.into), len(confirmed), len(publications),
        )  # fmt: skip
        self._wake(line.connection, {publication.lane for publication in publications})

    def _note(self, connection: Connection, stored: _Stored, traces: Sequence[TraceRow]) -> None:
        self._remember(stored)
        write_traces(connection, traces)

    def _remember(self, stored: _Stored) -> None:
        priorities = {c.task_id: c.priority for c in stored.admitted}
        priorities |= {row["id"]: row["priority"] for row in stored.merged.survivors}
        self._hints.write({c.dedup_key: (c.task_id, c.dedup_ttl_s) for c in stored.admitted}, priorities)


def _slowed(connection: Connection, valid: Mapping[int, dict[str, Any]]) -> dict[int, AdmissionSlowed]:
    """Submissions that a backlog rule refuses for now, by index."""
    applicants = {
        index: Applicant(
            request_id=fields["request_id"], source=fields["source"], priority=fields["priority"]
        )
        for index, fields in valid.items()
    }
    return slowed(connection, applicants)


def _with_changes(
    connection: Connection, duplicates: Sequence[tuple[store.Candidate, Mapping[str, Any]]]
) -> tuple[tuple[store.Candidate, Mapping[str, Any]], ...]:
    """Duplicates with their holders' rows, which say whether the holder was admitted with another declaration."""
    differing = {
        (bytes(holder["source_version"]), c.stored.version): c.declared
        for c, holder in duplicates
        if bytes(holder["source_version"]) != c.stored.version
    }
    stored = store.definitions(connection, sorted({held for held, _ in differing}))
    changed = {pair for pair, now in differing.items() if not _declares(stored.get(pair[0]), now)}
    return tuple(
        (c, {**holder, "declaration_changed": (bytes(holder["source_version"]), c.stored.version) in changed})
        for c, holder in duplicates
    )


def _declares(row: Mapping[str, Any] | None, source: Source) -> bool:
    """Whether a stored definition says what a source says now; it may be written otherwise, and have other defaults."""
    if row is None:
        return False
    try:
        return load_definition(row["version"], row["format"], row["definition"]) == source
    except (NewerDefinition, UnreadableDefinition):
        return False


def _numbered(index: int, error: CollectOpsError) -> list[Fault]:
    if not isinstance(error, ValidationFailed):
        return [Fault(field=f"batch.{index}", value=None, problem=str(error))]
    return [replace(fault, field=f"batch.{index}.{fault.field}") for fault in error.faults]


def _declared(source: Source) -> _Declared:
    formula = priority_rules().for_source(source.priority_formula)
    return _Declared(source=source, stored=dump_definition(source), formula=formula)


def _registered(
    connection: Connection, valid: Mapping[int, dict[str, Any]]
) -> tuple[list[store.Candidate], dict[int, str]]:
    """Submissions whose request id is new, and the request ids of the others, by index."""
    ids = store.new_task_ids(connection, len(valid))
    wanted: dict[str, int] = {}
    for fields, task_id in zip(valid.values(), ids, strict=True):
        wanted.setdefault(fields["request_id"], task_id)
    fresh = store.register(connection, wanted)
    candidates: list[store.Candidate] = []
    repeated: dict[int, str] = {}
    for (index, fields), task_id in zip(valid.items(), ids, strict=True):
        if fields["request_id"] in fresh:
            fresh.discard(fields["request_id"])
            candidates.append(store.Candidate(index=index, task_id=task_id, **fields))
        else:
            repeated[index] = fields["request_id"]
    return candidates, repeated


def _forced_over(connection: Connection, candidates: Sequence[store.Candidate]) -> dict[int, int]:
    """Of forced submissions the tasks that hold their key now."""
    forced = [candidate for candidate in candidates if candidate.force]
    if not forced:
        return {}
    held = store.holders(connection, [candidate.dedup_key for candidate in forced], live_only=True)
    return {c.task_id: held[c.dedup_key]["task_id"] for c in forced if c.dedup_key in held}


def _admission(
    candidate: store.Candidate, merged_into: int | None, forced_over: Mapping[int, int]
) -> Admission:
    return Admission(
        request_id=candidate.request_id,
        task_id=candidate.task_id,
        duplicate_of=None,
        merged_into=merged_into,
        forced_over=forced_over.get(candidate.task_id),
        status=TaskStatus.QUEUED if merged_into is None else TaskStatus.MERGED,
        known=False,
    )


def _duplicate(request_id: str, holder: Mapping[str, Any]) -> Admission:
    return Admission(
        request_id=request_id,
        task_id=holder["task_id"],
        duplicate_of=holder["task_id"],
        declaration_changed=holder["declaration_changed"],
        status=TaskStatus(holder["status"]),
        known=False,
    )


def _known(row: Mapping[str, Any]) -> Admission:
    return Admission(
        request_id=row["request_id"],
        task_id=row["task_id"],
        duplicate_of=row["task_id"] if row["duplicate"] else None,
        merged_into=None if row["duplicate"] else row["merged_into"],
        status=TaskStatus(row["status"]),
        known=True,
    )
