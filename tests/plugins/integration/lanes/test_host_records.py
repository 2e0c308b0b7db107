"""What PostgreSQL keeps of hosts: the breaker as the pure one decides, and quotas that are never exceeded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from collect_ops.lanes import breaker as pure
from collect_ops.lanes.breaker import Breaker, Outcomes, Permit, Phase
from collect_ops.lanes.hosts import (
    Host,
    down_hosts,
    note_probes,
    pause,
    quota_block,
    read_host,
    report_outcomes,
    report_probe,
    return_quota,
    take_permit,
    take_quota,
)
from collect_ops.lanes.rules import HostRule
from collect_ops.storage import Connection, connect, connect_async
from tests.examples import examples

T = TypeVar("T")
NAME = "things_api"
RULE = HostRule(failures=3, window_s=10, min_requests=6, hold_s=5, max_hold_s=60, probes=2, probe_s=4)


def near(breaker: Breaker) -> Breaker:
    """Times to the millisecond: PostgreSQL keeps microseconds."""

    def short(at: float | None) -> float | None:
        return None if at is None else round(at, 3)

    window = replace(breaker.window, since=round(breaker.window.since, 3))
    return replace(breaker, until=short(breaker.until), since=short(breaker.since), window=window)


class RecordMachine(RuleBasedStateMachine):
    """The same events for the record in PostgreSQL and for the pure breaker."""

    db: Connection
    dsn: str

    @initialize()
    def begin(self) -> None:
        self.db.execute("TRUNCATE collect.host")
        self.db.execute("INSERT INTO collect.host (connection) VALUES (%s)", (NAME,))
        self.breaker = Breaker()
        self.runner = asyncio.Runner()
        self.connection = self.runner.run(connect_async(self.dsn))
        self.holds: list[int] = []

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def _same(self, host: Host) -> None:
        assert near(host.breaker) == near(self.breaker)
        # What was kept is what was told.
        assert near(read_host(self.db, NAME).breaker) == near(self.breaker)

    @rule(
        answers=st.integers(0, 8),
        errors=st.integers(0, 4),
        in_a_row=st.integers(0, 4),
        answered=st.booleans(),
    )
    def outcomes(self, answers: int, errors: int, in_a_row: int, answered: bool) -> None:
        told = Outcomes(
            requests=answers + errors,
            errors=errors,
            in_a_row=min(in_a_row, errors),
            answered=answered or answers > 0,
        )
        host = self._run(report_outcomes(self.connection, NAME, told, "broken", RULE))
        self.breaker = pure.report(self.breaker, told, host.now, RULE)
        self._same(host)

    @rule()
    def permit(self) -> None:
        host, permit = self._run(take_permit(self.connection, NAME, RULE))
        self.breaker, wanted = pure.permit(self.breaker, host.now, RULE)
        assert permit is wanted
        if permit is Permit.PROBE:
            self.holds.append(self.breaker.holds)
        self._same(host)

    @rule(answered=st.booleans(), stale=st.booleans())
    def probe_ends(self, answered: bool, stale: bool) -> None:
        holds = self.breaker.holds - stale
        host = self._run(
            report_probe(self.connection, NAME, answered=answered, holds=holds, error=None, rule=RULE)
        )
        self.breaker = pure.probe_ended(self.breaker, answered=answered, holds=holds, now=host.now, rule=RULE)
        self._same(host)

    @rule()
    def a_claim_lets_a_task_through(self) -> None:
        before = read_host(self.db, NAME)
        with self.db.transaction():
            note_probes(self.db, [NAME], RULE)
        after = read_host(self.db, NAME)
        if before.breaker.due(before.now):
            assert (after.breaker.phase, after.breaker.probes) == (Phase.HALF_OPEN, 0)
            assert after.breaker.until is not None
            assert abs(after.breaker.until - before.now - RULE.probe_s) < 2
            self.breaker = after.breaker
        else:
            self._same(after)

    @rule(seconds=st.sampled_from([1, 4, 6, 11, 70]))
    def time_passes(self, seconds: int) -> None:
        self.db.execute(
            "UPDATE collect.host SET held_until = held_until - make_interval(secs => %(s)s), "
            "since = since - make_interval(secs => %(s)s), "
            "window_from = window_from - make_interval(secs => %(s)s)",
            {"s": seconds},
        )
        window = replace(self.breaker.window, since=self.breaker.window.since - seconds)
        self.breaker = replace(
            self.breaker,
            until=None if self.breaker.until is None else self.breaker.until - seconds,
            since=None if self.breaker.since is None else self.breaker.since - seconds,
            window=window,
        )

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self._run(self.connection.close())
            self.runner.close()


def test_the_record_is_the_pure_breaker(db: Connection, postgres_dsn: str) -> None:
    class Machine(RecordMachine):
        pass

    Machine.db, Machine.dsn = db, postgres_dsn
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=examples(6), stateful_step_count=25, deadline=None)
    )


def test_errors_of_many_processes_at_once_are_all_counted(db: Connection, postgres_dsn: str) -> None:
    rule = HostRule(failures=10_000, min_requests=10_000)

    def report_ten() -> None:
        async def report() -> None:
            async with await connect_async(postgres_dsn) as connection:
                for _ in range(10):
                    await report_outcomes(
                        connection, NAME, Outcomes(requests=2, errors=1, in_a_row=1), "x", rule
                    )

        asyncio.run(report())

    threads = [threading.Thread(target=report_ten) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    breaker = read_host(db, NAME).breaker
    window = breaker.window
    assert window.requests + window.requests_before == 120
    assert window.errors + window.errors_before == 60
    assert breaker.in_a_row == 60


async def test_of_many_that_ask_as_many_are_probes_as_the_rule_says(
    postgres_dsn: str, db: Connection
) -> None:
    db.execute(
        "INSERT INTO collect.host (connection, holds, since, held_until) VALUES (%s, 1, now(), now())",
        (NAME,),
    )

    async def ask() -> Permit:
        async with await connect_async(postgres_dsn) as connection:
            return (await take_permit(connection, NAME, RULE))[1]

    permits = await asyncio.gather(*(ask() for _ in range(8)))
    assert sorted(permits) == [Permit.PROBE] * 2 + [Permit.WAIT] * 6


async def test_a_pause_holds_what_is_claimed_until_it_has_passed(postgres_dsn: str, db: Connection) -> None:
    async with await connect_async(postgres_dsn) as connection:
        await pause(connection, NAME, "answered 429", 60)
        await pause(connection, NAME, "shorter", 1)
        _, permit = await take_permit(connection, NAME, RULE)
    assert permit is Permit.REFUSED
    down = down_hosts(db, [NAME, "other"])
    assert set(down) == {NAME}
    assert not down[NAME].may_probe
    assert "is paused until" in down[NAME].reason
    assert "answered 429" in down[NAME].reason
    db.execute("UPDATE collect.host SET paused_until = now()")
    assert down_hosts(db, [NAME]) == {}


async def test_without_a_time_a_pause_ends_with_the_day(postgres_dsn: str, db: Connection) -> None:
    async with await connect_async(postgres_dsn) as connection:
        await pause(connection, NAME, "its quota is used up", None)
    row = db.execute(
        "SELECT paused_until AT TIME ZONE 'UTC' AS at, paused_until > now() AS later, "
        "paused_until <= now() + interval '1 day' AS today FROM collect.host"
    ).fetchone()
    assert row is not None
    assert (row["at"].hour, row["at"].minute, row["later"], row["today"]) == (0, 0, True, True)


@given(quota=st.integers(1, 10**6), granted=st.integers(0, 2 * 10**6), wanted=st.integers(1, 64))
def test_a_block_is_never_more_than_is_left(quota: int, granted: int, wanted: int) -> None:
    block = quota_block(quota, granted, wanted)
    assert 0 <= block <= max(0, quota - granted)
    assert (block == 0) == (granted >= quota)
    assert block <= max(wanted, 200)


async def test_a_quota_is_given_out_exactly_by_many_at_once(postgres_dsn: str, db: Connection) -> None:
    async def drain() -> int:
        total = 0
        async with await connect_async(postgres_dsn) as connection:
            while True:
                block = await take_quota(connection, NAME, 777, 1)
                assert block is not None
                if block.granted == 0:
                    return total
                total += block.granted

    assert sum(await asyncio.gather(*(drain() for _ in range(6)))) == 777


async def test_what_is_left_goes_back_and_a_new_day_begins_anew(postgres_dsn: str, db: Connection) -> None:
    async with await connect_async(postgres_dsn) as connection:
        assert await take_quota(connection, NAME, None, 1) is None, "nobody has declared one"
        block = await take_quota(connection, NAME, 100, 10)
        assert block is not None
        assert (block.granted, block.quota) == (10, 100)
        assert 0 < block.left_s <= 24 * 3600
        await return_quota(connection, NAME, block, 4)
        other = await take_quota(connection, NAME, None, 200)
        assert other is not None
        assert other.granted == 94, "a source that declares none takes part"
        used_up = await take_quota(connection, NAME, 100, 1)
        assert used_up is not None
        assert used_up.granted == 0
        db.execute("UPDATE collect.host_quota SET day = day - 1")
        await return_quota(connection, NAME, replace(block, day="1999-01-01"), 5)
        fresh = await take_quota(connection, NAME, 100, 100)
        assert fresh is not None
        assert fresh.granted == 100
        db.execute("UPDATE collect.host_quota SET day = day + 1")
        ahead = await take_quota(connection, NAME, 100, 1)
        assert ahead is not None
        assert ahead.granted == 0, "a clock that was set back gives nothing out twice"


def test_a_record_that_is_read_is_not_made(db: Connection, postgres_dsn: str) -> None:
    assert read_host(db, NAME).breaker == Breaker()
    with connect(postgres_dsn) as other:
        assert other.execute("SELECT 1 FROM collect.host").fetchall() == []
