"""Splitting, dealing, settling and retrying, as properties."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.execution.policy import (
    ALIKE,
    MAX_LOST,
    OUTAGE_DELAY_S,
    Attempt,
    ShardSums,
    group,
    hopeless,
    retry_delay_s,
    settle_outcome,
    split,
)
from collect_ops.lanes.rules import RetryRule
from collect_ops.tasks.lifecycle import MOVES, TaskStatus
from tests.factories import source

RULE = RetryRule(base_s=10, jitter=0.2, max_delay_s=3600)


@given(total=st.integers(0, 20_000), batch=st.integers(1, 5_000))
def test_shards_cover_every_row_once(total: int, batch: int) -> None:
    shards = split(source(batch_size=batch, page_size=None), total)
    assert len(shards) == -(-total // batch)
    position = 0
    for number, shard in enumerate(shards):
        assert (shard.number, shard.offset) == (number, position)
        assert shard.size is not None
        assert 1 <= shard.size <= batch
        position += shard.size
    assert position == total


@given(total=st.integers(0, 10_000))
def test_what_cannot_be_split_is_one_stream(total: int) -> None:
    streamed = source(paging={"type": "cursor", "cursor": "next"}, total={"type": "unknown"}, page_size=None)
    for known in (total, None):
        (shard,) = split(streamed, known)
        assert (shard.offset, shard.size) == (0, None)
    (shard,) = split(source(), None)
    assert shard.size is None


@given(
    count=st.integers(1, 300),
    width=st.integers(1, 50),
    concurrency=st.integers(1, 64),
    rate=st.none() | st.floats(0.1, 100),
)
def test_groups_share_out_shards_and_the_hosts_limits(
    count: int, width: int, concurrency: int, rate: float | None
) -> None:
    declared = source(limits={"concurrency": concurrency, "requests_per_s": rate})
    shards = split(declared, count * declared.batch_size)
    groups = group(declared, shards, width)
    assert [shard for each in groups for shard in each.shards] == shards
    assert len(groups) <= width
    sizes = [len(each.shards) for each in groups]
    assert max(sizes) - min(sizes) <= 1
    assert sum(each.concurrency for each in groups) == concurrency
    assert min(each.concurrency for each in groups) >= 1
    if rate is not None:
        assert abs(sum(each.requests_per_s or 0 for each in groups) - rate) < 1e-6


def test_a_group_is_named_after_its_rows() -> None:
    declared = source("flights", batch_size=25_000, page_size=5_000)
    labels = [each.label for each in group(declared, split(declared, 100_000), 2)]
    assert labels == ["flights 0-49,999", "flights 50,000-99,999"]


@given(
    number=st.integers(1, 60),
    chance=st.floats(0, 1, exclude_max=True),
    after=st.none() | st.floats(0, 10_000),
)
def test_a_retry_waits_within_its_bounds(number: int, chance: float, after: float | None) -> None:
    delay_s = retry_delay_s(number, RULE, base_s=None, chance=chance, retry_after_s=after)
    least = min(RULE.max_delay_s, 10 * 2.0 ** (number - 1))
    assert least <= delay_s <= RULE.max_delay_s
    if after is not None:
        assert delay_s >= min(after, RULE.max_delay_s)
    if after is None:
        assert delay_s <= least * 1.2


def error(*, transient: bool, outage: bool = False) -> dict[str, Any]:
    return {"message": "no", "transient": transient, "outage": outage}


attempts = st.builds(
    Attempt,
    planned=st.booleans(),
    retry_count=st.integers(0, 5),
    max_retries=st.integers(0, 5),
    lost_count=st.integers(0, MAX_LOST),
    named_total=st.none() | st.integers(0, 100),
    max_failed_shards=st.integers(0, 3),
    plan_error=st.none()
    | st.builds(error, transient=st.booleans())
    | st.builds(error, transient=st.booleans(), outage=st.just(True)),
    max_bad_share=st.sampled_from([0.0, 0.1, 1.0]),
    max_repeated_rows=st.none() | st.integers(0, 20),
)


@st.composite
def sums(draw: st.DrawFn) -> ShardSums:
    done, failed, other = (draw(st.integers(0, 4)) for _ in range(3))
    return ShardSums(
        shards=done + failed + other,
        done=done,
        failed=failed,
        permanent=draw(st.integers(0, failed)),
        permanent_kinds=draw(st.integers(0, 2)),
        by_page=draw(st.booleans()),
        rows_fetched=draw(st.integers(0, 100)),
        source_total=draw(st.none() | st.integers(0, 100)),
        retry_after_s=draw(st.none() | st.floats(0, 5000)),
        first_failed=0 if failed else None,
        first_error=error(transient=True) if failed else None,
        deferred=draw(st.none() | st.just("held")) if other else None,
        outage=draw(st.none() | st.just("Redis is away")) if other else None,
        rows_landed=draw(st.integers(0, 100)),
        unchanged_rows=draw(st.integers(0, 100)),
        bad_rows=draw(st.integers(0, 100)),
        repeated_rows=draw(st.none() | st.integers(0, 50)),
    )


@given(attempt=attempts, shards=sums(), chance=st.floats(0, 1, exclude_max=True))
def test_an_attempt_settles_somewhere_legal_and_says_why(
    attempt: Attempt, shards: ShardSums, chance: float
) -> None:
    outcome = settle_outcome(attempt, shards, RULE, base_s=None, chance=chance)
    assert outcome.status in MOVES[TaskStatus.DISPATCHED]
    assert (outcome.reason is None) == (outcome.status is TaskStatus.COMPLETED)
    if outcome.status not in (TaskStatus.RETRYING, TaskStatus.QUEUED):
        assert outcome.delay_s == 0
    if outcome.status is TaskStatus.RETRYING:
        assert outcome.delay_s > 0
    if outcome.status is TaskStatus.COMPLETED:
        assert attempt.planned
        assert shards.done == shards.shards
        named = attempt.named_total if attempt.named_total is not None else shards.source_total
        assert named in (None, shards.rows_fetched)
        fitting = shards.rows_landed + shards.unchanged_rows
        assert fitting or not shards.bad_rows, "rows were to land, and none of them fits"
        rows = fitting + shards.bad_rows
        assert shards.bad_rows < 10 or shards.bad_rows <= attempt.max_bad_share * rows
        allowed = attempt.max_repeated_rows
        assert allowed is None or (shards.repeated_rows or 0) <= allowed
    if outcome.status is TaskStatus.PARTIAL:
        assert shards.final, "nothing that could still be fetched is given up"
    if attempt.planned and shards.permanent > attempt.max_failed_shards and attempt.plan_error is None:
        assert outcome.status in (TaskStatus.DEAD, TaskStatus.HELD)
    if outcome.status is TaskStatus.RETRYING:
        assert attempt.retry_count < attempt.max_retries
    if outcome.status is TaskStatus.QUEUED and outcome.counted:
        assert attempt.lost_count + 1 < MAX_LOST
        assert outcome.delay_s == (min(32, 2**attempt.lost_count) if attempt.lost_count else 0)
        assert attempt.plan_error is None


@given(attempt=attempts, shards=sums(), chance=st.floats(0, 1, exclude_max=True))
def test_an_outage_of_our_own_is_neither_a_retry_nor_a_loss(
    attempt: Attempt, shards: ShardSums, chance: float
) -> None:
    """Whatever the attempt has behind it: max_retries 0, the last loss that it may have."""
    planning = replace(attempt, plan_error=error(transient=True, outage=True))
    running = (
        replace(attempt, planned=True, plan_error=None),
        replace(shards, failed=0, deferred=None, outage="x"),
    )
    for met, found in ((planning, shards), running):
        outcome = settle_outcome(met, found, RULE, base_s=None, chance=chance)
        if found.final and met is not planning:
            continue
        assert (outcome.status, outcome.counted) == (TaskStatus.QUEUED, False)
        assert OUTAGE_DELAY_S <= outcome.delay_s <= 2 * OUTAGE_DELAY_S


def test_a_mismatch_names_both_numbers() -> None:
    attempt = Attempt(
        planned=True,
        retry_count=0,
        max_retries=3,
        lost_count=0,
        named_total=1_200,
        max_failed_shards=0,
        plan_error=None,
    )
    shards = ShardSums(
        shards=2,
        done=2,
        failed=0,
        permanent=0,
        rows_fetched=1_100,
        source_total=None,
        retry_after_s=None,
        first_failed=None,
        first_error=None,
    )
    outcome = settle_outcome(attempt, shards, RULE, base_s=None, chance=0)
    assert outcome.status is TaskStatus.PARTIAL
    assert outcome.reason == "the source named 1,200 rows, 1,100 were fetched"


COMPLETED, PARTIAL = TaskStatus.COMPLETED, TaskStatus.PARTIAL


@pytest.mark.parametrize(
    ("planned", "by_pages", "fetched", "more", "status", "words"),
    [
        # Shards that were cut by a total.
        (50, None, 50, {}, COMPLETED, None),
        (50, 50, 50, {}, COMPLETED, None),
        (50, 60, 50, {}, PARTIAL, "60 by its pages"),
        (50, 50, 40, {}, PARTIAL, "named 50 rows, 40"),
        (50, 50, 51, {}, PARTIAL, "named 50 rows, 51"),
        (50, 60, 60, {"at_least": True}, COMPLETED, None),
        (50, 50, 40, {"at_least": True}, PARTIAL, "named 50 rows or more, 40"),
        (50, 50, 40, {"thinned": True}, COMPLETED, None),
        (50, 60, 40, {"thinned": True}, PARTIAL, "60 by its pages"),
        (50, 50, 51, {"thinned": True}, PARTIAL, "named 50 rows, 51"),
        # A stream goes by what its last page names.
        (None, None, 40, {"streams": True}, COMPLETED, None),
        (50, None, 50, {"streams": True}, COMPLETED, None),
        (50, 51, 51, {"streams": True}, COMPLETED, None),
        (50, 49, 49, {"streams": True}, COMPLETED, None),
        (5, 0, 0, {"streams": True}, COMPLETED, None),
        (50, 50, 49, {"streams": True}, PARTIAL, "named 50 rows, 49"),
        (50, 50, 51, {"streams": True}, COMPLETED, "named 50 rows, 51"),
        (50, None, 51, {"streams": True}, COMPLETED, "named 50 rows, 51"),
        # Shards with parameters of their own: counted together, or each by its own pages.
        (50, None, 51, {"streams": True, "by_page": False}, PARTIAL, "named 50 rows, 51"),
        (None, 50, 51, {"streams": True, "by_page": False}, COMPLETED, "named 50 rows, 51"),
    ],
)
def test_totals_against_what_came(
    planned: int | None,
    by_pages: int | None,
    fetched: int,
    more: dict[str, bool],
    status: TaskStatus,
    words: str | None,
) -> None:
    attempt = Attempt(
        planned=True,
        retry_count=0,
        max_retries=0,
        lost_count=0,
        named_total=planned,
        max_failed_shards=0,
        plan_error=None,
        total_at_least=more.get("at_least", False),
        thinned=more.get("thinned", False),
    )
    shards = ShardSums(
        shards=1, done=1, failed=0, permanent=0, rows_fetched=fetched, source_total=by_pages, retry_after_s=None,
        first_failed=None, first_error=None, by_page=more.get("by_page", True), streams=more.get("streams", False),
    )  # fmt: skip
    outcome = settle_outcome(attempt, shards, RULE, base_s=None, chance=0)
    assert outcome.status is status
    assert (outcome.reason is None) if words is None else (words in (outcome.reason or ""))


def test_shards_begin_with_a_page_and_the_last_may_have_no_end() -> None:
    declared = source(batch_size=25, page_size=10)
    assert [(s.offset, s.size) for s in split(declared, 45)] == [(0, 20), (20, 20), (40, 5)]
    assert [(s.offset, s.size) for s in split(declared, 45, open_end=True)] == [(0, 20), (20, 20), (40, None)]
    assert [(s.offset, s.size) for s in split(declared, 0, open_end=True)] == [(0, None)]
    assert [(s.offset, s.size) for s in split(declared, 45, 3)][:2] == [(0, 10), (10, 10)]


@pytest.mark.parametrize(
    ("landed", "unchanged", "bad", "share", "status"),
    [
        (0, 0, 1, 1.0, TaskStatus.DEAD),
        (0, 1, 1, 1.0, TaskStatus.COMPLETED),
        (0, 0, 0, 0.0, TaskStatus.COMPLETED),
        (1, 0, 9, 0.0, TaskStatus.COMPLETED),
        (1, 0, 10, 0.1, TaskStatus.PARTIAL),
        (90, 0, 10, 0.1, TaskStatus.COMPLETED),
        (0, 90, 10, 0.1, TaskStatus.COMPLETED),
        (89, 0, 10, 0.1, TaskStatus.PARTIAL),
        (9, 80, 10, 0.1, TaskStatus.PARTIAL),
        (1, 0, 10, 1.0, TaskStatus.COMPLETED),
    ],
)
def test_bad_rows_decide(landed: int, unchanged: int, bad: int, share: float, status: TaskStatus) -> None:
    shards = ShardSums(
        shards=1, done=1, failed=0, permanent=0, rows_fetched=landed + unchanged + bad, source_total=None,
        retry_after_s=None, first_failed=None, first_error=None, rows_landed=landed, unchanged_rows=unchanged,
        bad_rows=bad, bad_reason="because",
    )  # fmt: skip
    outcome = settle_outcome(replace(PLANNED, max_bad_share=share), shards, RULE, base_s=None, chance=0)
    assert outcome.status is status
    assert ("because" in (outcome.reason or "")) == (status is TaskStatus.DEAD)


@pytest.mark.parametrize(
    ("repeated", "allowed", "status"),
    [
        (0, 0, TaskStatus.COMPLETED),
        (1, 0, TaskStatus.PARTIAL),
        (5, 5, TaskStatus.COMPLETED),
        (5, None, TaskStatus.COMPLETED),
        (None, 0, TaskStatus.COMPLETED),
    ],
)
def test_rows_fetched_twice_decide(repeated: int | None, allowed: int | None, status: TaskStatus) -> None:
    shards = ShardSums(
        shards=1, done=1, failed=0, permanent=0, rows_fetched=9, source_total=9, retry_after_s=None,
        first_failed=None, first_error=None, rows_landed=9, repeated_rows=repeated,
    )  # fmt: skip
    attempt = replace(PLANNED, max_repeated_rows=allowed)
    assert settle_outcome(attempt, shards, RULE, base_s=None, chance=0).status is status


PLANNED = Attempt(
    planned=True,
    retry_count=0,
    max_retries=3,
    lost_count=0,
    named_total=None,
    max_failed_shards=0,
    plan_error=None,
)


def test_what_was_put_back_is_not_given_up_because_others_failed() -> None:
    """A shard has failed for good, as many are tolerated; the others wait for their host and are fetched then."""
    attempt = Attempt(
        planned=True,
        retry_count=3,
        max_retries=3,
        lost_count=0,
        named_total=None,
        max_failed_shards=1,
        plan_error=None,
    )
    put_back = ShardSums(
        shards=51, done=0, failed=1, permanent=1, rows_fetched=0, source_total=None, retry_after_s=None,
        first_failed=3, first_error=error(transient=False), deferred="host of connection a is paused",
    )  # fmt: skip
    outcome = settle_outcome(attempt, put_back, RULE, base_s=None, chance=0)
    assert outcome.status is TaskStatus.HELD
    assert outcome.reason == "host of connection a is paused; 1 of 51 shards failed; shard 3: no"
    over = settle_outcome(attempt, replace(put_back, failed=2, permanent=2), RULE, base_s=None, chance=0)
    assert over.status is TaskStatus.DEAD
    done = settle_outcome(attempt, replace(put_back, done=50, deferred=None), RULE, base_s=None, chance=0)
    assert done.status is TaskStatus.PARTIAL


@given(shards=sums(), allowed=st.integers(0, 3))
def test_nothing_is_hopeless_that_could_still_end_well(shards: ShardSums, allowed: int) -> None:
    if not hopeless(shards, allowed):
        assert shards.permanent <= allowed
        return
    if shards.permanent <= allowed:
        assert shards.by_page
        assert (shards.done, shards.rows_fetched, shards.permanent_kinds) == (0, 0, 1)
        assert shards.permanent >= min(ALIKE, shards.shards)


def test_what_others_put_back_does_not_save_what_has_failed_for_good() -> None:
    shards = ShardSums(
        shards=9, done=4, failed=1, permanent=1, rows_fetched=9, source_total=None, retry_after_s=None,
        first_failed=3, first_error=error(transient=False),
    )  # fmt: skip
    attempt = Attempt(
        planned=True,
        retry_count=0,
        max_retries=3,
        lost_count=0,
        named_total=None,
        max_failed_shards=0,
        plan_error=None,
    )
    outcome = settle_outcome(attempt, shards, RULE, base_s=None, chance=0)
    assert outcome.status is TaskStatus.DEAD
    assert outcome.reason == "1 of 9 shards failed; shard 3: no; 4 shards were not asked for any more"
    spared = settle_outcome(replace(attempt, max_failed_shards=1), shards, RULE, base_s=None, chance=0)
    assert spared.status is TaskStatus.QUEUED
