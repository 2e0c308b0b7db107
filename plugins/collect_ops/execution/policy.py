"""Decisions of execution: how a total becomes shards and groups, what an attempt came to, when to retry. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from collect_ops.kernel.errors import CollectOpsError, Permanent
from collect_ops.lanes.rules import RetryRule
from collect_ops.sources.model import Source
from collect_ops.sources.paging_rules import can_be_split
from collect_ops.tasks.lifecycle import TaskStatus

#: An attempt that ended by no fault of its own (killed process, lost node) does not count as a retry; this many in all.
MAX_LOST = 10
#: Seconds before an attempt that is lost for the second, third, … time runs again: doubling up to this.
MAX_LOST_DELAY_S = 32.0


#: Seconds before an attempt that met an outage of our own runs again, and up to as many again.
OUTAGE_DELAY_S = 30.0


#: Shards of a task at most: each is a row, and all of them pass through the memory of the planning process.
MAX_SHARDS = 100_000


class TooManyShards(CollectOpsError, Permanent):
    """What a source has named or declared would make more shards than a task may have.

    Args:
        source: Its name.
        made_of: What it asks for, as the predicate of a sentence.
        remedy: What can be done about it.
    """

    def __init__(self, source: str, made_of: str, remedy: str) -> None:
        super().__init__(f"source {source} {made_of}; a task may have {MAX_SHARDS} shards: {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSpan:
    """A shard's range of rows; size None streams to the end.

    Args:
        params: What it asks for beside its task's parameters, None for nothing.
        label: What it asks for, for people; empty where its rows say so.
        units: Keys that it asks for, None where it is measured by its rows.
    """

    number: int
    offset: int
    size: int | None
    params: Mapping[str, Any] | None = None
    label: str = ""
    units: int | None = None


def split(
    source: Source, total: int | None, size: int | None = None, *, open_end: bool = False
) -> list[ShardSpan]:
    """The shards of a task: `ceil(total / size)` where the paging can be split by arithmetic, else one.

    Args:
        source: Its paging and batch size.
        total: Rows that the source has named, None when it has not.
        size: Rows of a shard; the source's batch size when not given. Shards begin with a page: there are servers that
            know no other places.
        open_end: There may be more rows than the total: the last shard goes on until there are none.

    Raises:
        TooManyShards: More than `MAX_SHARDS`.
    """
    if total is None or not can_be_split(source) or (open_end and total == 0):
        return [ShardSpan(number=0, offset=0, size=None)]
    page = source.page_size or source.batch_size
    size = max(page, (size or source.batch_size) // page * page)
    if total > MAX_SHARDS * size:
        raise TooManyShards(
            source.name,
            f"names {total:.4g} rows, which are {total / size:.4g} shards of {size} rows",
            "raise batch_size, or see whether the total is one",
        )
    shards = [
        ShardSpan(number=number, offset=number * size, size=min(size, total - number * size))
        for number in range(math.ceil(total / size))
    ]
    return [*shards[:-1], replace(shards[-1], size=None)] if open_end else shards


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGroup:
    """Shards that one mapped task instance runs, and its share of what the host bears."""

    number: int
    shards: tuple[ShardSpan, ...]
    label: str
    concurrency: int
    requests_per_s: float | None


def group(source: Source, shards: Sequence[ShardSpan], width: int) -> list[PlannedGroup]:
    """Deal shards to at most `width` groups: contiguous ranges of nearly equal length.

    The source's concurrency and rate are limits of the host, so the groups share them.
    """
    width = max(1, min(width, len(shards), source.limits.concurrency))
    cuts = [round(index * len(shards) / width) for index in range(width + 1)]
    chunks = [tuple(shards[a:b]) for a, b in pairwise(cuts) if a < b]
    rate = source.limits.requests_per_s
    return [
        PlannedGroup(
            number=number,
            shards=chunk,
            label=label(source.name, chunk),
            concurrency=_share(source.limits.concurrency, number, len(chunks)),
            requests_per_s=None if rate is None else rate / len(chunks),
        )
        for number, chunk in enumerate(chunks)
    ]


def shared_group(source: Source, shards: Sequence[ShardSpan], tasks: int) -> PlannedGroup:
    """The group that the small tasks of a shared run have in common.

    Args:
        source: Theirs.
        shards: Of one of them.
        tasks: How many tasks share the run.
    """
    return PlannedGroup(
        number=0,
        shards=tuple(shards),
        label=f"{source.name}, {tasks} tasks",
        concurrency=source.limits.concurrency,
        requests_per_s=source.limits.requests_per_s,
    )


def _share(total: int, index: int, parts: int) -> int:
    return total // parts + (1 if index < total % parts else 0)


def label(source: str, shards: Sequence[ShardSpan]) -> str:
    """What a mapped instance is called: `flights 0-49,999`, what it asks for, or the source's name for a stream."""
    first, last = shards[0], shards[-1]
    if first.label:
        return f"{source} {first.label}" + (f" … {last.label}" if len(shards) > 1 else "")
    if last.size is None:
        return f"{source} {first.offset:,}-" if last.offset else source
    return f"{source} {first.offset:,}-{last.offset + last.size - 1:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSums:
    """What the shards of a task have come to.

    Args:
        source_total: Rows that the pages named; of shards with parameters of their own, those of all of them.
        mismatch: The first shard with parameters of its own that has fewer rows than its pages named: `shard`, `named`,
            `fetched`.
        streams: Every shard goes on until the source says that there is no more.
        by_page: The shards differ by the rows that they ask for, and by nothing else.
        permanent_kinds: Of how many kinds the permanent failures are.
        host_down: Of the failed ones those that failed because nobody answers at the host.
        host_sick: Those that failed because it answered that it cannot.
        deferred: Why shards were put back, None when none was.
        probed: Why, where one was let through to try its endpoint and got no answer; None where none was.
        outage: Which service of ours was away, so that shards were put back; None when none was.
        rows_landed: Rows that are in the target, or aside of it.
        unchanged_rows: Rows of pages that the source calls unchanged since they landed.
        bad_rows: Rows that did not fit their columns.
        bad_reason: Why the first of them did not, where none fitted.
        repeated_rows: Rows that were fetched twice; None where they are not counted.
    """

    shards: int
    done: int
    failed: int
    permanent: int
    rows_fetched: int
    source_total: int | None
    retry_after_s: float | None
    first_failed: int | None
    first_error: dict[str, Any] | None
    mismatch: dict[str, Any] | None = None
    by_page: bool = False
    streams: bool = False
    permanent_kinds: int = 0
    host_down: int = 0
    host_sick: int = 0
    deferred: str | None = None
    probed: str | None = None
    outage: str | None = None
    rows_landed: int = 0
    unchanged_rows: int = 0
    bad_rows: int = 0
    bad_reason: str | None = None
    repeated_rows: int | None = None

    @property
    def final(self) -> bool:
        """Whether every shard is DONE or FAILED."""
        return self.done + self.failed == self.shards

    @property
    def fitting_rows(self) -> int:
        """Rows that fit their columns. A page with bad rows is fetched anew each time, its fellows are unchanged."""
        return self.rows_landed + self.unchanged_rows


#: Shards that fail for good in the same way, while none has been answered, before the rest of a task is not asked.
ALIKE = 3


def hopeless(sums: ShardSums, max_failed_shards: int) -> bool:
    """Whether a task ends now, whatever its other shards would bring, so that they are not asked for any more.

    More shards have failed for good than may fail. Or shard after shard has failed in the same way and none was
    answered, where nothing but the page tells them apart: then the request is wrong, and so are the others.
    """
    if sums.permanent > max_failed_shards:
        return True
    answered = sums.done > 0 or sums.rows_fetched > 0
    alike = sums.permanent_kinds == 1 and sums.permanent >= min(ALIKE, sums.shards)
    return sums.by_page and not answered and alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The attempt that is being settled.

    Args:
        planned: Its shards are stored; False when its run ended before that.
        named_total: Rows that the source named when it was counted.
        total_at_least: There may be more rows than the source names.
        thinned: The source leaves rows out of its pages that its total counts.
        plan_error: Why planning failed, None when it did not.
        host_held: Its host's circuit, or its endpoint's, is not closed.
        probe: It was not closed when the attempt was claimed: it was let through to see.
        impatient_s: For how long an endpoint may fail, when that of the attempt was tried by it, has failed for longer,
            and its host is in order; else None.
        max_bad_share: Share of its rows that may be bad.
        max_repeated_rows: Rows that may be fetched twice; None for any number.
    """

    planned: bool
    retry_count: int
    max_retries: int
    lost_count: int
    named_total: int | None
    max_failed_shards: int
    plan_error: dict[str, Any] | None
    host_held: bool = False
    probe: bool = False
    total_at_least: bool = False
    thinned: bool = False
    impatient_s: float | None = None
    max_bad_share: float = 1.0
    max_repeated_rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Where a task goes from here.

    Args:
        status: COMPLETED, PARTIAL, RETRYING, QUEUED (an attempt was lost), HELD (its host is held), DISPATCH_FAILED (no
            node took it) or DEAD.
        reason: Why, for people; None when there is nothing to explain.
        delay_s: Seconds until the next attempt is due.
        counted: Of QUEUED: the attempt counts as lost.
    """

    status: TaskStatus
    reason: str | None = None
    delay_s: float = 0.0
    counted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """How an attempt was lost, as far as somebody knows.

    Args:
        cause: For people.
        nodes: Nodes that the next attempt shall avoid.
        started: False: its node did not start it, which is no loss of the attempt's own making.
        nowhere: Why no other node can take it; None when one can, or the attempt had started.
        retry_s: Seconds until it is tried again when none can.
    """

    cause: str
    nodes: tuple[str, ...] = ()
    started: bool = True
    nowhere: str | None = None
    retry_s: float = 0.0


def settle_outcome(
    attempt: Attempt,
    sums: ShardSums,
    retry: RetryRule,
    *,
    base_s: float | None,
    chance: float,
    loss: Loss | None = None,
) -> Outcome:
    """What an attempt has come to (DESIGN guarantees 7 and 10).

    Args:
        attempt: The attempt.
        sums: Its shards.
        retry: Retry rule of the installation.
        base_s: The source's own base delay, None for the rule's.
        chance: A number drawn from [0, 1), for the jitter.
        loss: How it was lost, when somebody knows.
    """
    if (reason := _deferred(attempt, sums)) is not None:
        vain = _probed_in_vain(attempt, sums)
        status = TaskStatus.HELD if vain is None else TaskStatus.DEAD
        return Outcome(status=status, reason=vain or reason)
    if (reason := _outage(attempt, sums)) is not None:
        delay_s = OUTAGE_DELAY_S * (1 + chance)
        return Outcome(status=TaskStatus.QUEUED, reason=reason, delay_s=delay_s, counted=False)
    if attempt.plan_error is not None:
        return _plan_failed(attempt, attempt.plan_error, retry, base_s=base_s, chance=chance)
    put_back = sums.deferred or sums.outage
    over = attempt.planned and hopeless(sums, attempt.max_failed_shards)
    if not attempt.planned or not (sums.final or over or (put_back and sums.failed)):
        return _lost(attempt, sums, loss)
    if sums.failed == 0:
        return _all_done(attempt, sums)
    return _some_failed(attempt, sums, retry, base_s=base_s, chance=chance)


def _deferred(attempt: Attempt, sums: ShardSums) -> str | None:
    """Why an attempt goes on when its host does, neither failed nor lost; None when it does not.

    That is so when nothing has failed but by the fault of a host that is held. An answer that says "I cannot" is the
    fault of a host only while others fail as well: that of a probe may be the request's own, and counts as a retry, so
    that a request that always fails has an end.
    """
    error = attempt.plan_error
    if error is not None:
        fault = error.get("host_fault")
        by_host = fault == "down" or (fault == "sick" and not attempt.probe)
        deferred = bool(error.get("deferred")) or (attempt.host_held and by_host)
        return _message(error) if deferred else None
    if not attempt.planned or (sums.failed == 0 and sums.deferred is None):
        return None
    by_host_count = sums.host_down + (0 if attempt.probe else sums.host_sick)
    if sums.failed > by_host_count or not (attempt.host_held or sums.deferred):
        return None
    return sums.deferred or f"host of its connection is held: {_message(sums.first_error)}"


def _probed_in_vain(attempt: Attempt, sums: ShardSums) -> str | None:
    """Why an attempt that tried an endpoint ends, whose patience is over; None when it does not.

    The others of the endpoint go on waiting: one ends with each try.
    """
    if attempt.impatient_s is None:
        return None
    error = attempt.plan_error
    met = sums.probed if error is None else _message(error) if error.get("probed") else None
    if met is None:
        return None
    hours = f"{attempt.impatient_s / 3600:.3g} h"
    return f"the endpoint has failed for more than {hours} (host.patience_s), and so did this try: {met}"


def _outage(attempt: Attempt, sums: ShardSums) -> str | None:
    """Which outage of our own the attempt met, when nothing else is the matter with it; None when it met none.

    It counts neither as a retry nor as a loss: nobody's fault, however long it lasts.
    """
    if attempt.plan_error is not None:
        met = f"planning: {_message(attempt.plan_error)}" if attempt.plan_error.get("outage") else None
    else:
        met = sums.outage if attempt.planned and sums.failed == 0 and not sums.final else None
    return None if met is None else f"not counted, runs again: {met}"


def _some_failed(
    attempt: Attempt, sums: ShardSums, retry: RetryRule, *, base_s: float | None, chance: float
) -> Outcome:
    reason = f"{sums.failed} of {sums.shards} shards failed; shard {sums.first_failed}: {_message(sums.first_error)}"
    if hopeless(sums, attempt.max_failed_shards):
        rest = sums.shards - sums.done - sums.failed
        given_up = f"; {rest} shards were not asked for any more" if rest else ""
        return Outcome(status=TaskStatus.DEAD, reason=reason + given_up)
    if sums.failed > sums.permanent and attempt.retry_count < attempt.max_retries:
        delay_s = retry_delay_s(
            attempt.retry_count + 1, retry, base_s=base_s, chance=chance, retry_after_s=sums.retry_after_s
        )
        return Outcome(status=TaskStatus.RETRYING, reason=reason, delay_s=delay_s)
    if sums.failed > attempt.max_failed_shards:
        return Outcome(status=TaskStatus.DEAD, reason=reason)
    if not sums.final:  # the others were put back: they are fetched when their host goes on
        return Outcome(status=TaskStatus.HELD, reason=f"{sums.deferred or sums.outage}; {reason}")
    return Outcome(status=TaskStatus.PARTIAL, reason=reason)


def _plan_failed(
    attempt: Attempt, error: dict[str, Any], retry: RetryRule, *, base_s: float | None, chance: float
) -> Outcome:
    reason = f"planning failed: {_message(error)}"
    if not error.get("transient") or attempt.retry_count >= attempt.max_retries:
        return Outcome(status=TaskStatus.DEAD, reason=reason)
    delay_s = retry_delay_s(
        attempt.retry_count + 1, retry, base_s=base_s, chance=chance, retry_after_s=error.get("retry_after_s")
    )
    return Outcome(status=TaskStatus.RETRYING, reason=reason, delay_s=delay_s)


#: Bad rows that say something about a source: of three rows one is a third.
TELLING_BAD_ROWS = 10
#: A longer reason is cut.
MAX_REASON_CHARS = 1000


def _all_done(attempt: Attempt, sums: ShardSums) -> Outcome:
    if sums.bad_rows and not sums.fitting_rows:
        first = f"; the first: {sums.bad_reason}" if sums.bad_reason else ""
        reason = f"none of {sums.bad_rows:,} rows fits the target's columns{first}"
        return Outcome(status=TaskStatus.DEAD, reason=reason[:MAX_REASON_CHARS])
    counted = _counted(attempt, sums)
    unequal = counted.reason if counted.status is TaskStatus.PARTIAL else None
    lacks = [text for text in (unequal, _bad(attempt, sums), _repeated(attempt, sums)) if text]
    return Outcome(status=TaskStatus.PARTIAL, reason="; ".join(lacks)) if lacks else counted


def _bad(attempt: Attempt, sums: ShardSums) -> str | None:
    rows = sums.bad_rows + sums.fitting_rows
    if sums.bad_rows < TELLING_BAD_ROWS or sums.bad_rows <= attempt.max_bad_share * rows:
        return None
    return f"{sums.bad_rows:,} of {rows:,} rows are bad, max_bad_share is {attempt.max_bad_share:g}"


def _repeated(attempt: Attempt, sums: ShardSums) -> str | None:
    allowed = attempt.max_repeated_rows
    if allowed is None or not sums.repeated_rows or sums.repeated_rows <= allowed:
        return None
    return f"{sums.repeated_rows:,} rows were fetched twice, max_repeated_rows is {allowed:,}"


def _counted(attempt: Attempt, sums: ShardSums) -> Outcome:
    """What the number of rows says, against what the source has named."""
    planned, fetched = attempt.named_total, sums.rows_fetched
    # Pages that are fetched one after the other name the total anew, up to the last one.
    newer = sums.source_total is not None and (planned is None or sums.streams)
    named = sums.source_total if newer else planned
    exact = not attempt.total_at_least
    if exact and not sums.streams and sums.source_total not in (None, planned) and planned is not None:
        reason = (
            f"the source named {planned:,} rows when it was counted and has {sums.source_total:,} by its pages, "
            f"{fetched:,} were fetched; where its total moves or is capped, declare total.at_least or total.capped_at"
        )
        return Outcome(status=TaskStatus.PARTIAL, reason=reason)
    if sums.mismatch is not None and not attempt.thinned:
        shard, many, got = (sums.mismatch[name] for name in ("shard", "named", "fetched"))
        reason = f"shard {shard}: the source named {many:,} rows, {got:,} were fetched"
        return Outcome(status=TaskStatus.PARTIAL, reason=reason)
    if named is not None and fetched < named and not attempt.thinned:
        more = "" if exact else " or more"
        reason = f"the source named {named:,} rows{more}, {fetched:,} were fetched"
        return Outcome(status=TaskStatus.PARTIAL, reason=reason)
    if named is not None and fetched > named and exact:
        reason = f"the source named {named:,} rows, {fetched:,} were fetched"
        # What goes on until the source says that there is no more has all there is, whatever was announced; of shards
        # that ask for different things, several may have brought the same rows.
        ended = sums.streams and (sums.by_page or planned is None)
        return Outcome(status=TaskStatus.COMPLETED if ended else TaskStatus.PARTIAL, reason=reason)
    return Outcome(status=TaskStatus.COMPLETED)


def _lost(attempt: Attempt, sums: ShardSums, loss: Loss | None) -> Outcome:
    if loss is not None and not loss.started:
        if loss.nowhere is not None:
            reason = f"{loss.cause}; {loss.nowhere}"
            return Outcome(status=TaskStatus.DISPATCH_FAILED, reason=reason, delay_s=loss.retry_s)
        return Outcome(
            status=TaskStatus.QUEUED, reason=f"{loss.cause}; it is placed elsewhere", counted=False
        )
    where = (
        f"{sums.shards - sums.done - sums.failed} shards unfinished"
        if attempt.planned
        else "before planning ended"
    )
    where = where if loss is None else f"{where}: {loss.cause}"
    if attempt.lost_count + 1 >= MAX_LOST:
        return Outcome(
            status=TaskStatus.DEAD, reason=f"the attempt was lost ({where}), {MAX_LOST} times in all"
        )
    # The first loss is nobody's fault and runs again at once; what is lost again and again may be its own doing.
    delay_s = min(MAX_LOST_DELAY_S, 2.0**attempt.lost_count) if attempt.lost_count else 0.0
    reason = f"the attempt was lost ({where}); runs again"
    return Outcome(status=TaskStatus.QUEUED, reason=reason, delay_s=delay_s)


def _message(error: dict[str, Any] | None) -> str:
    """What an error says; cut, unless it names a remedy: a statement is of no use without its end."""
    error = error or {}
    text = str(error.get("message", "unknown"))
    return text if error.get("remedy") else text[:500]


def retry_delay_s(
    number: int, rule: RetryRule, *, base_s: float | None, chance: float, retry_after_s: float | None = None
) -> float:
    """Seconds before retry `number` (1, 2, …): base * 2^(number-1), a share of it in [0, jitter] added, capped.

    A server's Retry-After that is longer wins, up to the same cap.
    """
    delay_s = (base_s or rule.base_s) * 2.0 ** (number - 1)
    delay_s *= 1 + rule.jitter * chance
    return min(rule.max_delay_s, max(delay_s, retry_after_s or 0.0))
