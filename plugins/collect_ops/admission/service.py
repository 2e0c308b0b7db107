"""The admission service: validate, dedup, priority, store, publish, wake."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import orjson

from collect_ops.admission import store
from collect_ops.admission.model import Admission, Submission
from collect_ops.admission.policy import dedup_key, priority_fault, priority_of, unstorable_faults
from collect_ops.broker.publisher import Publisher
from collect_ops.coordination.dedup_hints import DedupHints
from collect_ops.coordination.wakeups import Wakeups
from collect_ops.journal.trace import Stage, TraceRow, write_traces
from collect_ops.kernel.backends import Backends
from collect_ops.kernel.errors import CollectOpsError, ValidationFailed
from collect_ops.lanes.publication import Publication, publish
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import Runs, wake
from collect_ops.lanes.waking import with_room
from collect_ops.sources.load import get_source
from collect_ops.sources.model import Source
from collect_ops.sources.request import check_params, render
from collect_ops.storage import Connection, connect
from collect_ops.tasks.lifecycle import TaskStatus

log = logging.getLogger(__name__)

Answer = Admission | CollectOpsError


@dataclass(frozen=True, slots=True)
class _Stored:
    answers: dict[int, Admission]
    admitted: tuple[store.Candidate, ...]


class AdmissionService:
    """Admits submissions in batches.

    Args:
        backends: Where the services are.
        rules: Lane rules.
        runs: Where lanes are woken; None leaves that to the queue's watcher and the sweep.
        sources: How a source is found by name; raises what the caller shall see for an unknown one.
    """

    def __init__(
        self,
        backends: Backends,
        rules: LaneRules,
        runs: Runs | None,
        *,
        sources: Callable[[str], Source] = get_source,
    ) -> None:
        self._backends = backends
        self._rules = rules
        self._runs = runs
        self._sources = sources
        self._hints = DedupHints(backends.redis_url)

    def admit(self, submission: Submission) -> Admission:
        """Admit one submission.

        Raises:
            ValidationFailed: With all its faults.
            UnknownSource: There is no such source.
            DatabaseUnavailable: Nothing was admitted.
        """
        answer = self.admit_batch([submission])[0]
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
        answers: list[Answer | None] = [None] * len(submissions)
        valid: dict[int, dict[str, Any]] = {}
        for index, submission in enumerate(submissions):
            try:
                valid[index] = self._validate(submission)
            except CollectOpsError as error:
                answers[index] = error
        with connect(self._backends.postgres_dsn, application_name="collect-ops admission") as connection:
            stored = self._store(connection, valid)
            for index, admission in stored.answers.items():
                answers[index] = admission
            if stored.admitted:
                self._publish(connection, stored.admitted, admitted_s=time.perf_counter() - began)
                self._wake(connection, {candidate.lane for candidate in stored.admitted})
        return [answer for answer in answers if answer is not None]

    def _wake(self, connection: Connection, lanes: AbstractSet[str]) -> None:
        if self._runs is not None:
            ready = with_room(connection, lanes, self._rules)
            wake(ready, self._runs, Wakeups(self._backends.redis_url))

    def _validate(self, submission: Submission) -> dict[str, Any]:
        source = self._sources(submission.source)
        subject = f"submission of source {source.name}"
        fault = priority_fault(submission.priority)
        faults = (*((fault,) if fault else ()), *unstorable_faults(submission))
        try:
            params = check_params(source, submission.params)
            request = render(source, params, submission.path)
        except ValidationFailed as error:
            raise ValidationFailed(subject, (*error.faults, *faults)) from error
        if faults:
            raise ValidationFailed(subject, faults)
        definition = source.model_dump(mode="json")
        priority = priority_of(submission.priority, source)
        return {
            "request_id": submission.request_id,
            "source": source.name,
            "definition": definition,
            "source_version": hashlib.sha256(orjson.dumps(definition, option=orjson.OPT_SORT_KEYS)).digest(),
            "path": submission.path,
            "params": params,
            "dedup_key": dedup_key(source, request, submission.identity),
            "dedup_ttl_s": source.dedup.ttl_h * 3600,
            "priority": priority,
            "lane": self._rules.lane_of(priority),
            "force": submission.force,
            "max_retries": source.retries.max_retries,
            "submitted_by": submission.submitted_by,
            "submitted_via": submission.submitted_via,
        }

    def _store(self, connection: Connection, valid: Mapping[int, dict[str, Any]]) -> _Stored:
        """One transaction: request ids, dedup keys, tasks, answers."""
        if not valid:
            return _Stored({}, ())
        answers: dict[int, Admission] = {}
        hints = self._hints.read([fields["dedup_key"] for fields in valid.values() if not fields["force"]])
        with connection.transaction():
            fresh = store.register(connection, list({fields["request_id"] for fields in valid.values()}))
            ids = store.new_task_ids(connection, len(valid))
            candidates: list[store.Candidate] = []
            repeated: dict[int, str] = {}
            for (index, fields), task_id in zip(valid.items(), ids, strict=True):
                if fields["request_id"] in fresh:
                    fresh.discard(fields["request_id"])
                    candidates.append(store.Candidate(index=index, task_id=task_id, **fields))
                else:
                    repeated[index] = fields["request_id"]
            admitted, duplicates = self._divide(connection, candidates, hints)
            if admitted:
                store.insert_tasks(connection, admitted)
            held = store.holders(connection, [c.dedup_key for c in duplicates], live_only=False)
            answered = [(candidate.request_id, candidate.task_id, False) for candidate in admitted]
            for candidate in duplicates:
                holder = held[candidate.dedup_key]
                answered.append((candidate.request_id, holder["task_id"], True))
                answers[candidate.index] = _duplicate(candidate.request_id, holder)
            if answered:
                store.answer(connection, answered)
            known = store.answers(connection, list(repeated.values()))
            for index, request_id in repeated.items():
                answers[index] = _known(known[request_id])
        self._hints.write({c.dedup_key: (c.task_id, c.dedup_ttl_s) for c in admitted})
        for candidate in admitted:
            answers[candidate.index] = Admission(
                request_id=candidate.request_id,
                task_id=candidate.task_id,
                duplicate_of=None,
                status=TaskStatus.QUEUED,
                known=False,
            )
        return _Stored(answers, tuple(admitted))

    def _divide(
        self, connection: Connection, candidates: Sequence[store.Candidate], hints: Mapping[bytes, int]
    ) -> tuple[list[store.Candidate], list[store.Candidate]]:
        """Who gets a key, and who duplicates its holder. A hint counts only if PostgreSQL agrees."""
        hinted = [
            candidate for candidate in candidates if candidate.dedup_key in hints and not candidate.force
        ]
        held = store.holders(connection, [c.dedup_key for c in hinted], live_only=True) if hinted else {}
        duplicates = [candidate for candidate in hinted if candidate.dedup_key in held]
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

    def _publish(
        self, connection: Connection, admitted: Sequence[store.Candidate], *, admitted_s: float
    ) -> None:
        began = time.perf_counter()
        publications = [
            Publication(task_id=c.task_id, generation=1, priority=c.priority, lane=c.lane) for c in admitted
        ]
        with Publisher(self._backends.amqp_url) as publisher:
            confirmed = {p.task_id for p in publish(connection, publisher, self._rules, publications)}
        published_s = time.perf_counter() - began
        traces = []
        for c in admitted:
            request = {
                "source": c.source,
                "params": c.params,
                "path": c.path,
                "via": c.submitted_via,
                "by": c.submitted_by,
            }
            response = {"priority": c.priority, "lane": c.lane, "forced": c.force}
            traces.append(
                TraceRow(task_id=c.task_id, stage=Stage.ADMIT, attempt=0, duration_s=admitted_s, request=request,
                         response=response)
            )  # fmt: skip
            traces.append(
                TraceRow(task_id=c.task_id, stage=Stage.PUBLISH, attempt=0, duration_s=published_s,
                         response={"generation": 1, "confirmed": c.task_id in confirmed})
            )  # fmt: skip
        write_traces(connection, traces)
        log.info("admitted %d tasks, %d confirmed by the broker", len(admitted), len(confirmed))


def _duplicate(request_id: str, holder: Mapping[str, Any]) -> Admission:
    return Admission(
        request_id=request_id,
        task_id=holder["task_id"],
        duplicate_of=holder["task_id"],
        status=TaskStatus(holder["status"]),
        known=False,
    )


def _known(row: Mapping[str, Any]) -> Admission:
    return Admission(
        request_id=row["request_id"],
        task_id=row["task_id"],
        duplicate_of=row["task_id"] if row["duplicate"] else None,
        status=TaskStatus(row["status"]),
        known=True,
    )
