"""A file of params submitted: every line is checked before the first is admitted.

The request id of a line is made of the file's SHA-256, what is submitted with it, and the line's number. So a
submission that was cut off is gone on with by submitting the file again: what had been admitted is known. A block is
one transaction: a file of one block is admitted as a whole or not at all, whatever dies meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from collect_ops.admission.model import Admission, Preview, Submission
from collect_ops.admission.params_file import Format, Line, read_lines
from collect_ops.admission.policy import priority_fault
from collect_ops.admission.service import AdmissionService
from collect_ops.kernel.errors import CollectOpsError, Fault, Transient, ValidationFailed
from collect_ops.lanes.brakes import AdmissionSlowed
from collect_ops.sources.load import UnknownSource
from collect_ops.storage import errors

if TYPE_CHECKING:
    from io import BufferedReader

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Lines of one transaction.
BLOCK = 10_000
#: Lines checked between two reports.
CHECK_BLOCK = 1_000
#: Seconds between two tries at services that are away.
_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is submitted with each line.

    Args:
        source: Name of the source.
        format: Of the file.
        submitted_by: A person or a system, for the log.
        submitted_via: The way in.
        tabs: Whether a CSV file's cells are separated by tabs.
        params: Values that all lines have in common; a line may have others.
        path: Instead of the source's path.
        priority: 0-10; None takes the source's.
        emergency: Whether they are.
        force: Admit even when an equal task holds the dedup key.
        deadline: When the rows are needed at the latest.
        name: Told apart by it, the same file is submitted once more, and its lines' request ids begin with it; None:
            once for good.
    """

    source: str
    format: Format
    submitted_by: str
    submitted_via: str
    tabs: bool = False
    params: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None
    priority: int | None = None
    emergency: bool = False
    force: bool = False
    deadline: datetime | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that is not admitted, and why."""

    line: int
    raw: str
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the first pass found.

    Args:
        lines: Lines with params, the bad ones included.
        bad: Of them those with faults.
        request_prefix: What the request ids of the lines begin with.
    """

    lines: int
    bad: int
    request_prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkProgress:
    """How far a pass is.

    Args:
        phase: `check` or `admit`.
        lines: Lines done.
        share: 0-1 of the whole.
        waiting_for: Why it waits, None while it works.
    """

    phase: str
    lines: int
    share: float
    waiting_for: str | None = None


class BulkRefused(ValidationFailed):
    """Some lines have faults, and nothing was admitted."""

    def __init__(self, checked: Checked, first: Sequence[BadLine]) -> None:
        self.checked = checked
        faults = [
            replace(fault, field=f"line {bad.line}: {fault.field}") for bad in first for fault in bad.faults
        ]
        super().__init__(f"{checked.bad:,} of {checked.lines:,} lines are bad, nothing was admitted", faults)


class BulkStopped(CollectOpsError, Transient):
    """A service was away, or the source's admission slowed, for longer than the caller's patience."""

    def __init__(self, done: int, lines: int, error: Exception) -> None:
        self.done = done
        super().__init__(
            f"stopped after {done:,} of {lines:,} lines: {error}; submitting the file again goes on from there"
        )


class FileChanged(CollectOpsError, Transient):
    """The file was written to while it was read."""

    def __init__(self, done: int) -> None:
        super().__init__(f"the file has changed while it was read, after {done:,} lines were admitted")


Tell = Callable[[BulkProgress], None]
OnBad = Callable[[BadLine], None]
OnAnswer = Callable[[int, Admission | Preview], None]


class BulkAdmission:
    """Submits files of params.

    Args:
        service: Where they are admitted.
        tell: Called as the passes go on.
        on_bad: Called for each bad line of the first pass.
        on_answer: Called for each line that was answered.
        patience_s: How long services may be away, or the source's admission slowed, before it stops.
    """

    def __init__(
        self,
        service: AdmissionService,
        *,
        tell: Tell | None = None,
        on_bad: OnBad | None = None,
        on_answer: OnAnswer | None = None,
        patience_s: float = 600.0,
    ) -> None:
        self._service = service
        self._tell: Tell = tell or (lambda _: None)
        self._on_bad: OnBad = on_bad or (lambda _: None)
        self._on_answer: OnAnswer = on_answer or (lambda _line, _answer: None)
        self._patience_s = patience_s

    def submit(self, file: BinaryIO, job: Job, *, skip_bad: bool = False) -> tuple[Checked, Counter[str]]:
        """Check all lines, then admit them.

        Args:
            file: Seekable; read three times.
            job: What is submitted with each line.
            skip_bad: Admit the good lines though others are bad.

        Returns:
            What the check found, and how many lines were `admitted`, `merged`, `duplicate` or `known`.

        Raises:
            BulkRefused: Some lines are bad, and nothing was admitted.
            ValidationFailed: The header, or what is submitted with each line, cannot be used.
            UnknownSource: There is no such source.
            BulkStopped: A service was away for too long.
            FileChanged: The file was written to meanwhile.
        """
        before = _stamp(file)
        checked = self._check(file, job, skip_bad=skip_bad)
        return checked, self._admit(file, job, checked, before)

    def preview(self, file: BinaryIO, job: Job, *, skip_bad: bool = False) -> tuple[Checked, Counter[str]]:
        """What would become of a file; nothing is changed. Blocks do not see what others would have admitted.

        Returns:
            What the check found, and how many lines would be `admitted`, `merged`, `duplicate` or `known`.

        Raises:
            As `submit`.
        """
        checked = self._check(file, job, skip_bad=skip_bad)
        counts: Counter[str] = Counter()
        for done, block in self._blocks(file, job, checked):
            for (line, _), answer in zip(block, self._service.preview([s for _, s in block]), strict=True):
                if isinstance(answer, CollectOpsError):
                    continue  # told of by the check
                counts[answer.decision] += 1
                if answer.declaration_changed:
                    counts["declaration_changed"] += 1
                self._on_answer(line.number, answer)
            self._report("admit", done, checked)
        return checked, counts

    def _check(self, file: BinaryIO, job: Job, *, skip_bad: bool) -> Checked:
        if fault := priority_fault(job.priority):
            raise ValidationFailed("submission", [fault])
        prefix = _request_prefix(file, job)
        size = max(1, os.fstat(file.fileno()).st_size)
        lines, bad = 0, 0
        first: list[BadLine] = []
        for block in _in_blocks(read_lines(file, job.format, tabs=job.tabs), CHECK_BLOCK):
            readable = [line for line in block if not line.faults]
            faulty = self._service.check([_submission(job, prefix, line) for line in readable])
            for error in faulty.values():
                if isinstance(error, UnknownSource):
                    raise error
            faults = {readable[index].number: _faults(error) for index, error in faulty.items()}
            for line in block:
                if found := line.faults or faults.get(line.number):
                    bad_line = BadLine(line=line.number, raw=line.raw, faults=found)
                    first = [*first, bad_line][:5]
                    bad += line.spans
                    self._on_bad(bad_line)
                lines += line.spans
            self._tell(BulkProgress(phase="check", lines=lines, share=min(1.0, file.tell() / size)))
        checked = Checked(lines=lines, bad=bad, request_prefix=prefix)
        if bad and not skip_bad:
            raise BulkRefused(checked, first)
        return checked

    def _admit(self, file: BinaryIO, job: Job, checked: Checked, before: object) -> Counter[str]:
        counts: Counter[str] = Counter()
        started = 0
        for done, block in self._blocks(file, job, checked):
            if _stamp(file) != before:
                raise FileChanged(started)
            for (line, _), answer in zip(block, self._answers(block, started, checked), strict=True):
                if isinstance(answer, Admission):
                    counts[_outcome(answer)] += 1
                    if answer.declaration_changed:
                        counts["declaration_changed"] += 1
                    self._on_answer(line.number, answer)
            started = done
            self._report("admit", done, checked)
        return counts

    def _blocks(
        self, file: BinaryIO, job: Job, checked: Checked
    ) -> Iterator[tuple[int, list[tuple[Line, Submission]]]]:
        done = 0
        for block in _in_blocks(read_lines(file, job.format, tabs=job.tabs), BLOCK):
            done += sum(line.spans for line in block)
            yield (
                done,
                [(line, _submission(job, checked.request_prefix, line)) for line in block if not line.faults],
            )

    def _answers(
        self, block: Sequence[tuple[Line, Submission]], done: int, checked: Checked
    ) -> list[Admission | CollectOpsError]:
        """The answers of a block; a bad line, which the check has told of, has its error."""
        answers: dict[int, Admission | CollectOpsError] = {}
        waiting = dict(enumerate(submission for _, submission in block))
        until = time.monotonic() + self._patience_s
        while waiting:
            trouble: Exception | None = None
            try:
                given = self._service.admit_batch(list(waiting.values()))
            except (errors.OperationalError, errors.InterfaceError, CollectOpsError) as error:
                if isinstance(error, CollectOpsError) and not isinstance(error, Transient):
                    raise
                trouble, pause_s = error, _PAUSE_S
            else:
                found = dict(zip(waiting, given, strict=True))
                answers |= {i: each for i, each in found.items() if not isinstance(each, AdmissionSlowed)}
                slowed = [each for each in given if isinstance(each, AdmissionSlowed)]
                if slowed:
                    trouble, pause_s = slowed[0], slowed[0].retry_after_s
                    until = until if len(slowed) == len(waiting) else time.monotonic() + self._patience_s
            waiting = {index: each for index, each in waiting.items() if index not in answers}
            if trouble is not None:
                if time.monotonic() + pause_s > until:
                    raise BulkStopped(done + len(answers), checked.lines, trouble) from trouble
                self._report("admit", done + len(answers), checked, waiting_for=str(trouble))
                time.sleep(pause_s)
        return [answers[index] for index in range(len(block))]

    def _report(self, phase: str, done: int, checked: Checked, waiting_for: str | None = None) -> None:
        share = done / checked.lines if checked.lines else 1.0
        self._tell(BulkProgress(phase=phase, lines=done, share=share, waiting_for=waiting_for))


def _submission(job: Job, prefix: str, line: Line) -> Submission:
    return Submission(
        source=job.source,
        params={**job.params, **line.params},
        path=job.path,
        priority=job.priority,
        emergency=job.emergency,
        force=job.force,
        request_id=f"{prefix}:{line.number}",
        submitted_by=job.submitted_by,
        submitted_via=job.submitted_via,
        deadline=job.deadline,
    )


def _request_prefix(file: BinaryIO, job: Job) -> str:
    file.seek(0)
    content = hashlib.file_digest(cast("BufferedReader", file), "sha256")
    deadline = None if job.deadline is None else job.deadline.isoformat()
    beside = [
        job.source,
        dict(job.params),
        job.path,
        job.priority,
        job.emergency,
        job.force,
        deadline,
        job.name,
    ]
    # ASCII, whatever a command line holds; what cannot be stored is a fault of each line.
    content.update(json.dumps(beside, sort_keys=True, default=str).encode())
    if job.name is None:
        return f"file:{content.hexdigest()[:32]}"
    # What the caller named stands in front: it is what they look for.
    return f"{job.name}:{content.hexdigest()[:12]}"


def _stamp(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _faults(error: CollectOpsError) -> tuple[Fault, ...]:
    if isinstance(error, ValidationFailed):
        return error.faults
    return (Fault(field="line", value=None, problem=str(error)),)


def _outcome(answer: Admission) -> str:
    if answer.known:
        return "known"
    if answer.duplicate_of is not None:
        return "duplicate"
    return "merged" if answer.merged_into is not None else "admitted"


def _in_blocks(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while block := list(islice(items, size)):
        yield block
